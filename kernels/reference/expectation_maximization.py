"""Steps of EM in float64, one model after the other, written to be read (Bishop 2006, section 9.2.2)."""

from __future__ import annotations

import torch
from fastdens.kernels.layout import Layout
from fastdens.kernels.reference.mixtures import precision_cholesky, responsibilities, sufficient_statistics
from torch import Tensor


def em_steps(
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
    sample_weight: Tensor | None,
) -> tuple[Tensor, ...]:
    """Weights, means, covariances, factors, lower bounds, steps taken, converged, bad: of each model, stacked."""
    of_point = torch.ones(len(points), dtype=torch.float64, device=points.device)
    if sample_weight is not None:
        of_point = sample_weight.double()
    results = []
    for m in range(layout.n_models):
        own = layout.select([m])
        rows = slice(*own.ranges[0].tolist())
        pi, mu, u = weights[[m]], means[[m]], precisions_cholesky[[m]]
        bound, taken, converged, bad = lower_bound[[m]], 0, False, False
        while taken < n_steps and not converged and not bad:
            before = bound
            resp, log_prob = responsibilities(points, own, pi, mu, u, covariance_type=covariance_type)
            weighted = resp * of_point[:, None]
            nk, mu, scatter = sufficient_statistics(points, own, weighted, mu, covariance_type=covariance_type)
            pi = nk / nk.sum(1, keepdim=True)
            sigma = covariances_from_scatter(scatter, nk, points.shape[1], reg_covar, covariance_type)
            u, lost = precision_cholesky(sigma, covariance_type=covariance_type)
            bound = (of_point[rows] * log_prob[rows]).sum()[None] / of_point[rows].sum()
            taken, bad = taken + 1, bool(lost)
            converged = bool((bound - before).abs() < tol) and not bad
        of_model = (
            pi,
            mu,
            sigma,
            u,
            bound,
            *(torch.tensor([value], device=points.device) for value in (taken, converged, bad)),
        )
        results.append(of_model)
    return tuple(torch.cat(column) for column in zip(*results, strict=True))


def covariances_from_scatter(
    scatter: Tensor, nk: Tensor, n_features: int, reg_covar: float, covariance_type: str
) -> Tensor:
    """Scatter over counts, with ``reg_covar`` added to the variances (Bishop 2006, eq. 9.25)."""
    if covariance_type in ("full", "tied"):
        counts = nk[..., None, None] if covariance_type == "full" else nk.sum(1)[:, None, None]
        return scatter / counts + reg_covar * torch.eye(n_features, dtype=scatter.dtype, device=scatter.device)
    counts = nk[..., None] if covariance_type == "diag" else n_features * nk
    return scatter / counts + reg_covar
