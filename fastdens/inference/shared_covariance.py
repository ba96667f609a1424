"""EM for the Gaussian mixtures of a batch that share one covariance: linear discriminant analysis, and mixtures of it.

The E step is every model's own; the M step adds up the scatter of all (McLachlan & Peel, Finite Mixture Models, 2000,
section 3.2; with one component, the Gaussians behind Mahalanobis scores: Lee et al., A simple unified framework for
detecting out-of-distribution samples and adversarial attacks, NeurIPS 2018). What rises from step to step, unless the
covariance is shrunk, is the mean log-likelihood per point over all models. Points are read some models at a time, so
that they may be on disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.batch import RaggedBatch
from fastdens.inference.em import (
    EMProblem,
    Start,
    covariances_of_precisions,
    factors_of_precisions,
    initial_responsibilities,
    weights_for_em,
)
from fastdens.inference.shrinkage import Spread, share, shrink, spread_of_all
from fastdens.kernels.centre import central_points
from fastdens.kernels.layout import Layout
from fastdens.kernels.m_step import weighted
from fastdens.kernels.shared_factor import product, shared_responsibilities, shared_scatter

_LARGEST_MEAN = 1 << 20


class SharedState(NamedTuple):
    """Weights [A, K], means float64 [A, K, D], and what all share: the covariance and its factor U, [D, D] each."""

    weights: Tensor
    means: Tensor
    covariance: Tensor
    factor: Tensor


class SharedInfo(NamedTuple):
    """About a step of all models together, a number each.

    The mean log-likelihood per point at its E step, minus infinity at the start; whether the covariance has lost its
    Cholesky factor; and the share by which it is shrunk.
    """

    lower_bound: float
    bad: bool
    shrinkage: float


class SharedAscent(NamedTuple):
    """Where all models stand after their last step."""

    state: SharedState
    info: SharedInfo
    n_iter: int
    converged: bool


class Part(NamedTuple):
    """Consecutive models with their points, each model's about an origin of its own, float64 [m, D]."""

    models: slice
    points: Tensor
    layout: Layout
    origin: Tensor
    weights: Tensor | None


class SharedSums(NamedTuple):
    """Sums over the points of all models, float64: nk [A, K], means [A, K, D], and numbers and a matrix of all.

    Those are the log-likelihood, the scatter about the means, the number of points or the sum of their weights, and the
    sum of the fourth powers of distances from the means, NaN where no shrinkage depends on it.
    """

    nk: Tensor
    means: Tensor
    log_likelihood: Tensor
    scatter: Tensor
    mass: Tensor
    fourth: Tensor


@dataclass(frozen=True)
class SharedProblem:
    """The points of A models, the groups ``begin, end`` of models that are read at a time, and the options of a fit."""

    batch: RaggedBatch
    groups: Sequence[tuple[int, int]]
    dtype: torch.dtype
    reg_covar: float
    shrinkage: str | float | None
    backend: str
    matmul_precision: str

    @property
    def kernel_options(self) -> dict[str, Any]:
        """The options of kernel calls."""
        return {"backend": self.backend, "matmul_precision": self.matmul_precision}

    def parts(self) -> Iterator[Part]:
        """The models, group after group."""
        for begin, end in self.groups:
            part = self.batch.part(begin, end).without_zero_weights().to(dtype=self.dtype)
            origin = central_points(part.points, part.layout)
            # One buffer holds the origins first, the centred points after.
            points = torch.repeat_interleave(origin, part.sizes, 0)
            torch.sub(part.points, points, out=points)
            weights = None if part.weights is None else part.weights * self.unit
            yield Part(slice(begin, end), points, part.layout, origin.double(), weights)

    @cached_property
    def unit(self) -> float:
        """What weights of points are multiplied by: a power of two that keeps their mean where float32 counts well."""
        mean = 1.0 if self.batch.weights is None else float(self.batch.weights.mean())
        return 1.0 if 1 <= mean < _LARGEST_MEAN else 2.0 ** -math.floor(math.log2(mean))


