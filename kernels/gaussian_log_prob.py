"""Log-density of points under Gaussians: ``-D/2 log 2 pi + log det U - 1/2 |(x - mu) U|^2`` (Bishop 2006, eq. 2.43)."""

from __future__ import annotations

import torch
from fastdens.kernels import reference
from fastdens.kernels.gaussian_pieces import config, flat_factors, quadratic_form
from fastdens.kernels.operation import check_gaussians, resolve_backend
from fastdens.kernels.optional import tl, triton
from torch import Tensor


@triton.jit
def _gaussian_log_prob_kernel(
    points,
    means,
    factors,
    log_norm,
    out,
    n_points,
    n_features,
    n_gaussians,
    per_model,
    TRIANGULAR: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: BLOCK_N points under one Gaussian."""
    program = tl.program_id(0).to(tl.int64)
    g = program % n_gaussians
    rows = program // n_gaussians * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = rows < n_points
    width = tl.cast(n_features, tl.int64)
    factor = factors + tl.minimum(g, per_model - 1) * (width * width if TRIANGULAR else width)
    form = quadratic_form(
        points, rows, mask, means + g * width, factor, width, TRIANGULAR, BLOCK_N, BLOCK_D, NUM_D_BLOCKS, PRECISION
    )
    tl.store(out + rows * n_gaussians + g, tl.load(log_norm + g) - 0.5 * form, mask=mask)


def _launch(points: Tensor, means: Tensor, precisions_cholesky: Tensor, covariance_type: str, matmul_precision: str) -> Tensor:
    n_points, n_features = points.shape
    # To the kernel, G Gaussians are one mixture of G components.
    flat = flat_factors(means[None], precisions_cholesky[None], covariance_type)
    out = torch.empty(n_points, len(means), dtype=points.dtype, device=points.device)
    blocks = config(n_features, points.dtype)
    grid = (-(-n_points // blocks.block_n) * len(means),)
    if grid[0]:
        _gaussian_log_prob_kernel[grid](
            points.contiguous(),
            means.contiguous(),
            flat.factors,
            flat.log_norm[0].to(points.dtype).contiguous(),
            out,
            n_points,
            n_features,
            len(means),
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


@torch.library.custom_op("fastdens::gaussian_log_prob", mutates_args=())
def _gaussian_log_prob(
    points: Tensor, means: Tensor, precisions_cholesky: Tensor, covariance_type: str, backend: str, matmul_precision: str
) -> Tensor:
    chosen = resolve_backend(backend, points)
    if chosen == "triton":
        return _launch(points, means, precisions_cholesky, covariance_type, matmul_precision)
    if chosen == "cpu":
        from fastdens.kernels.cpu.gaussian_log_prob import gaussian_log_prob as on_cpu

        return on_cpu(points, means, precisions_cholesky, covariance_type=covariance_type)
    return reference.gaussian_log_prob(points, means, precisions_cholesky, covariance_type=covariance_type).to(
        points.dtype
    )


@_gaussian_log_prob.register_fake
def _(
    points: Tensor, means: Tensor, precisions_cholesky: Tensor, covariance_type: str, backend: str, matmul_precision: str
) -> Tensor:
    return points.new_empty(points.shape[0], means.shape[0])


def precision_times_centred(points: Tensor, mean: Tensor, factor: Tensor, covariance_type: str) -> Tensor:
    """``U U' (x - mu)`` of one Gaussian, [N, D]: minus the gradient of its log-density."""
    centred = points - mean
    if covariance_type in ("full", "tied"):
        return centred @ factor @ factor.mT
    return centred * factor.square()


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    points, means, precisions_cholesky, covariance_type, _, _ = inputs
    ctx.save_for_backward(points, means, precisions_cholesky)
    ctx.covariance_type = covariance_type  # type: ignore[attr-defined]


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    points, means, factors = ctx.saved_tensors  # type: ignore[attr-defined]
    covariance_type = ctx.covariance_type  # type: ignore[attr-defined]
    out = torch.zeros_like(points)
    for g in range(means.shape[0]):
        factor = factors if covariance_type == "tied" else factors[g]
        out -= grad[:, g, None] * precision_times_centred(points, means[g], factor, covariance_type)
    return out, None, None, None, None, None


_gaussian_log_prob.register_autograd(_backward, setup_context=_setup_context)


def refuse_parameter_gradients(**parameters: Tensor) -> None:
    """Raise rather than return no gradient for a parameter that asks for one."""
    for name, tensor in parameters.items():
        if tensor.requires_grad and torch.is_grad_enabled():
            raise NotImplementedError(
                f"{name} requires a gradient, but log-densities are differentiable in the points only: pass "
                f"{name}.detach()."
            )


def gaussian_log_prob(
    points: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    *,
    covariance_type: str = "full",
    backend: str = "auto",
    matmul_precision: str = "ieee",
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
    matmul_precision : {"ieee", "tf32x3", "tf32"}
        Of the float32 matrix products of the Triton kernel.

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
    """
    check_gaussians(points, means, precisions_cholesky, covariance_type, matmul_precision)
    refuse_parameter_gradients(means=means, precisions_cholesky=precisions_cholesky)
    return _gaussian_log_prob(points, means, precisions_cholesky, covariance_type, backend, matmul_precision)
