"""Log-densities of Gaussians and of mixtures of them.

``log N(x | mu, (U U')^-1) = -D/2 log 2 pi + log det U - 1/2 |(x - mu) U|^2`` (Bishop 2006, eq. 2.43) and
``log sum_k pi_k N(x | mu_k, (U_k U_k')^-1)`` (eq. 9.7).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from fastdens.kernels import mixture, reference
from fastdens.kernels.log_density import log_density
from fastdens.kernels.mixture import Components
from fastdens.kernels.operation import Backends, check_gaussians, check_mixtures
from torch import Tensor


def equal_offsets(n_models: int, n_components: int, device: torch.device) -> Tensor:
    """Offsets int64 [M + 1] of M mixtures of K components each."""
    # What is made while a program is exported has no numbers, and must not be kept.
    make = _new_offsets if torch.compiler.is_exporting() else _kept_offsets
    return make(n_models, n_components, device)


def _new_offsets(n_models: int, n_components: int, device: torch.device) -> Tensor:
    return torch.arange(0, (n_models + 1) * n_components, n_components, device=device)


_kept_offsets = lru_cache(maxsize=64)(_new_offsets)


def _log_norm(means: Tensor, precisions_cholesky: Tensor, covariance_type: str) -> Tensor:
    """``log det U - D/2 log 2 pi`` of Gaussians with means [..., K, D], float64 [..., K]; tied [..., 1]."""
    diagonal = precisions_cholesky
    if covariance_type in ("full", "tied"):
        diagonal = diagonal.diagonal(dim1=-2, dim2=-1)
    elif covariance_type == "spherical":
        diagonal = diagonal[..., None].expand_as(means)
    log_det = diagonal.double().log().sum(-1, keepdim=covariance_type == "tied")
    return log_det - 0.5 * means.shape[-1] * math.log(2 * math.pi)


def mixture_components(
    log_weights: Tensor, means: Tensor, precisions_cholesky: Tensor, covariance_type: str
) -> Components:
    """The components of mixtures with means [M, K, D] and log weights float64 [M, K]."""
    return Components(
        equal_offsets(means.shape[0], means.shape[1], means.device),
        _log_norm(means, precisions_cholesky, covariance_type) + log_weights,
        means,
        precisions_cholesky if covariance_type != "spherical" else precisions_cholesky[..., None].expand_as(means),
        covariance_type in ("full", "tied"),
        covariance_type == "tied",
        None,
    )


def precision_times_centred(points: Tensor, mean: Tensor, factor: Tensor, covariance_type: str) -> Tensor:
    """``U U' (x - mu)`` of one Gaussian, [N, D]: minus the gradient of its log-density."""
    centred = points - mean
    if covariance_type in ("full", "tied"):
        return centred @ factor @ factor.mT
    return centred * factor.square()


def _gaussians(means: Tensor, precisions_cholesky: Tensor, *, covariance_type: str) -> tuple[Components]:
    # G Gaussians are, to the loops, G mixtures of one component of weight one.
    g, d = means.shape
    log_norm, factors = _log_norm(means, precisions_cholesky, covariance_type), precisions_cholesky
    if covariance_type == "tied":
        log_norm, factors = log_norm.expand(g), factors.expand(g, d, d)
    elif covariance_type == "spherical":
        factors = factors[:, None].expand(g, d)
    triangular = covariance_type in ("full", "tied")
    return (Components(equal_offsets(g, 1, means.device), log_norm, means, factors, triangular, False, None),)


def _mixtures(
    weights: Tensor, means: Tensor, precisions_cholesky: Tensor, *, covariance_type: str
) -> tuple[Components]:
    return (mixture_components(weights.double().log(), means, precisions_cholesky, covariance_type),)


_GAUSSIAN = Backends(
    triton=mixture.log_prob, cpu="mixture:log_prob", reference=reference.gaussian_log_prob, prepare=_gaussians
)
_MIXTURE = Backends(
    triton=mixture.log_prob, cpu="mixture:log_prob", reference=reference.mixture_log_prob, prepare=_mixtures
)


def _fake(points: Tensor, means: Tensor, **_: Any) -> Tensor:
    return points.new_empty(points.shape[0], means.shape[0])


def wanted(grad: Tensor) -> list[int]:
    """The models, among M of cotangents [N, M], that are differentiated at all: others may have failed and be NaN."""
    return torch.nonzero((grad != 0).any(0))[:, 0].tolist()


