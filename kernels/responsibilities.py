"""The E step: ``r_nk = pi_k N(x_n | k) / sum_j pi_j N(x_n | j)``, each point under its own model.

Bishop, Pattern Recognition and Machine Learning, 2006, eq. 9.23.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from fastdens.kernels import reference
from fastdens.kernels.gaussian_pieces import config, flat_factors, quadratic_form, tiles
from fastdens.kernels.operation import check_alike, check_gaussians, resolve_backend, row_ranges
from fastdens.kernels.optional import tl, triton
from torch import Tensor


class Responsibilities(NamedTuple):
    """Responsibilities [N, K] and log-densities [N]; zero for rows that no model owns."""

    resp: Tensor
    log_prob_norm: Tensor


@triton.jit
def _responsibilities_kernel(
    points,
    tile_model,
    tile_start,
    tile_stop,
    means,
    factors,
    log_joint_norm,
    resp,
    log_prob_norm,
    n_features,
    n_components,
    per_model,
    TRIANGULAR: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: a tile of one model's points under all its components."""
    tile = tl.program_id(0)
    m = tl.load(tile_model + tile)
    rows = tl.load(tile_start + tile) + tl.arange(0, BLOCK_N)
    mask = rows < tl.load(tile_stop + tile)
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
        tl.store(resp + rows * n_components + k, joint, mask=mask)
        new_top = tl.where(joint > top, joint, top)
        empty = new_top == float("-inf")
        total = total * tl.where(empty, 1.0, tl.exp(top - new_top)) + tl.where(
            empty & (joint == joint), 0.0, tl.exp(joint - tl.where(empty, 0.0, new_top))
        )
        top = new_top
    norm = tl.where(total == 0.0, float("-inf"), top + tl.log(total))
    tl.store(log_prob_norm + rows, norm, mask=mask)
    # The joint densities were parked in the output: they must be visible to the whole program before they are read.
    tl.debug_barrier()
    for k in range(n_components):
        joint = tl.load(resp + rows * n_components + k, mask=mask, other=float("-inf"))
        tl.store(resp + rows * n_components + k, tl.exp(joint - norm), mask=mask)


def _launch(
    points: Tensor,
    ranges: Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    matmul_precision: str,
    log_weights: bool,
) -> tuple[Tensor, Tensor]:
    n_points, n_features = points.shape
    n_components = means.shape[1]
    flat = flat_factors(means, precisions_cholesky, covariance_type)
    resp = torch.zeros(n_points, n_components, dtype=points.dtype, device=points.device)
    log_prob_norm = torch.zeros(n_points, dtype=points.dtype, device=points.device)
    blocks = config(n_features, points.dtype)
    table = tiles(ranges, blocks.block_n)
    if len(table.model):
        _responsibilities_kernel[(len(table.model),)](
            points.contiguous(),
            table.model,
            table.start,
            table.stop,
            means.contiguous(),
            flat.factors,
            (flat.log_norm + (weights.double() if log_weights else weights.double().log()))
            .to(points.dtype)
            .contiguous(),
            resp,
            log_prob_norm,
            n_features,
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
    return resp, log_prob_norm


def responsibilities(
    points: Tensor,
    offsets: Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    *,
    covariance_type: str = "full",
    backend: str = "auto",
    matmul_precision: str = "ieee",
    log_weights: bool = False,
) -> Responsibilities:
    """Responsibilities and log-density of each point under its own model.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64, sorted by model.
    offsets : Tensor
        int64 [M + 1], or row ranges int64 [M, 2].
    weights, means, precisions_cholesky, covariance_type, backend, matmul_precision
        As for :func:`fastdens.kernels.mixture_log_prob`.
    log_weights : bool
        The weights are given as logarithms. They need not be those of numbers that sum to one, nor of numbers that
        the dtype holds: -3200 is as good as any (variational inference has such, Bishop 2006, eq. 10.46).

    Returns
    -------
    Responsibilities
        ``resp`` [N, K] and ``log_prob_norm`` [N].

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.
    """
    check_gaussians(points, means, precisions_cholesky, covariance_type, matmul_precision)
    check_alike(points, weights=weights)
    ranges = row_ranges(offsets, means.shape[0], points.shape[0])
    arguments = (points, ranges, weights, means, precisions_cholesky)
    chosen = resolve_backend(backend, points)
    if chosen == "triton":
        return Responsibilities(*_launch(*arguments, covariance_type, matmul_precision, log_weights))
    if chosen == "cpu":
        from fastdens.kernels.cpu.responsibilities import responsibilities as on_cpu

        return Responsibilities(*on_cpu(*arguments, covariance_type=covariance_type, log_weights=log_weights))
    resp, norm = reference.responsibilities(*arguments, covariance_type=covariance_type, log_weights=log_weights)
    return Responsibilities(resp.to(points.dtype), norm.to(points.dtype))
