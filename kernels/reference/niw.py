"""Predictive density and marginal likelihood of a normal-inverse-Wishart model in float64 (Murphy 2007, section 8)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Posterior(NamedTuple):
    """Posteriors of K clusters: n, kappa and nu [K], m [K, D], S [K, D, D]."""

    n: Tensor
    kappa: Tensor
    nu: Tensor
    location: Tensor
    scale: Tensor


def posterior(points: Tensor, members: Tensor, prior_scale: Tensor, kappa0: float, nu0: float) -> Posterior:
    """Posteriors of clusters whose members [n, K] are ones, of points [n, D] about the prior mean."""
    x, members = points.double(), members.double()
    n = members.sum(0)
    means = members.T @ x / n.clamp_min(1)[:, None]
    kappa, nu = kappa0 + n, nu0 + n
    scatter = torch.stack([(r[:, None] * (x - mu)).T @ (x - mu) for r, mu in zip(members.T, means, strict=True)])
    pull = (kappa0 * n / kappa)[:, None, None] * means[:, :, None] * means[:, None, :]
    return Posterior(n, kappa, nu, (n / kappa)[:, None] * means, torch.diag(prior_scale) + scatter + pull)


def log_predictive(
    x: Tensor, points: Tensor, members: Tensor, prior_scale: Tensor, kappa0: float, nu0: float
) -> Tensor:
    """Log-density [K] of a point [D] under the Student-t predictive of each cluster; without members, of the prior."""
    own, dim = posterior(points, members, prior_scale, kappa0, nu0), points.shape[1]
    df = own.nu - dim + 1
    # Student-t of df degrees of freedom and scale matrix S (kappa + 1) / (kappa df).
    lower = torch.linalg.cholesky(own.scale * ((own.kappa + 1) / (own.kappa * df))[:, None, None])
    y = torch.linalg.solve_triangular(lower, (x.double() - own.location)[..., None], upper=False)[..., 0]
    log_t = torch.lgamma((df + dim) / 2) - torch.lgamma(df / 2) - 0.5 * dim * (df * math.pi).log()
    log_t -= lower.diagonal(dim1=-2, dim2=-1).log().sum(1) + 0.5 * (df + dim) * torch.log1p(y.square().sum(1) / df)
    return log_t


def log_marginal(points: Tensor, prior_scale: Tensor, kappa0: float, nu0: float) -> float:
    """Log marginal likelihood of the points [n, D] of one cluster, about the prior mean (Murphy 2007, eq. 266)."""
    n, dim = points.shape
    own = posterior(points, points.new_ones(n, 1), prior_scale, kappa0, nu0)
    half_nu0 = torch.tensor(nu0 / 2, dtype=torch.float64, device="cpu")
    total = float(torch.special.multigammaln(half_nu0 + n / 2, dim) - torch.special.multigammaln(half_nu0, dim))
    total += 0.5 * nu0 * float(prior_scale.log().sum()) - 0.5 * (nu0 + n) * float(torch.logdet(own.scale[0]))
    return total + 0.5 * dim * (math.log(kappa0 / (kappa0 + n)) - n * math.log(math.pi))
