"""Densities of mixtures, and the sums of EM, in float64, written to be read.

Notation as in Bishop, *Pattern Recognition and Machine Learning* (2006), section 9.2, with scikit-learn's convention
for Cholesky factors of precisions: ``precision = U U'`` with ``U`` upper triangular, so that the squared Mahalanobis
distance is ``|(x - mu) U|^2``.
"""

from __future__ import annotations

import math

import torch
from fastdens.kernels.layout import Layout
from torch import Tensor


def gaussian_log_prob(
    points: Tensor, means: Tensor, precisions_cholesky: Tensor, *, covariance_type: str = "full"
) -> Tensor:
    """Log-density of each point under each of G Gaussians, float64 [N, G].

    ``log N(x | mu, (U U')^-1) = -D/2 log 2 pi + log det U - 1/2 |(x - mu) U|^2`` (Bishop 2006, eq. 2.43).
    """
    x, mu, u = points.double(), means.double(), precisions_cholesky.double()
    dim = x.shape[1]
    columns = []
    for g in range(mu.shape[0]):
        centred = x - mu[g]
        if covariance_type in ("full", "tied"):
            factor = u[g] if covariance_type == "full" else u
            y = centred @ factor
            log_det = factor.diagonal().log().sum()
        else:
            scale = u[g].expand(dim)
            y = centred * scale
            log_det = scale.log().sum()
        columns.append(-0.5 * dim * math.log(2 * math.pi) + log_det - 0.5 * y.square().sum(1))
    return torch.stack(columns, 1)


def mixture_log_prob(
    points: Tensor, weights: Tensor, means: Tensor, precisions_cholesky: Tensor, *, covariance_type: str = "full"
) -> Tensor:
    """Log-density of each point under each of M mixtures, float64 [N, M]: ``log sum_k pi_k N(x | k)``."""
    columns = []
    for m in range(means.shape[0]):
        components = gaussian_log_prob(points, means[m], precisions_cholesky[m], covariance_type=covariance_type)
        columns.append(torch.logsumexp(components + weights[m].double().log(), 1))
    return torch.stack(columns, 1)


def responsibilities(
    points: Tensor,
    layout: Layout,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    *,
    covariance_type: str = "full",
    log_weights: bool = False,
) -> tuple[Tensor, Tensor]:
    """E step: ``r_nk = pi_k N(x_n | k) / sum_j pi_j N(x_n | j)`` (Bishop 2006, eq. 9.23) and its log normaliser.

    With ``log_weights`` the weights given are log pi, of pi that need not sum to one. Returns responsibilities [N, K]
    and log-densities [N]; rows that no model owns are zero.
    """
    resp = points.new_zeros(points.shape[0], means.shape[1], dtype=torch.float64)
    log_prob_norm = points.new_zeros(points.shape[0], dtype=torch.float64)
    for m, (start, stop) in enumerate(layout.ranges.tolist()):
        joint = gaussian_log_prob(points[start:stop], means[m], precisions_cholesky[m], covariance_type=covariance_type)
        joint = joint + (weights[m].double() if log_weights else weights[m].double().log())
        log_prob_norm[start:stop] = torch.logsumexp(joint, 1)
        resp[start:stop] = torch.exp(joint - log_prob_norm[start:stop, None])
    return resp, log_prob_norm


