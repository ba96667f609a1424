"""Collapsed Gibbs sampling for a batch of Dirichlet-process Gaussian mixtures.

Algorithm 3 of Neal, Markov chain sampling methods for Dirichlet process mixture models, JCGS 9, 2000. The state of a
chain is its labels and its alpha; everything else follows from them and the points. ``step`` is pure: a state that was
stored, in memory or in a file, continues as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.distributions.niw import NormalInverseWishart
from fastdens.kernels.counter_random import mix
from fastdens.kernels.layout import Layout

# After so many sweeps statistics are computed anew from the points, so that the errors of their updates do not add up.
_SWEEPS_A_LAUNCH = 16
_KEY_COLUMNS = 8


class ChainState(NamedTuple):
    """Sweeps done; after them labels int32 [C, N] and alpha float64 [M, C]."""

    sweep: int
    labels: Tensor
    alpha: Tensor


class Draws(NamedTuple):
    """S draws of C chains of M models.

    Labels of the (sorted) rows int32 [S, C, N]; alpha and the log-joint float64, and the number of components int32,
    [M, C, S].
    """

    labels: Tensor
    alpha: Tensor
    n_components: Tensor
    log_joint: Tensor

    def first(self, n_draws: int) -> Draws:
        """The first so many draws."""
        return Draws(self.labels[:n_draws], *(trace[..., :n_draws] for trace in self[1:]))

    def select(self, models: slice, rows: slice) -> Draws:
        """The draws of some successive models, which own the rows."""
        return Draws(self.labels[..., rows], *(trace[models] for trace in self[1:]))


@dataclass(frozen=True)
class ChainProblem:
    """What does not change while chains run; ``alpha_prior`` is None where alpha is fixed."""

    points: Tensor
    layout: Layout
    prior: NormalInverseWishart
    keys: Tensor
    alpha_prior: tuple[float, float] | None
    burn_in: int
    thin: int
    backend: str


def init(problem: ChainProblem, labels: Tensor, alpha: float) -> ChainState:
    """The state before the first sweep, from labels [C, N] or, the same in every chain, [N]."""
    n_chains = problem.keys.shape[1]
    concentration = torch.full(problem.keys.shape, alpha, dtype=torch.float64, device=problem.keys.device)
    return ChainState(0, labels.expand(n_chains, -1).int().contiguous(), concentration)


def step(problem: ChainProblem, state: ChainState, n_sweeps: int, thin: int) -> tuple[ChainState, Draws]:
    """The state after ``n_sweeps`` more sweeps, and every ``thin``-th of their draws."""
    done = kernels.gibbs_sweep(
        problem.points,
        problem.layout,
        state.labels,
        state.alpha,
        problem.keys,
        problem.prior.mean,
        problem.prior.scale_diagonal,
        kappa0=problem.prior.kappa,
        nu0=problem.prior.nu,
        alpha_prior=problem.alpha_prior,
        # The random numbers of sweep zero belong to the start.
        first_sweep=state.sweep + 1,
        n_sweeps=n_sweeps,
        thin=thin,
        backend=problem.backend,
    )
    every = slice(thin - 1, None, thin)
    draws = Draws(done.labels, *(trace[..., every] for trace in (done.alpha, done.n_components, done.log_joint)))
    return ChainState(state.sweep + n_sweeps, done.labels[-1], done.alpha[..., -1].contiguous()), draws


def sample(problem: ChainProblem, state: ChainState, n_sweeps: int) -> Iterator[tuple[ChainState, Draws]]:
    """Steps of some sweeps each until ``n_sweeps`` sweeps are done; draws of the burn-in are to be thrown away."""
    while state.sweep < n_sweeps:
        n, thin = _next_launch(problem, state.sweep, n_sweeps)
        if n == 0:
            return
        state, draws = step(problem, state, n, thin)
        yield state, draws


def _next_launch(problem: ChainProblem, sweep: int, n_sweeps: int) -> tuple[int, int]:
    """Number of sweeps and distance of kept draws of the next launch; no sweeps when nothing is left to keep."""
    if sweep < problem.burn_in:
        n = min(_SWEEPS_A_LAUNCH, problem.burn_in - sweep)
        return n, n
    n_kept = min(max(1, _SWEEPS_A_LAUNCH // problem.thin), (n_sweeps - sweep) // problem.thin)
    return n_kept * problem.thin, problem.thin


def join_draws(parts: tuple[Draws, ...]) -> Draws:
    """The draws of successive steps as one."""
    labels, *traces = zip(*parts, strict=True)
    return Draws(torch.cat(labels), *(torch.cat(trace, -1) for trace in traces))


def stream_keys(points: Tensor, layout: Layout, n_chains: int, seed: int) -> Tensor:
    """Random streams of the chains, int64 [M, C], from the seed and the order pattern of each model's points.

    The pattern says which of two successive points is larger, in each of the first coordinates. So models have
    streams of their own, which depend neither on the models beside them nor on the origin and units of the data.
    """
    model, position = layout.rows
    inner = position[1:] > 0
    pattern = layout.sizes.clone()
    for d in range(min(points.shape[1], _KEY_COLUMNS)):
        rises = (points[1:, d] > points[:-1, d]).long()
        # Integers wrap and their sums do not depend on the order of the terms.
        terms = mix(mix(2 * position[1:] + rises) + d)
        pattern.index_add_(0, model[1:][inner], terms[inner])
    chain = torch.arange(n_chains, device=points.device)
    return mix(mix(mix(pattern) + seed)[:, None] + chain) & 0x7FFFFFFFFFFFFFFF
