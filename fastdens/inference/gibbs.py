"""Chains of a batch of Dirichlet-process Gaussian mixtures: how they start, go on, and what is kept of them.

A chain's state is its labels and its alpha; everything else follows from them and the points. ``sample`` is a loop
over pure steps, so that a state that was put away, in memory or in a file, goes on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.distributions.niw import NormalInverseWishart
from fastdens.kernels.counter_random import hashed_bits, mix, uniform_of_bits
from fastdens.kernels.layout import rows_of

# Sweeps between which statistics are made anew from the points, against the drift of their updates.
_SWEEPS_A_LAUNCH = 16
_KEY_COLUMNS = 8


class Draws(NamedTuple):
    """S kept draws of C chains of M models: labels int32 [S, C, N] in the sorted order of rows; alpha and the log-joint
    float64 and the number of components int32 [M, C, S].
    """

    labels: Tensor
    alpha: Tensor
    n_components: Tensor
    log_joint: Tensor


class ChainState(NamedTuple):
    """Sweeps done; after them labels int32 [C, N], alpha and log-joint float64 [M, C]; and the draws kept so far, in
    parts.
    """

    sweep: int
    labels: Tensor
    alpha: Tensor
    log_joint: Tensor
    parts: tuple[Draws, ...]


@dataclass(frozen=True)
class ChainProblem:
    """What does not change while chains run; ``alpha_prior`` is None where alpha is fixed."""

    points: Tensor
    ranges: Tensor
    prior: NormalInverseWishart
    keys: Tensor
    alpha_prior: tuple[float, float] | None
    burn_in: int
    thin: int
    backend: str


def stream_keys(points: Tensor, ranges: Tensor, n_chains: int, seed: int) -> Tensor:
    """Random streams of the chains, int64 [M, C], from the seed and the order pattern of each model's points.

    The pattern says which of two successive points is larger, in each of the first coordinates. So models have
    streams of their own, which do not depend on the models beside them, nor on the origin and units of the data.
    """
    model, position = rows_of(ranges)
    inner = position[1:] > 0
    pattern = ranges[:, 1] - ranges[:, 0]
    for d in range(min(points.shape[1], _KEY_COLUMNS)):
        rises = (points[1:, d] > points[:-1, d]).long()
        # Integers wrap and their sums do not depend on the order of the terms.
        terms = mix(mix(2 * position[1:] + rises) + d)
        pattern.index_add_(0, model[1:][inner], terms[inner])
    chain = torch.arange(n_chains, device=points.device)
    return mix(mix(mix(pattern) + seed)[:, None] + chain) & 0x7FFFFFFFFFFFFFFF


def random_labels(keys: Tensor, ranges: Tensor, n_labels: int) -> Tensor:
    """Labels int32 [C, N], each of 0, ..., ``n_labels - 1`` as likely, from the streams of the chains [M, C]."""
    model, position = rows_of(ranges)
    labels = [(uniform_of_bits(hashed_bits(own, 3, position)) * n_labels).int() for own in keys.T[:, model]]
    return torch.stack(labels)


def _next_launch(problem: ChainProblem, sweep: int, n_sweeps: int) -> tuple[int, int]:
    """Number of sweeps and distance of kept labels of the next launch; no sweeps when nothing is left to keep."""
    if sweep < problem.burn_in:
        n = min(_SWEEPS_A_LAUNCH, problem.burn_in - sweep)
        return n, n
    n_kept = min(max(1, _SWEEPS_A_LAUNCH // problem.thin), (n_sweeps - sweep) // problem.thin)
    return n_kept * problem.thin, problem.thin


def step(problem: ChainProblem, state: ChainState, n_sweeps: int, thin: int) -> ChainState:
    """The state after ``n_sweeps`` more sweeps; past the burn-in every ``thin``-th draw is kept."""
    done = kernels.gibbs_sweep(
        problem.points,
        problem.ranges,
        state.labels,
        state.alpha,
        problem.keys,
        problem.prior.mean,
        problem.prior.scale_diagonal,
        kappa0=problem.prior.kappa,
        nu0=problem.prior.nu,
        alpha_prior=problem.alpha_prior,
        # Draws of number zero belong to the start.
        first_sweep=state.sweep + 1,
        n_sweeps=n_sweeps,
        thin=thin,
        backend=problem.backend,
    )
    parts = state.parts
    if state.sweep >= problem.burn_in:
        every = slice(thin - 1, None, thin)
        parts += (Draws(done.labels, *(x[..., every] for x in (done.alpha, done.n_components, done.log_joint))),)
    return ChainState(
        state.sweep + n_sweeps, done.labels[-1], done.alpha[..., -1].contiguous(), done.log_joint[..., -1], parts
    )


def sample(problem: ChainProblem, state: ChainState, n_sweeps: int) -> Iterator[ChainState]:
    """The states after every launch until ``n_sweeps`` sweeps are done."""
    while state.sweep < n_sweeps:
        n, thin = _next_launch(problem, state.sweep, n_sweeps)
        if n == 0:
            return
        state = step(problem, state, n, thin)
        yield state


def join_draws(parts: tuple[Draws, ...]) -> Draws:
    """All parts as one."""
    labels, *traces = zip(*parts, strict=True)
    return Draws(torch.cat(labels), *(torch.cat(trace, -1) for trace in traces))
