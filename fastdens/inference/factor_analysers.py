"""EM for a batch of mixtures of factor analysers (Ghahramani & Hinton 1996), in time and memory linear in D.

A step sums over the points with responsibilities (the E step), moves each mean to the weighted mean of the points, and
raises the likelihood of loadings and noise about it: the cycles of an AECM algorithm, under which the likelihood never
falls (McLachlan & Peel, Finite Mixture Models, 2000, section 8.4; Meng & van Dyk, The EM algorithm - an old folk-song
sung to a fast new tune, JRSS B 59, 1997). :mod:`fastdens.kernels.factor_m_step` has the last of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.inference.coordinate_ascent import Ascent, coordinate_ascent
from fastdens.kernels.counter_random import hashed_uniform
from fastdens.kernels.layout import Layout
from fastdens.kernels.seeding import random_responsibilities

INIT_PARAMS = ("kmeans", "random")

# M steps with the responsibilities of the start: so many turn random directions into leading ones.
_STEPS_OF_START = 4
# Loadings of the start in units of the noise: small, for the first M step to find directions and strengths.
_FAINT = 1e-6


class FactorState(NamedTuple):
    """Weights [A, K], means [A, K, D], loadings [A, K, D, Q] and noise variances [A, K, D], float64."""

    weights: Tensor
    means: Tensor
    loadings: Tensor
    noise_variances: Tensor


class FactorInfo(NamedTuple):
    """About a step of A models.

    The mean log-likelihood per point at its E step, float64 [A]; and ``bad``, bool [A], where that is NaN.
    """

    lower_bound: Tensor
    bad: Tensor


class FactorSums(NamedTuple):
    """What the M step needs: sums over the points, and the state that they belong to."""

    statistics: kernels.FactorStatistics
    state: FactorState


@dataclass(frozen=True)
class FactorProblem:
    """Points [N, D] of A models, and the options of a fit.

    ``total_weights`` float64 [A] are the sums of the weights of each model's points, which are [N] or None.
    """

    points: Tensor
    layout: Layout
    sample_weight: Tensor | None
    total_weights: Tensor
    min_noise_variance: float
    backend: str

    def select(self, models: Tensor) -> FactorProblem:
        """The problem of some of the models, by mask."""
        return replace(self, layout=self.layout.select(models), total_weights=self.total_weights[models])


@dataclass(frozen=True)
class FactorStart:
    """How EM starts: K components of Q factors, by ``init_params`` and a seed."""

    n_components: int
    n_factors: int
    init_params: str
    seed: int


def fit_factor_analysers(
    problem: FactorProblem, start: FactorStart, *, tol: float, max_iter: int
) -> Ascent[FactorState, FactorInfo]:
    """Iterate until each model's mean log-likelihood per point changes by less than ``tol``.

    The lower bound is that of the E step before the last M step. Loadings are canonical: ``L' Psi^-1 L`` is diagonal.
    """
    result = coordinate_ascent(
        problem, lambda problem: init(problem, start), expectation, maximization, tol=tol, max_iter=max_iter
    )
    state = result.state
    canonical = kernels.canonical_loadings(state.loadings, state.noise_variances, backend=problem.backend)
    return result._replace(state=state._replace(loadings=canonical))


def init(problem: FactorProblem, start: FactorStart) -> tuple[FactorState, FactorInfo]:
    """The initial state: some M steps with responsibilities that stay as they are.

    "kmeans" gives each point to its cluster, "random" draws responsibilities, uniform and normalised.
    """
    resp = _initial_responsibilities(problem, start)
    state = _without_factors(problem, resp, start)
    for _ in range(_STEPS_OF_START):
        state, info = maximization(problem, expectation(problem, state, resp))
    return state, info._replace(lower_bound=torch.full_like(info.lower_bound, -math.inf))


def expectation(problem: FactorProblem, state: FactorState, resp: Tensor | None = None) -> FactorSums:
    """Sums over the points, with responsibilities [N, K] under the state or with given ones."""
    statistics = kernels.factor_statistics(
        problem.points,
        problem.layout,
        *state,
        sample_weight=problem.sample_weight,
        resp=resp,
        backend=problem.backend,
    )
    return FactorSums(statistics, state)


def maximization(problem: FactorProblem, sums: FactorSums) -> tuple[FactorState, FactorInfo]:
    """The next state."""
    statistics, state = sums
    parameters = kernels.factor_update(
        statistics, *state[1:], min_noise_variance=problem.min_noise_variance, backend=problem.backend
    )
    lower_bound = statistics.log_likelihood / problem.total_weights
    weights = statistics.nk / problem.total_weights[:, None]
    return FactorState(weights, *parameters), FactorInfo(lower_bound, lower_bound.isnan())


def _initial_responsibilities(problem: FactorProblem, start: FactorStart) -> Tensor:
    """[N, K], float64."""
    points, layout, k = problem.points, problem.layout, start.n_components
    if k == 1:
        return torch.ones(len(points), 1, dtype=torch.float64, device=points.device)
    if start.init_params == "random":
        return random_responsibilities(layout, len(points), k, start.seed, torch.float64, backend=problem.backend)
    weight = None if problem.sample_weight is None else problem.sample_weight.to(points.dtype)
    labels = kernels.kmeans(points, layout, k, start.seed, sample_weight=weight, backend=problem.backend).labels
    resp = torch.zeros(len(points), k, dtype=torch.float64, device=points.device)
    return resp.scatter_(1, labels[:, None], 1.0)


def _without_factors(problem: FactorProblem, resp: Tensor, start: FactorStart) -> FactorState:
    """Components with the means of their points, and all with the variances of points about those.

    A cluster of few points would have too small ones of its own. Loadings are next to nothing, in random directions.
    """
    n_models, k, d, q = problem.layout.n_models, start.n_components, problem.points.shape[1], start.n_factors
    directions = _random_directions(d, q, start.seed, problem.points.device)
    state = FactorState(
        directions.new_full((n_models, k), 1 / k),
        directions.new_zeros(n_models, k, d),
        (_FAINT * directions).expand(n_models, k, d, q),
        directions.new_ones(n_models, k, d),
    )
    sums = expectation(problem, state, resp).statistics
    counts = sums.nk[..., None].clamp_min(torch.finfo(torch.float64).tiny)
    means = sums.moment / counts
    variances = (sums.squares - sums.moment * means).sum(1) / problem.total_weights[:, None]
    noise = variances.clamp_min(problem.min_noise_variance)[:, None].expand(-1, k, -1).contiguous()
    return FactorState(state.weights, means, state.loadings * noise.sqrt()[..., None], noise)


def _random_directions(n_features: int, n_factors: int, seed: int, device: torch.device) -> Tensor:
    """Normal random numbers [D, Q], divided by sqrt(D) (Box & Muller 1958)."""
    counter = torch.arange(n_features * n_factors, device=device)
    radius = (-2 * hashed_uniform(seed, 0, counter).log()).sqrt()
    normal = radius * (2 * math.pi * hashed_uniform(seed, 1, counter)).cos()
    return normal.reshape(n_features, n_factors) / math.sqrt(n_features)
