"""EM for a batch of Gaussian mixtures (Bishop 2006, section 9.2.2): initial parameters, iterations, finished models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.kernels.seeding import random_responsibilities

Ranges = Tensor


@dataclass(frozen=True)
class MixtureParameters:
    """Parameters of A mixtures, shapes as in :class:`fastdens.GaussianMixtures`; ``bad`` [A] marks those without a
    Cholesky factor.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    precisions_cholesky: Tensor
    bad: Tensor

    def select(self, keep: Tensor) -> MixtureParameters:
        """The parameters of some of the models."""
        return MixtureParameters(
            self.weights[keep], self.means[keep], self.covariances[keep], self.precisions_cholesky[keep], self.bad[keep]
        )


@dataclass(frozen=True)
class FitResult:
    """What EM found for A models: parameters, lower bound, iterations and whether it converged, in the given order."""

    parameters: MixtureParameters
    lower_bound: Tensor
    n_iter: Tensor
    converged: Tensor


@dataclass(frozen=True)
class KernelOptions:
    """What every kernel call of a fit shares."""

    covariance_type: str
    backend: str
    matmul_precision: str


def covariances_from_scatter(
    scatter: Tensor, nk: Tensor, n_features: int, reg_covar: float, covariance_type: str
) -> Tensor:
    """Covariances in place of their scatter: divided by the counts, ``reg_covar`` added to the variances."""
    if covariance_type == "full":
        scatter /= nk[..., None, None]
    elif covariance_type == "tied":
        scatter /= nk.sum(1)[:, None, None]
    elif covariance_type == "diag":
        scatter /= nk[..., None]
    else:
        scatter /= nk * n_features
    if covariance_type in ("full", "tied"):
        scatter.diagonal(dim1=-2, dim2=-1).add_(reg_covar)
    else:
        scatter += reg_covar
    return scatter


def maximize(
    points: Tensor, ranges: Ranges, resp: Tensor, centres: Tensor, reg_covar: float, options: KernelOptions
) -> MixtureParameters:
    """M step: weights, means and covariances from responsibilities (Bishop 2006, eqs. 9.24 to 9.27)."""
    nk, means, scatter = kernels.sufficient_statistics(
        points,
        ranges,
        resp,
        centres,
        covariance_type=options.covariance_type,
        backend=options.backend,
        matmul_precision=options.matmul_precision,
    )
    covariances = covariances_from_scatter(scatter, nk, points.shape[1], reg_covar, options.covariance_type)
    factors, bad = kernels.precision_cholesky(
        covariances, covariance_type=options.covariance_type, backend=options.backend
    )
    return MixtureParameters(nk / nk.sum(1, keepdim=True), means, covariances, factors, bad)


def initial_responsibilities(
    points: Tensor, ranges: Ranges, n_components: int, init_params: str, seed: int, backend: str
) -> tuple[Tensor, Tensor]:
    """Responsibilities [N, K] to start from, with scikit-learn's meanings, and centres [M, K, D] near them.

    "random" draws them uniform and normalised; "random_from_data" and "kmeans++" give each component the one point
    that was chosen for it.
    """
    if init_params == "random":
        resp = random_responsibilities(ranges, len(points), n_components, seed, points.dtype)
        return resp, points[ranges[:, 0]][:, None].expand(-1, n_components, -1)
    if init_params == "random_from_data":
        chosen = kernels.random_rows(ranges, n_components, seed)
    else:
        chosen = kernels.kmeans_plusplus(points, ranges, n_components, seed, backend=backend)
    resp = points.new_zeros(len(points), n_components)
    resp[chosen, torch.arange(n_components, device=points.device)] = 1
    return resp, points[chosen]


def factors_of_precisions(precisions: Tensor, covariance_type: str) -> tuple[Tensor, Tensor]:
    """Covariances and upper-triangular factors U, ``precision = U U'``, of given precisions."""
    if covariance_type in ("diag", "spherical"):
        return precisions.reciprocal(), precisions.sqrt()
    # U U' = P is the Cholesky factorisation of P with rows and columns in reverse order.
    reverse = torch.linalg.cholesky(precisions.double().flip(-2, -1)).flip(-2, -1)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(precisions.double()))
    return inverse.to(precisions.dtype), reverse.to(precisions.dtype).contiguous()


def expectation_maximization(
    points: Tensor,
    ranges: Ranges,
    start: MixtureParameters,
    *,
    tol: float,
    max_iter: int,
    reg_covar: float,
    options: KernelOptions,
) -> FitResult:
    """Iterate E and M steps until each model's mean log-likelihood changes by less than ``tol``.

    A model that has converged, or lost its last Cholesky factor, leaves the work; the others go on. The lower bound
    is that of the E step before the last M step, as in scikit-learn.
    """
    n_models = len(ranges)
    device = points.device
    lower_bound = torch.full((n_models,), -torch.inf, dtype=torch.float64, device=device)
    n_iter = torch.zeros(n_models, dtype=torch.int64, device=device)
    converged = torch.zeros(n_models, dtype=torch.bool, device=device)
    active = torch.arange(n_models, device=device)
    finished: list[tuple[Tensor, MixtureParameters]] = []
    parameters = start
    # What the next step does not read is freed before new parameters are made, here and below.
    del start
    sizes = (ranges[:, 1] - ranges[:, 0]).double()
    for iteration in range(1, max_iter + 1):
        weights, means, factors = parameters.weights, parameters.means, parameters.precisions_cholesky
        del parameters
        e_step = kernels.em_statistics(
            points,
            ranges,
            weights,
            means,
            factors,
            covariance_type=options.covariance_type,
            backend=options.backend,
            matmul_precision=options.matmul_precision,
        )
        bound = e_step.log_likelihood / sizes
        del factors
        covariances = covariances_from_scatter(
            e_step.scatter, e_step.nk, points.shape[1], reg_covar, options.covariance_type
        )
        weights, means = e_step.nk / e_step.nk.sum(1, keepdim=True), e_step.means
        del e_step
        factors, bad = kernels.precision_cholesky(
            covariances, covariance_type=options.covariance_type, backend=options.backend
        )
        parameters = MixtureParameters(weights, means, covariances, factors, bad)
        del weights, means, covariances, factors
        done = (bound - lower_bound[active]).abs() < tol
        lower_bound[active] = bound
        n_iter[active] = iteration
        converged[active] = done & ~bad
        leaving = done | bad
        if bool(leaving.any()):
            finished.append((active[leaving], parameters.select(leaving)))
            keep = ~leaving
            active, ranges, sizes = active[keep], ranges[keep], sizes[keep]
            parameters = parameters.select(keep)
            if len(active) == 0:
                break
    if len(active) or not finished:
        finished.append((active, parameters))
    return FitResult(_in_order(finished), lower_bound, n_iter, converged)


def _in_order(parts: list[tuple[Tensor, MixtureParameters]]) -> MixtureParameters:
    if len(parts) == 1:
        return parts[0][1]
    order = torch.argsort(torch.cat([models for models, _ in parts]))
    columns = zip(*((p.weights, p.means, p.covariances, p.precisions_cholesky, p.bad) for _, p in parts), strict=True)
    return MixtureParameters(*(torch.cat(column)[order] for column in columns))
