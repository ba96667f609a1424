"""Mixtures of factor analysers: ``x | k ~ N(mu_k, L_k L_k' + diag(psi_k))`` with loadings L_k [D, Q].

Ghahramani & Hinton, The EM algorithm for mixtures of factor analyzers, 1996. Determinant and Mahalanobis distance
follow from a thin singular value decomposition of the loadings in units of the noise, in time and memory linear in D:
:mod:`fastdens.kernels.reference.factor_analysers` says how. No matrix [D, D] is formed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from fastdens.kernels import factor_batches, reference
from fastdens.kernels.arguments import checked
from fastdens.kernels.gaussian import equal_offsets, wanted
from fastdens.kernels.layout import Layout, as_layout
from fastdens.kernels.log_density import log_density
from fastdens.kernels.mixture import Components
from fastdens.kernels.operation import Backends, check_alike, check_points
from fastdens.kernels.reference.factor_analysers import log_normaliser, whitened_loadings
from torch import Tensor


class FactorResponsibilities(NamedTuple):
    """Responsibilities and log-densities of N points; zero for rows that no model owns.

    Attributes
    ----------
    resp : Tensor
        [N, K], of each component of the point's own model.
    log_prob_norm : Tensor
        [N], log-density under the point's own model, in nats.
    """

    resp: Tensor
    log_prob_norm: Tensor


class FactorStatistics(NamedTuple):
    """Sums over the points of M mixtures, float64, with responsibilities r and ``z = V' (x - mean) / sqrt(psi)``.

    Attributes
    ----------
    log_likelihood : Tensor
        [M], of the points under their model.
    nk : Tensor
        [M, K], sum r.
    moment, squares : Tensor
        [M, K, D], sum r (x - mean) and sum r (x - mean)^2.
    cross : Tensor
        [M, K, Q, D], sum r z (x - mean)'.
    directions : Tensor
        [M, K, Q, D], V': the span of the loadings in units of the noise.
    """

    log_likelihood: Tensor
    nk: Tensor
    moment: Tensor
    squares: Tensor
    cross: Tensor
    directions: Tensor


def _components(weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor) -> tuple[Components]:
    """The components that derivatives follow from: ``U' = (I - A A') Psi^-1/2``, ``A = V sqrt(1 - (1 + e)^-1/2)``."""
    scale, directions, strengths = whitened_loadings(loadings, noise_variances)
    shrinkage = (1 - (1 + strengths).rsqrt()).sqrt()
    return (
        Components(
            equal_offsets(means.shape[0], means.shape[1], means.device),
            weights.double().log() + log_normaliser(scale, strengths),
            means.double(),
            scale,
            triangular=False,
            tied=False,
            degrees_of_freedom=None,
            directions=directions.mT * shrinkage[..., None, :],
        ),
    )


def _fake(points: Tensor, means: Tensor, **_: Any) -> Tensor:
    return points.new_empty(points.shape[0], means.shape[0])


def _gradient(
    grad: Tensor, points: Tensor, weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor, **_: Any
) -> Tensor:
    """``d log p / dx = -sum_k r_k (L_k L_k' + Psi_k)^-1 (x - mu_k)``, one component at a time."""
    out = torch.zeros_like(points)
    for m in wanted(grad):
        joint, pulls = [], []
        for k in range(means.shape[1]):
            log_prob, z, directions = reference.factor_log_prob(
                points, means[m, k], loadings[m, k], noise_variances[m, k]
            )
            scale, _directions, strengths = whitened_loadings(loadings[m, k], noise_variances[m, k])
            joint.append(log_prob + weights[m, k].log())
            y = (points - means[m, k]) * scale
            pulls.append((y - (z * (strengths / (1 + strengths))) @ directions) * scale)
        resp = torch.softmax(torch.stack(joint, 1), 1)
        for k, pull in enumerate(pulls):
            out -= (grad[:, m] * resp[:, k])[:, None] * pull
    return out


_LOG_PROB = Backends(
    triton=factor_batches.factor_mixture_log_prob,
    cpu="factor_analysers:factor_mixture_log_prob",
    reference=reference.factor_mixture_log_prob,
)
_RESPONSIBILITIES = Backends(
    triton=factor_batches.factor_responsibilities,
    cpu="factor_analysers:factor_responsibilities",
    reference=reference.factor_responsibilities,
)
_STATISTICS = Backends(
    triton=factor_batches.factor_statistics,
    cpu="factor_analysers:factor_statistics",
    reference=reference.factor_statistics,
    in_dtype_of_points=False,
)


@log_density(fake=_fake, gradient=_gradient, prepare=_components)
def factor_mixture_log_prob(
    points: Tensor,
    weights: Tensor,
    means: Tensor,
    loadings: Tensor,
    noise_variances: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Log-density of each point under each of M mixtures of factor analysers; differentiable in the points.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64.
    weights, means, loadings, noise_variances : Tensor
        [M, K], [M, K, D], [M, K, D, Q] and [M, K, D].
    backend : {"auto", "triton", "cpu", "reference"}
        "triton" and "reference" are torch operations in float64, on the device of the points: over many models at a
        time, and model by model.

    Returns
    -------
    Tensor
        [N, M], in the dtype of the points.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.
    NotImplementedError
        If a parameter requires a gradient.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import factor_mixture_log_prob
    >>> weights, means, loadings = torch.ones(2, 1), torch.zeros(2, 1, 5), torch.zeros(2, 1, 5, 2)
    >>> factor_mixture_log_prob(torch.randn(4, 5), weights, means, loadings, torch.ones(2, 1, 5)).shape
    torch.Size([4, 2])
    """
    _check(points, weights, means, loadings, noise_variances)
    check_alike(points, weights=weights, means=means, loadings=loadings, noise_variances=noise_variances)
    return _LOG_PROB.run(backend, points, weights, means, loadings, noise_variances)


@checked
def factor_responsibilities(
    points: Tensor,
    layout: Layout | Tensor,
    weights: Tensor,
    means: Tensor,
    loadings: Tensor,
    noise_variances: Tensor,
    *,
    backend: str = "auto",
) -> FactorResponsibilities:
    """Responsibilities and log-density of each point under its own model.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64, sorted by model.
    layout : Layout or Tensor
        The rows of each model: a layout, or offsets int64 [M + 1].
    weights, means, loadings, noise_variances, backend : optional
        As for :func:`factor_mixture_log_prob`.

    Returns
    -------
    FactorResponsibilities
        In the dtype of the points.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.
    """
    _check(points, weights, means, loadings, noise_variances)
    check_alike(points, weights=weights, means=means, loadings=loadings, noise_variances=noise_variances)
    layout = as_layout(layout, len(means), len(points))
    results = _RESPONSIBILITIES.run(backend, points, layout, weights, means, loadings, noise_variances)
    return FactorResponsibilities(*results)


@checked
def factor_statistics(
    points: Tensor,
    layout: Layout | Tensor,
    weights: Tensor,
    means: Tensor,
    loadings: Tensor,
    noise_variances: Tensor,
    *,
    sample_weight: Tensor | None = None,
    resp: Tensor | None = None,
    backend: str = "auto",
) -> FactorStatistics:
    """The sums that one EM iteration of M mixtures needs, in one pass over the points.

    Parameters
    ----------
    points, layout, weights, means, loadings, noise_variances : Tensor
        As for :func:`factor_responsibilities`; the parameters may be in float64 where the points are not.
    sample_weight : Tensor, optional
        [N], how often each point counts, of any dtype; by default once.
    resp : Tensor, optional
        [N, K], responsibilities to sum with in the place of those under the parameters.
    backend : {"auto", "triton", "cpu", "reference"}
        As for :func:`factor_responsibilities`.

    Returns
    -------
    FactorStatistics
        Sums over the points of each model, float64.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.
    """
    _check(points, weights, means, loadings, noise_variances)
    layout = as_layout(layout, len(means), len(points))
    parameters = weights, means, loadings, noise_variances
    return FactorStatistics(*_STATISTICS.run(backend, points, layout, *parameters, sample_weight, resp))


def _check(points: Tensor, weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor) -> None:
    """Check the shapes of mixtures against points [N, D]."""
    check_points(points)
    if means.ndim != 3 or loadings.ndim != 4 or means.shape[2] != points.shape[1]:
        raise ValueError(
            f"points have shape {tuple(points.shape)}, means {tuple(means.shape)} and loadings "
            f"{tuple(loadings.shape)}, but they must be [N, D], [M, K, D] and [M, K, D, Q]."
        )
    shapes = {"weights": means.shape[:2], "loadings": (*means.shape, loadings.shape[3]), "noise_variances": means.shape}
    given = {"weights": weights, "loadings": loadings, "noise_variances": noise_variances}
    for name, shape in shapes.items():
        if given[name].shape != shape:
            raise ValueError(
                f"{name} have shape {tuple(given[name].shape)}, but with means {tuple(means.shape)} they must be "
                f"{tuple(shape)}."
            )