def student_t_log_prob(
    points: Tensor, offsets: Tensor, log_pi: Tensor, mu: Tensor, u: Tensor, nu: Tensor, *, layout: Layout | None = None
) -> Tensor:
    """Log-density under mixtures of Student-t distributions, float64 [N, M]; with a layout [N].

    The components of model m are ``offsets[m]:offsets[m + 1]``, each with a log weight, a location, a factor and
    degrees of freedom.

    ``log t(x | mu, (U U')^-1, nu) = log Gamma((nu + D)/2) - log Gamma(nu/2) - D/2 log(nu pi) + log det U
    - (nu + D)/2 log(1 + |(x - mu) U|^2 / nu)`` (Kotz & Nadarajah 2004, eq. 1.1). Rows that no model owns are zero, a
    model without components is NaN, and a component of log weight minus infinity adds nothing.
    """
    x, log_pi, mu, u, nu = (tensor.double() for tensor in (points, log_pi, mu, u, nu))
    dim = x.shape[1]
    bounds = offsets.tolist()
    n_models = len(bounds) - 1
    out = x.new_zeros(x.shape[0], n_models if layout is None else 1)
    rows = [[0, len(x)]] * n_models if layout is None else layout.ranges.tolist()
    for m, (start, stop) in enumerate(rows):
        log_prob = x.new_full((stop - start,), -math.inf if bounds[m] < bounds[m + 1] else math.nan)
        for g in range(bounds[m], bounds[m + 1]):
            if log_pi[g] == -math.inf:
                continue
            form = ((x[start:stop] - mu[g]) @ u[g]).square().sum(1)
            log_norm = torch.lgamma((nu[g] + dim) / 2) - torch.lgamma(nu[g] / 2) - dim / 2 * (nu[g] * math.pi).log()
            log_t = log_norm + u[g].diagonal().log().sum() - (nu[g] + dim) / 2 * torch.log1p(form / nu[g])
            log_prob = torch.logaddexp(log_prob, log_pi[g] + log_t)
        out[start:stop, m if layout is None else 0] = log_prob
    return out if layout is None else out[:, 0]


def sufficient_statistics(
    points: Tensor, layout: Layout, resp: Tensor, centres: Tensor, *, covariance_type: str = "full"
) -> tuple[Tensor, Tensor, Tensor]:
    """M step: counts, means and scatter about those means (Bishop 2006, eqs. 9.24 to 9.27).

    ``nk = sum_n r_nk + 10 eps`` with the eps of the points' dtype, ``mean_k = c_k + sum_n r_nk (x_n - c_k) / nk``
    and ``S_k = sum_n r_nk (x_n - mean_k)(x_n - mean_k)'``. The centre c_k cancels unless the component has no
    points, whose mean then stays where it was. Scatter by covariance type: full [M, K, D, D], tied [M, D, D]
    (summed over k), diag [M, K, D], spherical [M, K] (summed over D).
    """
    eps = 10 * torch.finfo(points.dtype).eps
    counts, means, scatters = [], [], []
    for m, (start, stop) in enumerate(layout.ranges.tolist()):
        x, r, centre = points[start:stop].double(), resp[start:stop].double(), centres[m].double()
        nk = r.sum(0) + eps
        mean = torch.stack([c + r[:, k] @ (x - c) / nk[k] for k, c in enumerate(centre)])
        scatter = torch.stack([(x - mu).T @ (r[:, k, None] * (x - mu)) for k, mu in enumerate(mean)])
        if covariance_type == "tied":
            scatter = scatter.sum(0)
        elif covariance_type != "full":
            scatter = scatter.diagonal(dim1=-2, dim2=-1)
            scatter = scatter.sum(-1) if covariance_type == "spherical" else scatter
        counts.append(nk)
        means.append(mean)
        scatters.append(scatter)
    return torch.stack(counts), torch.stack(means), torch.stack(scatters)


def precision_cholesky(covariances: Tensor, *, covariance_type: str = "full") -> tuple[Tensor, Tensor]:
    """Upper-triangular U with ``U U' = covariance^-1``, and a bool per model: True where there is none."""
    sigma = covariances.double()
    if covariance_type in ("diag", "spherical"):
        bad = ~(sigma > 0).flatten(1).all(1)
        return sigma.rsqrt(), bad
    lower, info = torch.linalg.cholesky_ex(sigma)
    bad = (info != 0).reshape(sigma.shape[0], -1).any(1) | ~torch.isfinite(sigma).flatten(1).all(1)
    identity = torch.eye(sigma.shape[-1], dtype=torch.float64, device=sigma.device).expand_as(sigma)
    return torch.linalg.solve_triangular(lower, identity, upper=False).mT.contiguous(), bad
