"""EM for a batch of Gaussian mixtures (Bishop, Pattern Recognition and Machine Learning, 2006, section 9.2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.inference.coordinate_ascent import Ascent
from fastdens.kernels.layout import Layout
from fastdens.kernels.seeding import random_responsibilities


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
    """Points [N, D] of A models, and the options that all steps share."""

    points: Tensor
    layout: Layout
    covariance_type: str
    reg_covar: float
    backend: str
    matmul_precision: str

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
    """How EM starts: K components by ``init_params`` and a seed, unless weights, means or precisions are given."""

    n_components: int
    init_params: str
    seed: int
    weights: Tensor | None = None
    means: Tensor | None = None
    precisions: Tensor | None = None

    @property
    def is_given(self) -> bool:
        """Whether weights, means and precisions are all given."""
        return self.weights is not None and self.means is not None and self.precisions is not None


def init(problem: EMProblem, start: Start) -> tuple[EMState, EMInfo]:
    """The initial state: an M step from initial responsibilities, with the given parameters in place of its own."""
    return with_given(start, None if start.is_given else _initial_parameters(problem, start), problem.covariance_type)


def with_given(
    start: Start, initial: kernels.GaussianParameters | None, covariance_type: str
) -> tuple[EMState, EMInfo]:
    """The state of initial parameters, with the given ones in their place; None if all are given."""
    weights, means = start.weights, start.means
    if weights is None:
        assert initial is not None
        weights = initial.weights
    if means is None:
        assert initial is not None
        means = initial.means
    if start.precisions is None:
        assert initial is not None
        covariances, factors, bad = initial.covariances, initial.precisions_cholesky, initial.bad
    else:
        covariances, factors = factors_of_precisions(start.precisions, covariance_type)
        bad = torch.zeros(len(means), dtype=torch.bool, device=means.device)
    lower_bound = torch.full((len(means),), -torch.inf, dtype=torch.float64, device=means.device)
    return EMState(weights, means, factors), EMInfo(lower_bound, covariances, bad)


def expectation_maximization(problem: EMProblem, start: Start, *, tol: float, max_iter: int) -> Ascent[EMState, EMInfo]:
    """Iterate E and M steps until each model's mean log-likelihood per point changes by less than ``tol``.

    The lower bound is that of the E step before the last M step, as in scikit-learn.
    """
    state, info = init(problem, start)
    if max_iter == 0:
        return Ascent(state, info, torch.zeros_like(info.bad, dtype=torch.int64), torch.zeros_like(info.bad))
    lower_bound = info.lower_bound
    # Covariances of the start would stay in memory beside those of the steps.
    del info
    steps = kernels.em_steps(
        problem.points,
        problem.layout,
        *state,
        lower_bound,
        n_steps=max_iter,
        tol=tol,
        reg_covar=problem.reg_covar,
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


def better_of(a: Ascent[EMState, EMInfo], b: Ascent[EMState, EMInfo]) -> Ascent[EMState, EMInfo]:
    """For each model the ascent with the larger lower bound; one that turned bad loses to one that did not."""
    take_b = (a.info.bad & ~b.info.bad) | ((b.info.lower_bound > a.info.lower_bound) & (a.info.bad == b.info.bad))

    def pick(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(take_b.reshape(-1, *[1] * (x.ndim - 1)), y, x)

    return Ascent(
        EMState(*map(pick, a.state, b.state)),
        EMInfo(*map(pick, a.info, b.info)),
        pick(a.n_iter, b.n_iter),
        pick(a.converged, b.converged),
    )


def _initial_parameters(problem: EMProblem, start: Start) -> kernels.GaussianParameters:
    """An M step from initial responsibilities, with scikit-learn's meanings of ``init_params``.

    "random" draws them uniform and normalised; "random_from_data" and "kmeans++" give each component the one point
    that was chosen for it.
    """
    points, layout, k = problem.points, problem.layout, start.n_components
    if start.init_params == "random":
        resp = random_responsibilities(layout, len(points), k, start.seed, points.dtype, backend=problem.backend)
        centres = points[layout.ranges[:, 0]][:, None].expand(-1, k, -1)
        sums = kernels.sufficient_statistics(points, layout, resp, centres, **problem.kernel_options)
        return kernels.gaussian_parameters(
            sums,
            points.shape[1],
            reg_covar=problem.reg_covar,
            covariance_type=problem.covariance_type,
            backend=problem.backend,
        )
    if start.init_params == "random_from_data":
        chosen = kernels.random_rows(layout, k, start.seed, backend=problem.backend)
    else:
        chosen = kernels.kmeans_plusplus(points, layout, k, start.seed, backend=problem.backend)
    return parameters_of_points(points[chosen], problem.covariance_type, problem.reg_covar)


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


def factors_of_precisions(precisions: Tensor, covariance_type: str) -> tuple[Tensor, Tensor]:
    """Covariances and upper-triangular factors U, ``precision = U U'``, of given precisions."""
    if covariance_type in ("diag", "spherical"):
        return precisions.reciprocal(), precisions.sqrt()
    # U U' = P is the Cholesky factorisation of P with rows and columns in reverse order.
    reverse = torch.linalg.cholesky(precisions.double().flip(-2, -1)).flip(-2, -1)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(precisions.double()))
    return inverse.to(precisions.dtype), reverse.to(precisions.dtype).contiguous()
