"""Steps of EM in many models at once, each model until its own lower bound settles.

A step is the E step under the parameters that stand (Bishop 2006, eq. 9.23), the sums of the M step
(:mod:`~fastdens.kernels.m_step`), and the parameters that follow from them (eqs. 9.24 to 9.27). A model that has
converged, or whose covariance has lost its Cholesky factor, stays as its last step left it while the others go on.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from fastdens.kernels import reference
from fastdens.kernels.cholesky import precision_cholesky
from fastdens.kernels.e_step import responsibilities
from fastdens.kernels.layout import Layout, as_layout
from fastdens.kernels.m_step import SufficientStatistics, sufficient_statistics
from fastdens.kernels.operation import Backends, check_alike, check_gaussians
from torch import Tensor


class GaussianParameters(NamedTuple):
    """Parameters of M mixtures of K Gaussians, in the shapes of :class:`fastdens.GaussianMixtures`.

    Attributes
    ----------
    weights, means : Tensor
        [M, K] and [M, K, D].
    covariances, precisions_cholesky : Tensor
        full [M, K, D, D], tied [M, D, D], diag [M, K, D], spherical [M, K]; ``precision = U U'``.
    bad : Tensor
        bool [M], True for a model with a covariance that has no Cholesky factor.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    precisions_cholesky: Tensor
    bad: Tensor


class EMSteps(NamedTuple):
    """Where M models stand after steps of EM.

    Attributes
    ----------
    weights, means, covariances, precisions_cholesky, bad : Tensor
        As in :class:`GaussianParameters`.
    lower_bound : Tensor
        float64 [M], mean log-likelihood per point at the E step of each model's last step.
    n_steps : Tensor
        int64 [M], steps that each model took.
    converged : Tensor
        bool [M], True where the lower bound changed by less than ``tol`` and the model is not bad.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    precisions_cholesky: Tensor
    lower_bound: Tensor
    n_steps: Tensor
    converged: Tensor
    bad: Tensor


def gaussian_parameters(
    sums: SufficientStatistics, n_features: int, *, reg_covar: float, covariance_type: str = "full", backend: str
) -> GaussianParameters:
    """Parameters from the sums of the M step, whose scatter is overwritten (Bishop 2006, eqs. 9.24 to 9.27)."""
    nk, scatter = sums.nk, sums.scatter
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
    factors, bad = precision_cholesky(scatter, covariance_type=covariance_type, backend=backend)
    return GaussianParameters(nk / nk.sum(1, keepdim=True), sums.means, scatter, factors, bad)


def composed(
    points: Tensor,
    layout: Layout,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    lower_bound: Tensor,
    *,
    covariance_type: str,
    reg_covar: float,
    tol: float,
    n_steps: int,
    backend: str,
    matmul_precision: str,
) -> EMSteps:
    """The steps as calls of the operations that they consist of."""
    options = {"covariance_type": covariance_type, "backend": backend, "matmul_precision": matmul_precision}
    sizes = layout.sizes.double()
    finished = torch.zeros(len(means), dtype=torch.bool, device=points.device)
    taken = torch.zeros(len(means), dtype=torch.int64, device=points.device)
    now = EMSteps(weights, means, means, precisions_cholesky, lower_bound, taken, finished, finished)
    for step in range(n_steps):
        e_step = responsibilities(points, layout, now.weights, now.means, now.precisions_cholesky, **options)
        sums = sufficient_statistics(points, layout, e_step.resp, now.means, **options)
        new = gaussian_parameters(
            sums, points.shape[1], reg_covar=reg_covar, covariance_type=covariance_type, backend=backend
        )
        bound = layout.sum(e_step.log_prob_norm) / sizes
        settled = ((bound - now.lower_bound).abs() < tol) & ~new.bad
        after = EMSteps(*new[:4], bound, taken + step + 1, settled, new.bad)
        now = (
            after
            if step == 0
            else EMSteps(*(_where(finished, old, value) for old, value in zip(now, after, strict=True)))
        )
        finished = now.converged | now.bad
    return now


def _where(models: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(models.reshape(-1, *[1] * (a.ndim - 1)), a, b)


def _launch(points: Tensor, layout: Layout, *state: Tensor, **options) -> EMSteps:
    return composed(points, layout, *state, backend="triton", **options)


_BACKENDS = Backends(triton=_launch, cpu="em_steps:em_steps", reference=reference.em_steps)


def em_steps(
    points: Tensor,
    layout: Layout | Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    lower_bound: Tensor,
    *,
    n_steps: int,
    tol: float,
    reg_covar: float,
    covariance_type: str = "full",
    backend: str = "auto",
    matmul_precision: str = "ieee",
) -> EMSteps:
    """Steps of EM, in each model until its lower bound changes by less than ``tol``.

    ``n_steps`` steps in one call give what as many calls of one step give, bit for bit.

    Parameters
    ----------
    points, layout, weights, means, precisions_cholesky, covariance_type, backend, matmul_precision
        As for :func:`fastdens.kernels.responsibilities`.
    lower_bound : Tensor
        float64 [M], mean log-likelihood per point at the step before the first; minus infinity where there was none.
    n_steps : int
        Steps at most, one or more.
    tol : float
        A model has converged when its lower bound changes by less than this; with zero it takes all the steps.
    reg_covar : float
        Added to the variances.

    Returns
    -------
    EMSteps

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning, 2006, section 9.2.2.
    """
    check_gaussians(points, means, precisions_cholesky, covariance_type, matmul_precision)
    check_alike(points, weights=weights)
    if n_steps < 1:
        raise ValueError(f"n_steps is {n_steps}, but must be at least 1.")
    if lower_bound.dtype != torch.float64 or lower_bound.shape != means.shape[:1]:
        raise ValueError(
            f"lower_bound is {lower_bound.dtype} of shape {tuple(lower_bound.shape)}, but must be float64 "
            f"[{len(means)}], one for each model."
        )
    layout = as_layout(layout, len(means), len(points))
    results = _BACKENDS.run(
        backend,
        points,
        layout,
        weights,
        means,
        precisions_cholesky,
        lower_bound,
        covariance_type=covariance_type,
        reg_covar=reg_covar,
        tol=tol,
        n_steps=n_steps,
        matmul_precision=matmul_precision,
    )
    return EMSteps(*results)
