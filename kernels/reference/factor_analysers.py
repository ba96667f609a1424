"""Mixtures of factor analysers in float64, one component of one model after the other, written to be read.

Ghahramani & Hinton, The EM algorithm for mixtures of factor analyzers, 1996. In units of the noise, ``y = (x - mu) /
sqrt(psi)``, a component has the covariance ``I + B B'`` with ``B = Psi^-1/2 L = V diag(sqrt(e)) P'``, a thin singular
value decomposition. Its determinant is ``prod_q (1 + e_q)``, and the squared Mahalanobis distance of a point is that of
its part outside the span of V, and ``z_q^2 / (1 + e_q)`` within, ``z = V' y``: both linear in D.
"""

from __future__ import annotations

import math

import torch
from fastdens.kernels.layout import Layout
from torch import Tensor

# The square of a loading that the data give no evidence for, in units of the noise: next to nothing, so that its
# direction stays known.
FAINT = 1e-12
# Of the largest eigenvalue; the data have no variance along directions of smaller ones.
NEGLIGIBLE = 1e-14


def whitened_loadings(loadings: Tensor, noise_variances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``1 / sqrt(psi)`` [..., D], directions V' [..., Q, D] and strengths e [..., Q], descending."""
    scale = noise_variances.double().rsqrt()
    whitened = loadings.double() * scale[..., None]
    # A model that failed has NaN, which has no decomposition.
    known = whitened.isfinite().flatten(-2).all(-1)[..., None]
    left, singular, _ = torch.linalg.svd(torch.where(known[..., None], whitened, 0.0), full_matrices=False)
    at_largest = left.abs().argmax(-2, keepdim=True)
    directions = left * torch.where(left.gather(-2, at_largest) < 0, -1.0, 1.0)
    directions = (directions * (singular > 0)[..., None, :]).mT.contiguous()
    return scale, directions, torch.where(known, singular.square(), torch.nan)


def log_normaliser(scale: Tensor, strengths: Tensor) -> Tensor:
    """``-1/2 log det(2 pi (L L' + Psi))`` [...] of :func:`whitened_loadings`."""
    log_det = torch.log1p(strengths).sum(-1) - 2 * scale.log().sum(-1)
    return -0.5 * (log_det + scale.shape[-1] * math.log(2 * math.pi))


def factor_log_prob(
    points: Tensor, mean: Tensor, loadings: Tensor, noise_variances: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-density [N] of points under one factor analyser; z [N, Q] and the directions V' [Q, D] that it refers to."""
    scale, directions, strengths = whitened_loadings(loadings, noise_variances)
    y = (points.double() - mean.double()) * scale
    z = y @ directions.T
    outside = y - z @ directions
    form = outside.square().sum(1) + (z.square() / (1 + strengths)).sum(1)
    return log_normaliser(scale, strengths) - 0.5 * form, z, directions


def factor_mixture_log_prob(
    points: Tensor, weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor
) -> Tensor:
    """``log sum_k pi_k N(x | mu_k, L_k L_k' + diag psi_k)``, [N, M]."""
    return torch.stack(
        [torch.logsumexp(joint, 1) for joint, *_ in _joints(points, weights, means, loadings, noise_variances)], 1
    )


def factor_responsibilities(
    points: Tensor, layout: Layout, weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor
) -> tuple[Tensor, Tensor]:
    """Responsibilities [N, K] of each row's own model, and its log-density [N]; zero where no model owns the row."""
    resp = points.new_zeros(len(points), weights.shape[1], dtype=torch.float64)
    log_prob = points.new_zeros(len(points), dtype=torch.float64)
    for m, (start, stop) in enumerate(layout.ranges.tolist()):
        own = slice(m, m + 1)
        parameters = weights[own], means[own], loadings[own], noise_variances[own]
        ((joint, _, _),) = _joints(points[start:stop], *parameters)
        log_prob[start:stop] = torch.logsumexp(joint, 1)
        resp[start:stop] = torch.softmax(joint, 1)
    return resp, log_prob


def factor_statistics(
    points: Tensor,
    layout: Layout,
    weights: Tensor,
    means: Tensor,
    loadings: Tensor,
    noise_variances: Tensor,
    sample_weight: Tensor | None,
    resp: Tensor | None,
) -> tuple[Tensor, ...]:
    """Log-likelihoods [M], counts [M, K], moments, squares [M, K, D], cross sums and directions [M, K, Q, D]."""
    results = []
    for m, (start, stop) in enumerate(layout.ranges.tolist()):
        own, x = slice(m, m + 1), points[start:stop].double()
        parameters = weights[own], means[own], loadings[own], noise_variances[own]
        ((joint, z, directions),) = _joints(x, *parameters)
        r = torch.softmax(joint, 1) if resp is None else resp[start:stop].double()
        w = x.new_ones(len(x)) if sample_weight is None else sample_weight[start:stop].double()
        r = r * w[:, None]
        centred = [x - means[m, k].double() for k in range(means.shape[1])]
        results.append(
            (
                (w * torch.logsumexp(joint, 1)).sum(),
                r.sum(0),
                torch.stack([r[:, k] @ c for k, c in enumerate(centred)]),
                torch.stack([r[:, k] @ c.square() for k, c in enumerate(centred)]),
                torch.stack([(r[:, k, None] * z[k]).T @ c for k, c in enumerate(centred)]),
                directions,
            )
        )
    return tuple(map(torch.stack, zip(*results, strict=True)))


def factor_update(
    nk: Tensor,
    moment: Tensor,
    squares: Tensor,
    cross: Tensor,
    directions: Tensor,
    means: Tensor,
    loadings: Tensor,
    noise_variances: Tensor,
    min_noise_variance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The next means, loadings and noise variances, of the shapes of the given ones."""
    new_means, new_loadings, new_noise = means.clone(), loadings.clone(), noise_variances.clone()
    for at in (nk > 0).nonzero().tolist():
        i = tuple(at)
        sigma, v = noise_variances[i].sqrt(), directions[i]
        shift = moment[i] / nk[i]
        variances = squares[i] / nk[i] - shift.square()
        # S V of the covariance S of the component's points in units of the noise, [Q, D].
        image = (cross[i] / nk[i] - (v @ (shift / sigma))[:, None] * shift) / sigma
        inner = v @ image.T
        ritz, rotation = torch.linalg.eigh(0.5 * (inner + inner.T))
        image = rotation.T @ image
        strength = (ritz - 1).clamp_min(FAINT)
        usable = ritz > NEGLIGIBLE * ritz.amax()
        share = torch.where(usable, strength.sqrt() / ritz, 0.0)
        explained = (share[:, None] * image).square().sum(0) * noise_variances[i]
        new_means[i] = means[i] + shift
        new_loadings[i] = (share[:, None] * image).T * sigma[:, None]
        new_noise[i] = (variances - explained).clamp_min(min_noise_variance)
    return new_means, new_loadings, new_noise


def _joints(
    points: Tensor, weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each model ``log pi_k N(x | k)`` [N, K], z [K, N, Q] and directions [K, Q, D]."""
    results = []
    for m in range(len(weights)):
        of_components = [
            factor_log_prob(points, means[m, k], loadings[m, k], noise_variances[m, k]) for k in range(weights.shape[1])
        ]
        log_prob, z, directions = map(torch.stack, zip(*of_components, strict=True))
        results.append((log_prob.T + weights[m].double().log(), z, directions))
    return results