def expectation_maximization(
    problem: SharedProblem, start: Start, *, tol: float, max_iter: int, on_step: Callable[[], object] = lambda: None
) -> SharedAscent:
    """Iterate E and M steps until the mean log-likelihood per point over all models changes by less than ``tol``.

    One component takes all points: its first M step is the maximum, whatever the start.

    Parameters
    ----------
    problem : SharedProblem
        Of at least one model.
    start : Start
        Given means float64 [A, K, D] in the coordinates of the batch, and given precisions [D, D].
    tol, max_iter
        As of :class:`fastdens.GaussianMixtures`.
    on_step : callable
        Called after each step.
    """
    sums = _add(_sums(problem, part, responsibilities_at_start(problem, part, start)) for part in problem.parts())
    state, info = maximization(problem, sums)
    if max_iter > 0 and start.n_components == 1:
        bound = float(_log_likelihood_of_gaussians(sums, state.factor))
        return SharedAscent(state, info._replace(lower_bound=bound), 1, not info.bad)
    state, n_iter, converged = with_given(start, state), 0, False
    if start.precisions is not None or start.precisions_cholesky is not None:
        info = info._replace(bad=bool(state.factor.isnan().any()))
    if start.lower_bound is not None:
        info = info._replace(lower_bound=float(start.lower_bound.nan_to_num(-math.inf).max()))
    while n_iter < max_iter and not converged and not info.bad:
        previous = info.lower_bound
        state, info = maximization(problem, expectation(problem, state))
        n_iter, converged = n_iter + 1, abs(info.lower_bound - previous) < tol and not info.bad
        on_step()
    return SharedAscent(state, info, n_iter, converged)


def no_ascent(n_components: int, n_features: int, dtype: torch.dtype, device: torch.device) -> SharedAscent:
    """That of no models, whose covariance is NaN."""
    k, d = n_components, n_features
    empty = torch.empty(0, k, d, dtype=torch.float64, device=device)
    matrix = torch.full((d, d), math.nan, dtype=dtype, device=device)
    state = SharedState(empty[..., 0].to(dtype), empty, matrix, matrix.clone())
    return SharedAscent(state, SharedInfo(math.nan, False, math.nan), 0, False)


def responsibilities_at_start(problem: SharedProblem, part: Part, start: Start) -> Tensor:
    """Responsibilities [n, K] of a start: drawn, of k-means, or of the component whose chosen point is nearest.

    Given means are taken in the place of chosen points; those of a model that has none are NaN.
    """
    points, layout, k = part.points, part.layout, start.n_components
    if k == 1:
        return torch.ones(len(points), 1, dtype=points.dtype, device=points.device)
    weights = None if part.weights is None else part.weights.to(points.dtype)
    options: dict[str, Any] = {"sample_weight": weights, "backend": problem.backend}
    if start.means is None and start.init_params in ("kmeans", "random"):
        own = EMProblem(points, layout, "spherical", problem.reg_covar, **problem.kernel_options, sample_weight=weights)
        return initial_responsibilities(own, start)
    if start.init_params == "random_from_data":
        centres = points[kernels.random_rows(layout, k, start.seed, **options)]
    else:
        centres = points[kernels.kmeans_plusplus(points, layout, k, start.seed, **options)]
    if start.means is not None:
        given = (start.means[part.models].double() - part.origin[:, None]).to(points.dtype)
        centres = torch.where(given.isnan(), centres, given)
    equal = torch.ones(centres.shape[:2], dtype=points.dtype, device=points.device)
    nearest = kernels.responsibilities(
        points, layout, equal, centres, equal, covariance_type="spherical", backend=problem.backend
    )
    return torch.nn.functional.one_hot(nearest.resp.argmax(1), k).to(points.dtype)


def with_given(start: Start, state: SharedState) -> SharedState:
    """The state with the given parameters in the place of its own, but for those that are NaN."""
    covariance, factor = start.covariances, start.precisions_cholesky
    if start.precisions is not None:
        covariance = covariances_of_precisions(start.precisions, "tied")
        factor = factors_of_precisions(start.precisions, "tied")
    given = SharedState(
        *(
            own if new is None else torch.where(new.isnan(), own, new.to(own.dtype))
            for own, new in zip(state, (start.weights, start.means, covariance, factor), strict=True)
        )
    )
    return given


def expectation(problem: SharedProblem, state: SharedState) -> SharedSums:
    """E step of every model, and the sums of all."""
    return _add(_sums_of_step(problem, part, state) for part in problem.parts())


