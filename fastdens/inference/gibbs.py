"""Collapsed Gibbs sampling for a batch of Dirichlet-process Gaussian mixtures.

Algorithm 3 of Neal, Markov chain sampling methods for Dirichlet process mixture models, JCGS 9, 2000, and split-merge
moves. The state of a chain is its labels and its alpha; everything else follows from them and the points. ``step`` is
pure: a state that was stored, in memory or in a file, continues as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.distributions.niw import NormalInverseWishart
from fastdens.inference.schedule import Schedule
from fastdens.inference.starts import fine_labels
from fastdens.kernels.counter_random import mix
from fastdens.kernels.layout import Layout, offsets_of

_KEY_COLUMNS = 8

# A search is judged by the log-joints of at most so many sweeps, its last.
_SWEEPS_JUDGED = 8


class SearchResult(NamedTuple):
    """Where a search ended: labels int32 [C, N], alpha and the mean of the last log-joints float64 [M, C]."""

    labels: Tensor
    alpha: Tensor
    log_joint: Tensor


class ChainState(NamedTuple):
    """Sweeps done; after them labels int32 [C, N] and alpha float64 [M, C].

    While searches run, ``best`` is the best state of those that have ended.
    """

    sweep: int
    labels: Tensor
    alpha: Tensor
    best: SearchResult | None = None


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

    def one(self, chain: int, draw: int) -> Draws:
        """A single draw of one chain."""
        traces = (trace[:, chain : chain + 1, draw : draw + 1] for trace in self[1:])
        return Draws(self.labels[draw : draw + 1, chain : chain + 1], *traces)

    def select(self, models: slice | Tensor, rows: slice | Tensor) -> Draws:
        """The draws of some models, which own the rows."""
        return Draws(self.labels[..., rows], *(trace[models] for trace in self[1:]))

    def replace(self, models: Tensor, rows: Tensor, others: Draws) -> Draws:
        """The draws with those of some models, which own the rows, replaced by others."""
        replaced = (trace.index_copy(0, models, other) for trace, other in zip(self[1:], others[1:], strict=True))
        return Draws(self.labels.index_copy(-1, rows, others.labels), *replaced)


class StepInfo(NamedTuple):
    """What a step did: the draws that may be kept; log-joints of all its sweeps W; proposals of split-merge moves.

    ``log_joint`` is float64 [M, C, W]; ``split_merge`` int64 [M, C, 4]: splits proposed and accepted, merges likewise.
    """

    draws: Draws
    log_joint: Tensor
    split_merge: Tensor


@dataclass(frozen=True)
class ChainProblem:
    """What does not change while chains run.

    ``split_merge`` is float64 [M], moves a sweep on average; ``alpha_prior`` is None where alpha is fixed;
    ``contrast``, the labels int32 [C, N] that the second search starts from, is None where there are no searches.
    """

    points: Tensor
    layout: Layout
    prior: NormalInverseWishart
    keys: Tensor
    split_merge: Tensor
    alpha_prior: tuple[float, float] | None
    schedule: Schedule
    backend: str
    contrast: Tensor | None = None

    @property
    def annealed(self) -> Tensor:
        """Which models have an annealed search, bool [M]."""
        return self.schedule.is_annealed(self.layout.sizes, self.points.shape[1])

    def rows_of(self, models: Tensor) -> Tensor:
        """Rows of some models, int64, in ascending order."""
        wanted = torch.zeros(self.layout.n_models, dtype=torch.bool, device=models.device)
        wanted[models] = True
        return torch.nonzero(wanted[self.layout.rows.model])[:, 0]

    def select(self, models: Tensor, schedule: Schedule) -> ChainProblem:
        """The problem of some of the models, int64 in ascending order, under another schedule."""
        sizes = self.layout.sizes[models]
        offsets = offsets_of(sizes)
        return replace(
            self,
            points=self.points[self.rows_of(models)],
            layout=Layout.from_offsets(offsets, int(offsets[-1])),
            prior=self.prior.select(models),
            keys=self.keys[models],
            split_merge=self.split_merge[models],
            schedule=schedule,
            contrast=None,
        )


def init(problem: ChainProblem, labels: Tensor, alpha: float) -> ChainState:
    """The state before the first sweep, from labels [C, N] or, the same in every chain, [N]."""
    n_chains = problem.keys.shape[1]
    concentration = torch.full(problem.keys.shape, alpha, dtype=torch.float64, device=problem.keys.device)
    return ChainState(0, labels.expand(n_chains, -1).int().contiguous(), concentration)


def step(problem: ChainProblem, state: ChainState, n_sweeps: int, thin: int) -> tuple[ChainState, StepInfo]:
    """The state after ``n_sweeps`` more sweeps, every ``thin``-th of their draws, and what was done."""
    schedule, annealed = problem.schedule, problem.annealed
    inverse_temperature = schedule.inverse_temperature(state.sweep, n_sweeps, annealed)
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
        inverse_temperature=inverse_temperature,
        split_merge=schedule.moves(state.sweep, n_sweeps, annealed, problem.split_merge),
        backend=problem.backend,
    )
    every = slice(thin - 1, None, thin)
    draws = Draws(done.labels, *(trace[..., every] for trace in (done.alpha, done.n_components, done.log_joint)))
    info = StepInfo(draws, done.log_joint, done.split_merge.long())
    state = state._replace(sweep=state.sweep + n_sweeps, labels=done.labels[-1], alpha=done.alpha[..., -1].contiguous())
    if state.sweep <= schedule.n_search:
        # Sweeps above temperature one do not count.
        is_cold = (inverse_temperature[:, -_SWEEPS_JUDGED:] == 1).double()[:, None]
        mean = (done.log_joint[..., -_SWEEPS_JUDGED:] * is_cold).sum(-1) / is_cold.sum(-1).clamp_min(1)
        state = _between_searches(problem, state, mean)
    return state, info


def _between_searches(problem: ChainProblem, state: ChainState, log_joint: Tensor) -> ChainState:
    """The state that the next search starts from where one has ended, and the best one after the last."""
    schedule, model = problem.schedule, problem.layout.rows.model
    found = SearchResult(state.labels, state.alpha, log_joint)
    if state.sweep == schedule.n_cold and problem.contrast is not None:
        return state._replace(labels=problem.contrast, best=found)
    if state.best is None or state.sweep not in (2 * schedule.n_cold, schedule.before_annealing, schedule.n_search):
        return state
    best = _better(state.best, found, model)
    if state.sweep == 2 * schedule.n_cold:
        return ChainState(state.sweep, torch.zeros_like(state.labels), best.alpha, best)
    annealed = problem.annealed
    if state.sweep == schedule.before_annealing:
        labels = torch.where(annealed[model], fine_labels(problem.keys, problem.layout).int(), best.labels)
        return ChainState(state.sweep, labels, best.alpha, best)
    # Models that are not annealed have gone on meanwhile.
    labels = torch.where(annealed[model], best.labels, state.labels)
    return ChainState(state.sweep, labels, torch.where(annealed[:, None], best.alpha, state.alpha))


def _better(first: SearchResult, second: SearchResult, model: Tensor) -> SearchResult:
    """The state with the larger log-joint, chain by chain; ``model`` is that of each row."""
    is_first = first.log_joint >= second.log_joint
    labels = torch.where(is_first.T[:, model], first.labels, second.labels)
    values = zip(first[1:], second[1:], strict=True)
    return SearchResult(labels, *(torch.where(is_first, own, other) for own, other in values))


def sample(problem: ChainProblem, state: ChainState, n_sweeps: int) -> Iterator[tuple[ChainState, StepInfo]]:
    """Steps of some sweeps each until ``n_sweeps`` sweeps are done; draws of the burn-in are to be thrown away."""
    while state.sweep < n_sweeps:
        n, thin = problem.schedule.next_launch(state.sweep, n_sweeps)
        if n == 0:
            return
        state, info = step(problem, state, n, thin)
        yield state, info


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
