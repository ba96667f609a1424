"""Log-density of points under every mixture: ``log sum_k pi_k N(x | mu_k, (U_k U_k')^-1)`` (Bishop 2006, eq. 9.7)."""

from __future__ import annotations

import torch
from fastdens.kernels import reference
from fastdens.kernels.gaussian_log_prob import precision_times_centred, refuse_parameter_gradients
from fastdens.kernels.gaussian_pieces import config, flat_factors, quadratic_form
from fastdens.kernels.operation import check_alike, check_gaussians, resolve_backend
from fastdens.kernels.optional import tl, triton
from torch import Tensor


@triton.jit
def _mixture_log_prob_kernel(
    points,
    means,
    factors,
    log_joint_norm,
    out,
    n_points,
    n_features,
    n_models,
    n_components,
    per_model,
    TRIANGULAR: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: BLOCK_N points under one mixture, its components summed as they come (online log-sum-exp)."""
    program = tl.program_id(0).to(tl.int64)
    m = program % n_models
    rows = program // n_models * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = rows < n_points
    width = tl.cast(n_features, tl.int64)
    dtype = points.dtype.element_ty
    top = tl.full([BLOCK_N], float("-inf"), dtype)
    total = tl.zeros([BLOCK_N], dtype)
    for k in range(n_components):
        g = m * n_components + k
        f = m * per_model + tl.minimum(k, per_model - 1)
        factor = factors + f * (width * width if TRIANGULAR else width)
        form = quadratic_form(
            points, rows, mask, means + g * width, factor, width, TRIANGULAR, BLOCK_N, BLOCK_D, NUM_D_BLOCKS, PRECISION
        )
        joint = tl.load(log_joint_norm + g) - 0.5 * form
        new_top = tl.where(joint > top, joint, top)
        # Before the first finite term there is nothing to rescale, and inf - inf must not arise.
        empty = new_top == float("-inf")
        total = total * tl.where(empty, 1.0, tl.exp(top - new_top)) + tl.where(
            empty & (joint == joint), 0.0, tl.exp(joint - tl.where(empty, 0.0, new_top))
        )
        top = new_top
    tl.store(out + rows * n_models + m, tl.where(total == 0.0, float("-inf"), top + tl.log(total)), mask=mask)


def _launch(
    points: Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    matmul_precision: str,
) -> Tensor:
    n_points, n_features = points.shape
    n_models, n_components, _ = means.shape
    flat = flat_factors(means, precisions_cholesky, covariance_type)
    out = torch.empty(n_points, n_models, dtype=points.dtype, device=points.device)
    blocks = config(n_features, points.dtype)
    grid = (-(-n_points // blocks.block_n) * n_models,)
    if grid[0]:
        _mixture_log_prob_kernel[grid](
            points.contiguous(),
            means.contiguous(),
            flat.factors,
            (flat.log_norm + weights.double().log()).to(points.dtype).contiguous(),
            out,
            n_points,
            n_features,
            n_models,
            n_components,
            flat.per_model,
            TRIANGULAR=flat.triangular,
            BLOCK_N=blocks.block_n,
            BLOCK_D=blocks.block_d,
            NUM_D_BLOCKS=blocks.num_d_blocks,
            PRECISION=matmul_precision,
            num_warps=blocks.num_warps,
            num_stages=blocks.num_stages,
        )
    return out


@torch.library.custom_op("fastdens::mixture_log_prob", mutates_args=())
def _mixture_log_prob(
    points: Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    backend: str,
    matmul_precision: str,
) -> Tensor:
    chosen = resolve_backend(backend, points)
    if chosen == "triton":
        return _launch(points, weights, means, precisions_cholesky, covariance_type, matmul_precision)
    if chosen == "cpu":
        from fastdens.kernels.cpu.mixture_log_prob import mixture_log_prob as on_cpu

        return on_cpu(points, weights, means, precisions_cholesky, covariance_type=covariance_type)
    return reference.mixture_log_prob(points, weights, means, precisions_cholesky, covariance_type=covariance_type).to(
        points.dtype
    )


@_mixture_log_prob.register_fake
def _(
    points: Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    backend: str,
    matmul_precision: str,
) -> Tensor:
    return points.new_empty(points.shape[0], means.shape[0])


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4], output)
    ctx.options = inputs[4:]  # type: ignore[attr-defined]


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    """``d log p / dx = -sum_k r_k U_k U_k' (x - mu_k)``, one model at a time: memory stays at [N, D]."""
    points, weights, means, factors, log_prob = ctx.saved_tensors  # type: ignore[attr-defined]
    covariance_type, backend, matmul_precision = ctx.options  # type: ignore[attr-defined]
    out = torch.zeros_like(points)
    for m in range(means.shape[0]):
        joint = torch.ops.fastdens.gaussian_log_prob(points, means[m], factors[m], covariance_type, backend, matmul_precision)
        resp = torch.exp(joint + weights[m].log() - log_prob[:, m, None])
        for k in range(means.shape[1]):
            factor = factors[m] if covariance_type == "tied" else factors[m, k]
            pull = precision_times_centred(points, means[m, k], factor, covariance_type)
            out -= (grad[:, m] * resp[:, k])[:, None] * pull
    return out, None, None, None, None, None, None


_mixture_log_prob.register_autograd(_backward, setup_context=_setup_context)


def mixture_log_prob(
    points: Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    *,
    covariance_type: str = "full",
    backend: str = "auto",
    matmul_precision: str = "ieee",
) -> Tensor:
    """Log-density of each point under each of M mixtures; differentiable in the points.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64.
    weights, means : Tensor
        [M, K] and [M, K, D].
    precisions_cholesky : Tensor
        Upper-triangular U with ``precision = U U'``: full [M, K, D, D], tied [M, D, D]; or ``1 / std``: diag
        [M, K, D], spherical [M, K].
    covariance_type : {"full", "tied", "diag", "spherical"}
    backend : {"auto", "triton", "cpu", "reference"}
    matmul_precision : {"ieee", "tf32x3", "tf32"}
        Of the float32 matrix products of the Triton kernel.

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
    """
    check_gaussians(points, means, precisions_cholesky, covariance_type, matmul_precision)
    check_alike(points, weights=weights)
    refuse_parameter_gradients(weights=weights, means=means, precisions_cholesky=precisions_cholesky)
    return _mixture_log_prob(points, weights, means, precisions_cholesky, covariance_type, backend, matmul_precision)
