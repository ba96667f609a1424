"""The posterior predictive density of Dirichlet-process mixtures from kept labels: Student-t mixtures."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.distributions.niw import NormalInverseWishart
from fastdens.distributions.student_t_mixture import StudentTMixtureDensity
from fastdens.inference.gibbs import Draws
from fastdens.kernels.layout import rows_of

WEIGHTS = ("exact", "published")


class _Components(NamedTuple):
    """Components of one draw, or the prior's: their models, and parameters as in :class:`StudentTMixtureDensity`."""

    model: Tensor
    log_weights: Tensor
    locations: Tensor
    scale_precisions_cholesky: Tensor
    degrees_of_freedom: Tensor


def _student_t(
    kappa: Tensor, nu: Tensor, mean: Tensor, factors: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Location, U and degrees of freedom of the predictive of a normal-inverse-Wishart (Murphy 2007, eq. 258).

    The scale matrix is S (kappa + 1) / (kappa df), with df = nu - D + 1.
    """
    df = nu - mean.shape[-1] + 1
    scale = (kappa * df / (kappa + 1)).sqrt()
    return mean.to(dtype), (factors * scale[..., None, None]).to(dtype), df.to(dtype)


def posterior_predictive(
    points: Tensor,
    ranges: Tensor,
    draws: Draws,
    prior: NormalInverseWishart,
    *,
    weights: str,
    backend: str,
    matmul_precision: str = "ieee",
) -> StudentTMixtureDensity:
    """Average over all kept draws of the predictive density of a new point.

    Parameters
    ----------
    points : Tensor
        [N, D], sorted by model.
    ranges : Tensor
        int64 [M, 2].
    draws : Draws
    prior : NormalInverseWishart
    weights : {"exact", "published"}
        Of a draw, n_k / (alpha + n) for cluster k and alpha / (alpha + n) for the prior's predictive; or, as published,
        in proportion to alpha + n_k and none for the prior's.
    backend : {"auto", "triton", "cpu", "reference"}
    matmul_precision : {"ieee", "tf32x3", "tf32"}

    Returns
    -------
    StudentTMixtureDensity
        The prior's predictive, the same in every draw, is one component of each model, the last.

    References
    ----------
    Neal 2000, section 2. Jamroz, Kurdziel & Opala, A Bayesian nonparametrics view into deep representations, 2020.
    """
    n_models, n_chains, n_draws = draws.alpha.shape
    dtype, device = points.dtype, points.device
    n_slots = int(draws.n_components.max())
    sizes = (ranges[:, 1] - ranges[:, 0]).double()[:, None]
    log_share = -torch.tensor(n_chains * n_draws, dtype=torch.float64, device=device).log()
    parts = []
    for s in range(n_draws):
        for c in range(n_chains):
            own = kernels.niw_posterior(
                points,
                ranges,
                draws.labels[s, c],
                n_slots,
                prior.mean,
                prior.scale_diagonal,
                prior.kappa,
                backend=backend,
            )
            used, n, alpha = own.counts > 0, own.counts.double(), draws.alpha[:, c, s, None]
            if weights == "exact":
                log_weights = (n / (alpha + sizes)).log()
            else:
                n_clusters = used.sum(1, keepdim=True)
                log_weights = ((alpha + n) / (n_clusters * alpha + sizes)).log()
            kappa, nu = prior.kappa + n[used], prior.nu + n[used]
            student = _student_t(kappa, nu, own.mean[used], own.precisions_cholesky[used], dtype)
            model = torch.nonzero(used)[:, 0]
            parts.append(_Components(model, (log_weights[used] + log_share).to(dtype), *student))
    if weights == "exact":
        mass = (draws.alpha / (draws.alpha + sizes[:, None])).mean((1, 2))
        kappa, nu = torch.full_like(mass, prior.kappa), torch.full_like(mass, prior.nu)
        factors = torch.diag_embed(prior.scale_diagonal.rsqrt())
        student = _student_t(kappa, nu, prior.mean, factors, dtype)
        parts.append(_Components(torch.arange(n_models, device=device), mass.log().to(dtype), *student))
    model, *columns = (torch.cat(column) for column in zip(*parts, strict=True))
    del parts
    order = torch.argsort(model, stable=True)
    offsets = torch.zeros(n_models + 1, dtype=torch.int64, device=device)
    offsets[1:] = torch.bincount(model, minlength=n_models).cumsum(0)
    log_weights, locations, factors, df = (column[order] for column in columns)
    return StudentTMixtureDensity(offsets, log_weights, locations, factors, df, backend, matmul_precision)


def leave_one_out(
    points: Tensor, ranges: Tensor, draws: Draws, prior: NormalInverseWishart, *, backend: str, matmul_precision: str = "ieee"
) -> Tensor:
    """Log predictive density of each point, left out of its own cluster in every kept draw.

    ``(sum_k n_k t_k(x_i) + alpha t_0(x_i)) / (alpha + n - 1)``, n_k and t_k without point i: what the point's turn in a
    sweep would weigh, averaged over draws. With x in its cluster and ``q = (x - m)' S^-1 (x - m)``, to leave it out is
    a closed form in ``r = 1 - kappa / (kappa - 1) q``, by which det S shrinks.

    Parameters
    ----------
    points, ranges, draws, prior, backend, matmul_precision
        As for :func:`posterior_predictive`.

    Returns
    -------
    Tensor
        float64 [N].

    References
    ----------
    Gelfand & Dey, Bayesian model choice: asymptotics and exact calculations, JRSS B 56, 1994 (predictive of a point
    given the others). Neal 2000, algorithm 3.
    """
    n_models, n_chains, n_draws = draws.alpha.shape
    sizes = ranges[:, 1] - ranges[:, 0]
    model = rows_of(ranges).model
    n_slots, dtype, d = int(draws.n_components.max()), torch.float64, points.shape[1]
    x = points.double() - prior.mean[model]
    origin = torch.zeros_like(prior.mean)
    offsets = torch.arange(n_models + 1, device=points.device)
    rows = torch.arange(len(points), device=points.device)

    def log_t(kappa: Tensor, nu: Tensor, mean: Tensor, factors: Tensor) -> Tensor:
        student = _student_t(kappa, nu, mean, factors, dtype)
        flat = torch.zeros_like(kappa)
        return kernels.student_t_log_prob(x, offsets, flat, *student, rows=ranges, backend=backend, matmul_precision=matmul_precision)

    kappa0, nu0 = torch.full_like(sizes, prior.kappa, dtype=dtype), torch.full_like(sizes, prior.nu, dtype=dtype)
    of_prior = log_t(kappa0, nu0, origin, torch.diag_embed(prior.scale_diagonal.rsqrt()))
    total = torch.full_like(of_prior, -torch.inf)
    for s in range(n_draws):
        for c in range(n_chains):
            label = draws.labels[s, c].long()
            own = kernels.niw_posterior(
                x, ranges, label, n_slots, origin, prior.scale_diagonal, prior.kappa, backend=backend
            )
            n = own.counts.double()
            kappa, nu = prior.kappa + n, prior.nu + n
            log_joint = torch.stack(
                [
                    n[model, k].log()
                    + log_t(kappa[:, k], nu[:, k], own.mean[:, k], own.precisions_cholesky[:, k].contiguous())
                    for k in range(n_slots)
                ],
                1,
            )
            # The form of each point under its own cluster, from its density there.
            kappa, nu, n = kappa[model, label], nu[model, label], n[model, label]
            peak = _log_peak(kappa, nu, own.log_det[model, label], d)
            log_spread = (peak - (log_joint[rows, label] - n.log())) * 2 / (nu + 1)
            log_ratio = torch.log1p(-(kappa + 1) / (kappa - 1) * torch.expm1(log_spread))
            without = _log_peak(kappa - 1, nu - 1, own.log_det[model, label], d) + 0.5 * (nu - 1) * log_ratio
            log_joint[rows, label] = torch.where(n > 1, (n - 1).log() + without, -torch.inf)
            alpha = draws.alpha[:, c, s][model]
            weighed = torch.cat([log_joint, (alpha.log() + of_prior)[:, None]], 1)
            total = torch.logaddexp(total, torch.logsumexp(weighed, 1) - (alpha + sizes[model] - 1).log())
    return total - torch.tensor(n_chains * n_draws, dtype=dtype, device=points.device).log()


def _log_peak(kappa: Tensor, nu: Tensor, log_det: Tensor, n_features: int) -> Tensor:
    """Log predictive density at the location of a normal-inverse-Wishart with ``log det S``."""
    d = n_features
    constant = torch.lgamma((nu + 1) / 2) - torch.lgamma((nu - d + 1) / 2)
    return constant - 0.5 * d * (((kappa + 1) / kappa).log() + math.log(math.pi)) - 0.5 * log_det