def maximization(problem: SharedProblem, sums: SharedSums) -> tuple[SharedState, SharedInfo]:
    """M step: each model's weights and means, and the covariance of all."""
    covariance = sums.scatter / sums.mass
    shrinkage = 0.0
    if problem.shrinkage is not None:
        shares = share(problem.shrinkage, covariance, Spread(sums.mass / problem.unit, sums.fourth / sums.mass))
        shrink(covariance, shares)
        shrinkage = float(shares)
    covariance.diagonal().add_(problem.reg_covar)
    covariance = covariance.to(problem.dtype)
    factors, bad = kernels.precision_cholesky(covariance[None], covariance_type="tied", backend=problem.backend)
    weights = (sums.nk / sums.nk.sum(1, keepdim=True)).to(problem.dtype)
    bound = float(sums.log_likelihood / sums.mass)
    return SharedState(weights, sums.means, covariance, factors[0]), SharedInfo(bound, bool(bad), shrinkage)


def better_of(a: SharedAscent, b: SharedAscent) -> SharedAscent:
    """The ascent with the larger lower bound; one that turned bad loses to one that did not."""
    if a.info.bad != b.info.bad:
        return b if a.info.bad else a
    return b if b.info.lower_bound > a.info.lower_bound else a


def _sums_of_step(problem: SharedProblem, part: Part, state: SharedState) -> SharedSums:
    """E step of some models, and their sums."""
    means = (state.means[part.models] - part.origin[:, None]).to(problem.dtype)
    weights = state.weights[part.models]
    resp, log_prob = shared_responsibilities(
        part.points, part.layout, weights, means, state.factor, **problem.kernel_options
    )
    log_likelihood = part.layout.sum(weighted(log_prob.double(), part.weights)).sum()
    return _sums(problem, part, resp, means)._replace(log_likelihood=log_likelihood)


def _sums(problem: SharedProblem, part: Part, resp: Tensor, centres: Tensor | None = None) -> SharedSums:
    """Sums of some models under responsibilities, formed about centres [m, K, D], by default their origins."""
    points, layout = part.points, part.layout
    if centres is None:
        centres = points.new_zeros(layout.n_models, resp.shape[1], points.shape[1])
    counts = weighted(resp, part.weights).to(resp.dtype)
    if _have_small_scatters(part, resp):
        nk, means, scatters = kernels.sufficient_statistics(
            points, layout, resp, centres, covariance_type="full", **problem.kernel_options
        )
        all_models = Layout.from_offsets(torch.tensor([0, len(means)], device=points.device), len(means))
        scatter = all_models.sum(scatters)[0, 0]
    else:
        # Of each model by itself only weights and means are wanted, which are cheapest with a scatter that is one
        # number; there the weights of its points are in a unit of its own.
        own_weights = None if part.weights is None else weights_for_em(part.weights, layout, points.dtype)
        nk, means, _ = kernels.sufficient_statistics(
            points, layout, weighted(resp, own_weights), centres, covariance_type="spherical", **problem.kernel_options
        )
        scatter = shared_scatter(points, layout, counts, means, **problem.kernel_options)
    mass = layout.sum(weighted(resp.double(), part.weights)).sum()
    fourth = torch.full_like(mass, math.nan)
    if problem.shrinkage == "ledoit_wolf":
        spread = spread_of_all(points, layout, resp, means, part.weights)
        fourth = (spread.n_effective * spread.fourth).sum()
    unknown = torch.full((), -math.inf, dtype=torch.float64, device=points.device)
    return SharedSums(nk.double(), means.double() + part.origin[:, None], unknown, scatter, mass, fourth)


def _have_small_scatters(part: Part, resp: Tensor) -> bool:
    """Whether the sum of the models' own scatters is that of all, and these take no more memory than the points."""
    n_points, n_features = part.points.shape
    return part.weights is None and resp.shape[1] == 1 and n_points >= part.layout.n_models * n_features


def _add(parts: Iterator[SharedSums]) -> SharedSums:
    """The sums of all models, from those of consecutive ones."""
    first = next(parts)
    nk, means, of_all = [first.nk], [first.means], first[2:]
    for part in parts:
        nk.append(part.nk)
        means.append(part.means)
        for total, of_part in zip(of_all, part[2:], strict=True):
            total += of_part
    return SharedSums(torch.cat(nk), torch.cat(means), *of_all)


def _log_likelihood_of_gaussians(sums: SharedSums, factor: Tensor) -> Tensor:
    """The mean log-likelihood per point of one Gaussian a model: ``-(D log 2 pi - log |P| + tr(P S)) / 2``."""
    u = factor.double()
    scatter = sums.scatter / sums.mass
    distance = (product(scatter, u) * u).sum(1).sum()
    return u.diagonal().log().sum() - 0.5 * (distance + len(u) * math.log(2 * math.pi))