def _gaussian_gradient(
    grad: Tensor, points: Tensor, means: Tensor, precisions_cholesky: Tensor, covariance_type: str, **_: Any
) -> Tensor:
    out = torch.zeros_like(points)
    for g in wanted(grad):
        factor = precisions_cholesky if covariance_type == "tied" else precisions_cholesky[g]
        out -= grad[:, g, None] * precision_times_centred(points, means[g], factor, covariance_type)
    return out


def _mixture_gradient(
    grad: Tensor,
    points: Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    result: Tensor,
    **options: Any,
) -> Tensor:
    """``d log p / dx = -sum_k r_k U_k U_k' (x - mu_k)``, one model at a time: memory stays at [N, D]."""
    out = torch.zeros_like(points)
    for m in wanted(grad):
        factors = precisions_cholesky[m]
        joint = torch.ops.fastdens.gaussian_log_prob(
            points, means[m], factors, covariance_type=covariance_type, **options
        )
        resp = torch.softmax(joint + weights[m].log(), 1)
        for k in range(means.shape[1]):
            factor = factors if covariance_type == "tied" else factors[k]
            pull = precision_times_centred(points, means[m, k], factor, covariance_type)
            out -= (grad[:, m] * resp[:, k])[:, None] * pull
    return out


@log_density(fake=_fake, gradient=_gaussian_gradient, prepare=_gaussians)
def gaussian_log_prob(
    points: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    *,
    covariance_type: str = "full",
    backend: str = "auto",
    matmul_precision: str = "tf32x3",
) -> Tensor:
    """Log-density of each point under each of G Gaussians; differentiable in the points.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64.
    means : Tensor
        [G, D].
    precisions_cholesky : Tensor
        Upper-triangular U with ``precision = U U'``: full [G, D, D], tied [D, D]; or ``1 / std``: diag [G, D],
        spherical [G].
    covariance_type : {"full", "tied", "diag", "spherical"}
    backend : {"auto", "triton", "cpu", "reference"}
    matmul_precision : {"tf32x3", "ieee", "tf32"}
        Of the float32 matrix products of the Triton kernel: "tf32x3" has the error of float32 and runs on tensor cores;
        "ieee" runs beside them; "tf32" has three digits.

    Returns
    -------
    Tensor
        [N, G], in the dtype of the points.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.
    NotImplementedError
        If a parameter requires a gradient.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import gaussian_log_prob
    >>> means = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> gaussian_log_prob(torch.zeros(1, 2), means, torch.eye(2).expand(2, 2, 2))
    tensor([[-1.8379, -2.3379]])
    """
    if means.ndim != 2:
        raise ValueError(f"means have shape {tuple(means.shape)}, but they must be [G, D].")
    check_gaussians(points, means, precisions_cholesky, covariance_type, matmul_precision)
    return _GAUSSIAN.run(
        backend, points, means, precisions_cholesky, covariance_type=covariance_type, matmul_precision=matmul_precision
    )


@log_density(fake=_fake, gradient=_mixture_gradient, prepare=_mixtures)
def mixture_log_prob(
    points: Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    *,
    covariance_type: str = "full",
    backend: str = "auto",
    matmul_precision: str = "tf32x3",
) -> Tensor:
    """Log-density of each point under each of M mixtures; differentiable in the points.

    Parameters
    ----------
    points : Tensor
        As for :func:`gaussian_log_prob`.
    weights, means : Tensor
        [M, K] and [M, K, D].
    precisions_cholesky : Tensor
        Those of :func:`gaussian_log_prob` for each model: full [M, K, D, D], tied [M, D, D], diag [M, K, D],
        spherical [M, K].
    covariance_type, backend, matmul_precision : str
        As for :func:`gaussian_log_prob`.

    Returns
    -------
    Tensor
        [N, M], in the dtype of the points. Nothing of size N x M x K is formed.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.
    NotImplementedError
        If a parameter requires a gradient.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import mixture_log_prob
    >>> weights, means = torch.tensor([[0.5, 0.5]]), torch.tensor([[[-1.0], [1.0]]])
    >>> mixture_log_prob(torch.tensor([[0.0]]), weights, means, torch.ones(1, 2, 1, 1))
    tensor([[-1.4189]])
    """
    check_mixtures(points, weights, means, precisions_cholesky, covariance_type, matmul_precision)
    options = {"covariance_type": covariance_type, "matmul_precision": matmul_precision}
    return _MIXTURE.run(backend, points, weights, means, precisions_cholesky, **options)
