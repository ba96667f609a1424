"""EM for a batch of Gaussian mixtures (Bishop, Pattern Recognition and Machine Learning, 2006, section 9.2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.inference.coordinate_ascent import Ascent, InfoT, StateT
from fastdens.kernels.layout import Layout
from fastdens.kernels.m_step import weighted

# Of k-means starts, as in scikit-learn.
_LLOYD_ITERATIONS = 300
# Weights are left as they are while their mean is from one to this.
_LARGEST_MEAN = 1 << 20


class EMState(NamedTuple):
    """The parameters that an E step reads.

    Weights [A, K], means [A, K, D] and factors of the precisions, ``precision = U U'``, in the shapes of
    :class:`fastdens.GaussianMixtures`.
    """

    weights: Tensor
    means: Tensor
    precisions_cholesky: Tensor


class EMInfo(NamedTuple):
    """About a step of A models.

    The mean log-likelihood per point at its E step, float64 [A]; the covariances of the new state; and ``bad``, bool
    [A], True for a model with a covariance that has no Cholesky factor.
    """

    lower_bound: Tensor
    covariances: Tensor
    bad: Tensor


@dataclass(frozen=True)
class EMProblem:
    """Points [N, D] of A models, and the options that all steps share; weights of the points [N], if they have any."""

    points: Tensor
    layout: Layout
    covariance_type: str
    reg_covar: float
    backend: str
    matmul_precision: str
    sample_weight: Tensor | None = None

    @property
    def kernel_options(self) -> dict[str, Any]:
        """The options of kernel calls."""
        return {
            "covariance_type": self.covariance_type,
            "backend": self.backend,
            "matmul_precision": self.matmul_precision,
        }


@dataclass(frozen=True)
class Start:
    """How EM starts: K components by ``init_params`` and a seed, unless weights, means or precisions are given.

    To go on from an ascent, all that it ended with is given: factors of the precisions in place of these, too.
    """

    n_components: int
    init_params: str
    seed: int
    weights: Tensor | None = None
    means: Tensor | None = None
    precisions: Tensor | None = None
    precisions_cholesky: Tensor | None = None
    covariances: Tensor | None = None
    lower_bound: Tensor | None = None

    @property
    def is_given(self) -> bool:
        """Whether weights, means and precisions are all given."""
        has_precisions = self.precisions is not None or self.precisions_cholesky is not None
        return self.weights is not None and self.means is not None and has_precisions


def init(problem: EMProblem, start: Start) -> tuple[EMState, EMInfo]:
    """The initial state: an M step from initial responsibilities, with the given parameters in place of its own."""
    return with_given(start, _own_parameters(problem, start), problem.covariance_type)


def with_given(
    start: Start, initial: kernels.GaussianParameters | None, covariance_type: str
) -> tuple[EMState, EMInfo]:
    """The state of initial parameters, with the given ones in their place; None if all are given."""
    state = _given_state(start, initial, covariance_type)
    bad = torch.zeros(len(state.means), dtype=torch.bool, device=state.means.device)
    if start.precisions_cholesky is not None:
        assert start.covariances is not None
        covariances = start.covariances
    elif start.precisions is not None:
        covariances = covariances_of_precisions(start.precisions, covariance_type)
    else:
        assert initial is not None
        covariances, bad = initial.covariances, initial.bad
    return state, EMInfo(_bound_at(start, state), covariances, bad)


def _own_parameters(problem: EMProblem, start: Start) -> kernels.GaussianParameters | None:
    return None if start.is_given else initial_parameters(problem, start)


def _given_state(start: Start, initial: kernels.GaussianParameters | None, covariance_type: str) -> EMState:
    weights, means, factors = start.weights, start.means, start.precisions_cholesky
    if factors is None and start.precisions is not None:
        factors = factors_of_precisions(start.precisions, covariance_type)
    if initial is not None:
        weights = initial.weights if weights is None else weights
        means = initial.means if means is None else means
        factors = initial.precisions_cholesky if factors is None else factors
    assert weights is not None and means is not None and factors is not None
    return EMState(weights, means, factors)


def _bound_at(start: Start, state: EMState) -> Tensor:
    if start.lower_bound is not None:
        return start.lower_bound
    return torch.full((len(state.means),), -torch.inf, dtype=torch.float64, device=state.means.device)


def expectation_maximization(problem: EMProblem, start: Start, *, tol: float, max_iter: int) -> Ascent[EMState, EMInfo]:
    """Iterate E and M steps until each model's mean log-likelihood per point changes by less than ``tol``.

    The lower bound is that of the E step before the last M step, as in scikit-learn.
    """
    if max_iter == 0:
        state, info = init(problem, start)
        return Ascent(state, info, torch.zeros_like(info.bad, dtype=torch.int64), torch.zeros_like(info.bad))
    # No step reads covariances of the start, which would stay in memory beside those of the steps.
    state = _given_state(start, _own_parameters(problem, start), problem.covariance_type)
    steps = kernels.em_steps(
        problem.points,
        problem.layout,
        *state,
        _bound_at(start, state),
        n_steps=max_iter,
        tol=tol,
        reg_covar=problem.reg_covar,
        sample_weight=problem.sample_weight,
        **problem.kernel_options,
    )
    # One component takes all points even from a start that has no density, and so no bound.
    no_bound = steps.lower_bound.isnan() & ~steps.bad
    return Ascent(
        EMState(steps.weights, steps.means, steps.precisions_cholesky),
        EMInfo(steps.lower_bound.masked_fill(no_bound, -torch.inf), steps.covariances, steps.bad),
        steps.n_steps,
        steps.converged,
    )


def better_of(a: Ascent[StateT, InfoT], b: Ascent[StateT, InfoT]) -> Ascent[StateT, InfoT]:
    """For each model the ascent with the larger lower bound; one that turned bad loses to one that did not."""
    take_b = (a.info.bad & ~b.info.bad) | ((b.info.lower_bound > a.info.lower_bound) & (a.info.bad == b.info.bad))

    def pick(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(take_b.reshape(-1, *[1] * (x.ndim - 1)), y, x)

    return Ascent(
        type(a.state)(*map(pick, a.state, b.state)),
        type(a.info)(*map(pick, a.info, b.info)),
        pick(a.n_iter, b.n_iter),
        pick(a.converged, b.converged),
    )


def initial_parameters(problem: EMProblem, start: Start) -> kernels.GaussianParameters:
    """An M step from initial responsibilities, with scikit-learn's meanings of ``init_params``.

    "kmeans" gives each point to its cluster, "random" draws responsibilities uniform and normalised;
    "random_from_data" and "kmeans++" give each component the one point that was chosen for it.
    """
    points, layout, k = problem.points, problem.layout, start.n_components
    options: dict[str, Any] = {"sample_weight": problem.sample_weight, "backend": problem.backend}
    if start.init_params in ("kmeans", "random"):
        resp = initial_responsibilities(problem, start)
        centres = points[layout.ranges[:, 0]][:, None].expand(-1, k, -1)
        sums = kernels.sufficient_statistics(
            points, layout, weighted(resp, problem.sample_weight), centres, **problem.kernel_options
        )
        return kernels.gaussian_parameters(
            sums,
            points.shape[1],
            reg_covar=problem.reg_covar,
            covariance_type=problem.covariance_type,
            backend=problem.backend,
        )
    if start.init_params == "random_from_data":
        chosen = kernels.random_rows(layout, k, start.seed, **options)
    else:
        chosen = kernels.kmeans_plusplus(points, layout, k, start.seed, **options)
    return parameters_of_points(points[chosen], problem.covariance_type, problem.reg_covar)


def initial_responsibilities(problem: EMProblem, start: Start) -> Tensor:
    """Responsibilities [N, K] of a "kmeans" or "random" start."""
    points, k = problem.points, start.n_components
    options: dict[str, Any] = {"sample_weight": problem.sample_weight, "backend": problem.backend}
    if start.init_params == "random":
        return kernels.random_responsibilities(problem.layout, len(points), k, start.seed, points.dtype, **options)
    labels = kernels.kmeans(points, problem.layout, k, start.seed, max_iter=_LLOYD_ITERATIONS, **options).labels
    return torch.zeros(len(points), k, dtype=points.dtype, device=points.device).scatter_(1, labels[:, None], 1.0)


def weights_for_em(weights: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
    """Weights float64 [N] in a dtype, those of each model times a power of two if they are small or large on average.

    EM does not depend on the unit of the weights, but float32 does not hold all of them, and counts have an epsilon
    added to them. Powers of two round nothing; integers stay what they are, unless they are millions.
    """
    # The mantissa over the mean is a power of two without rounding.
    mean = (layout.sum(weights) / layout.sizes).clamp_min(torch.finfo(torch.float64).tiny)
    scale = torch.where((mean >= 1) & (mean < _LARGEST_MEAN), 1.0, 2 * torch.frexp(mean).mantissa / mean)
    return (weights * scale[layout.rows.model]).to(dtype).clamp_min_(torch.finfo(dtype).tiny)


def parameters_of_points(means: Tensor, covariance_type: str, reg_covar: float) -> kernels.GaussianParameters:
    """Components of one point each: of equal weight, with no variance but ``reg_covar``."""
    n_models, k, d = means.shape
    shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[covariance_type]
    covariances = means.new_zeros(n_models, *shape)
    variances = covariances
    if covariance_type in ("full", "tied"):
        variances = covariances.diagonal(dim1=-2, dim2=-1)
    variances.fill_(reg_covar)
    factors = covariances.clone()
    (factors.diagonal(dim1=-2, dim2=-1) if variances is not covariances else factors).rsqrt_()
    bad = torch.full((n_models,), not 0 < reg_covar < torch.inf, device=means.device)
    return kernels.GaussianParameters(means.new_full((n_models, k), 1 / k), means, covariances, factors, bad)


def factors_of_precisions(precisions: Tensor, covariance_type: str) -> Tensor:
    """Upper-triangular factors U, ``precision = U U'``, of given precisions."""
    if covariance_type in ("diag", "spherical"):
        return precisions.sqrt()
    # U U' = P is the Cholesky factorisation of P with rows and columns in reverse order.
    reverse: Tensor = torch.linalg.cholesky(precisions.double().flip(-2, -1)).flip(-2, -1)
    return reverse.to(precisions.dtype).contiguous()


def covariances_of_precisions(precisions: Tensor, covariance_type: str) -> Tensor:
    """Covariances of given precisions."""
    if covariance_type in ("diag", "spherical"):
        return precisions.reciprocal()
    inverse: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(precisions.double()))
    return inverse.to(precisions.dtype)
