"""EM for a batch of Gaussian mixtures whose covariances are shrunk in every M step.

A share that follows from the data is no maximum of a likelihood, and so the lower bound, the mean log-likelihood of a
step, may fall from one iteration to the next. It settles all the same where the responsibilities do; a model that goes
round stops at ``max_iter``, unconverged. With one component there is nothing to go round: the second step repeats the
first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.inference import em
from fastdens.inference.coordinate_ascent import Ascent, coordinate_ascent
from fastdens.inference.em import EMProblem, EMState, Start
from fastdens.inference.shrinkage import Spread, share, shrink, spread_of_all, spread_of_components
from fastdens.kernels.m_step import weighted


@dataclass(frozen=True)
class ShrunkProblem:
    """An EM problem with full or tied covariances, and how they are shrunk: a share or "ledoit_wolf" or "oas".

    ``n_points`` float64 [A] are the points of each model, or the sum of their weights in the caller's unit.
    """

    em: EMProblem
    shrinkage: str | float
    n_points: Tensor

    def select(self, models: Tensor) -> ShrunkProblem:
        """The problem of some of the models, by mask."""
        own = replace(self.em, layout=self.em.layout.select(models))
        return replace(self, em=own, n_points=self.n_points[models])


class ShrunkInfo(NamedTuple):
    """About a step of A models: an :class:`~fastdens.inference.em.EMInfo` with the shares s, [A, K] or tied [A]."""

    lower_bound: Tensor
    covariances: Tensor
    bad: Tensor
    shrinkage: Tensor


class ShrunkSums(NamedTuple):
    """Input of an M step: the mean log-likelihood float64 [A], sums over points, and the spread about their means."""

    lower_bound: Tensor
    statistics: kernels.SufficientStatistics
    spread: Spread | None


def expectation_maximization(
    problem: ShrunkProblem, start: Start, *, tol: float, max_iter: int
) -> Ascent[EMState, ShrunkInfo]:
    """Iterate E and M steps until each model's mean log-likelihood per point changes by less than ``tol``."""
    return coordinate_ascent(
        problem, lambda problem: init(problem, start), expectation, maximization, tol=tol, max_iter=max_iter
    )


def init(problem: ShrunkProblem, start: Start) -> tuple[EMState, ShrunkInfo]:
    """The start of plain EM, whose covariances are as they are."""
    state, info = em.init(problem.em, start)
    n_models, n_components = state.weights.shape
    shares = no_shares(n_models, n_components, problem.em.covariance_type, state.means.device)
    return state, ShrunkInfo(*info, shares)


def no_shares(n_models: int, n_components: int, covariance_type: str, device: torch.device) -> Tensor:
    """Shares of zero, float64: full [M, K], tied [M]."""
    shape = (n_models, n_components) if covariance_type == "full" else (n_models,)
    return torch.zeros(shape, dtype=torch.float64, device=device)


def expectation(problem: ShrunkProblem, state: EMState) -> ShrunkSums:
    """E step: sums over the points under their responsibilities."""
    points, layout, options = problem.em.points, problem.em.layout, problem.em.kernel_options
    resp, log_prob = kernels.responsibilities(points, layout, *state, **options)
    counts = weighted(resp, problem.em.sample_weight)
    sums = kernels.sufficient_statistics(points, layout, counts, state.means, **options)
    mass = layout.sum(counts).sum(1)
    spread = None
    if isinstance(problem.shrinkage, str):
        spread_of = spread_of_components if problem.em.covariance_type == "full" else spread_of_all
        n_effective, fourth = spread_of(points, layout, resp, sums.means, problem.em.sample_weight)
        # EM has weights in a unit of its own, but the share depends on how many points they stand for.
        unit = problem.n_points / mass
        spread = Spread(n_effective * unit.reshape(-1, *[1] * (n_effective.ndim - 1)), fourth)
    return ShrunkSums(layout.sum(weighted(log_prob, problem.em.sample_weight)) / mass, sums, spread)


def maximization(problem: ShrunkProblem, sums: ShrunkSums) -> tuple[EMState, ShrunkInfo]:
    """M step: parameters of shrunk covariances from sums, whose scatter is overwritten."""
    nk, means, scatter = sums.statistics
    full = problem.em.covariance_type == "full"
    mass = nk if full else nk.sum(1)
    scatter /= mass[..., None, None]
    shares = share(problem.shrinkage, scatter, sums.spread)
    shrink(scatter, shares)
    scatter.diagonal(dim1=-2, dim2=-1).add_(problem.em.reg_covar)
    factors, bad = kernels.precision_cholesky(
        scatter, covariance_type=problem.em.covariance_type, backend=problem.em.backend
    )
    state = EMState(nk / nk.sum(1, keepdim=True), means, factors)
    # One component takes all points even from a start that has no density, and so no bound.
    bound = sums.lower_bound.masked_fill(sums.lower_bound.isnan() & ~bad, -torch.inf)
    return state, ShrunkInfo(bound, scatter, bad, shares)
