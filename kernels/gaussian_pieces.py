"""What the Triton kernels of Gaussians share: the quadratic form of a tile, block sizes, the list of tiles.

The form is ``|(x - mu) U|^2`` for ``precision = U U'``, U upper triangular. Up to BLOCK_D dimensions are one block
(the small-D path, NUM_D_BLOCKS = 1); more are blocks of columns j, each a sum over the row blocks i <= j that a
triangular U has (the tiled-D path).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from fastdens.kernels.optional import tl, triton
from torch import Tensor


@triton.jit
def load_centred(points, rows, row_mask, mean, columns, n_features):
    """Tile of ``x - mean`` with zeros past the last row and the last column."""
    mask = row_mask[:, None] & (columns < n_features)[None, :]
    x = tl.load(points + rows[:, None] * n_features + columns[None, :], mask=mask, other=0.0)
    mu = tl.load(mean + columns, mask=columns < n_features, other=0.0)
    return tl.where(mask, x - mu[None, :], 0.0)


@triton.jit
def quadratic_form(
    points,
    rows,
    row_mask,
    mean,
    factor,
    n_features,
    TRIANGULAR: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``|(x - mean) U|^2`` of a tile of rows, [BLOCK_N]; ``factor`` points to U [D, D] or to its diagonal [D]."""
    dtype = points.dtype.element_ty
    form = tl.zeros([BLOCK_N], dtype)
    for j in range(NUM_D_BLOCKS):
        out_columns = j * BLOCK_D + tl.arange(0, BLOCK_D)
        if TRIANGULAR:
            y = tl.zeros([BLOCK_N, BLOCK_D], dtype)
            for i in range(j + 1):
                columns = i * BLOCK_D + tl.arange(0, BLOCK_D)
                z = load_centred(points, rows, row_mask, mean, columns, n_features)
                # Below the diagonal U is zero by definition, whatever is stored there.
                mask = (columns[:, None] <= out_columns[None, :]) & (out_columns < n_features)[None, :]
                u = tl.load(
                    factor + columns.to(tl.int64)[:, None] * n_features + out_columns[None, :], mask=mask, other=0.0
                )
                y = tl.dot(z, u, y, input_precision=PRECISION, out_dtype=dtype)
        else:
            u = tl.load(factor + out_columns, mask=out_columns < n_features, other=0.0)
            y = load_centred(points, rows, row_mask, mean, out_columns, n_features) * u[None, :]
        form += tl.sum(y * y, 1)
    return form


class Config(NamedTuple):
    """Block sizes of a launch."""

    block_n: int
    block_d: int
    num_d_blocks: int
    num_warps: int
    num_stages: int


def config(n_features: int, dtype: torch.dtype) -> Config:
    """Block sizes by D and dtype: the largest whose tiles stay in registers and in 99 KiB of shared memory.

    Exact float32 products run outside the matrix units, where blocks of 64 dimensions, or the buffers of a software
    pipeline, spill.
    """
    block_d = min(32, max(16, 1 << (n_features - 1).bit_length()))
    block_n = 64 if dtype == torch.float32 else 32
    return Config(block_n, block_d, -(-n_features // block_d), 4, 1)


class Tiles(NamedTuple):
    """Runs of at most ``size`` rows of one model each, on the device: the programs of a launch."""

    model: Tensor  # int64 [T]
    start: Tensor  # int64 [T]
    stop: Tensor  # int64 [T]
    first: Tensor  # int64 [M + 1]: the tiles of model m are first[m]:first[m + 1]


def tiles(ranges: Tensor, size: int) -> Tiles:
    """Cut row ranges [M, 2] into tiles; how a model is cut depends on its own size only."""
    counts = ((ranges[:, 1] - ranges[:, 0] + size - 1) // size).clamp_min(1)
    first = torch.zeros(len(counts) + 1, dtype=torch.int64, device=ranges.device)
    first[1:] = counts.cumsum(0)
    model = torch.repeat_interleave(torch.arange(len(counts), device=ranges.device), counts)
    start = ranges[model, 0] + (torch.arange(len(model), device=ranges.device) - first[model]) * size
    return Tiles(model, start, torch.minimum(start + size, ranges[model, 1]), first)


class Factors(NamedTuple):
    """Parameters as the kernels read them: flat factors of U and the log normaliser of each Gaussian."""

    factors: Tensor  # [M * per_model, D, D] or [M * per_model, D]
    log_norm: Tensor  # [M, K], log det U - D/2 log 2 pi
    per_model: int
    triangular: bool


def flat_factors(means: Tensor, precisions_cholesky: Tensor, covariance_type: str) -> Factors:
    """Bring precisions_cholesky of mixtures with means [M, K, D] to the form that the kernels read."""
    n_models, k, d = means.shape
    triangular = covariance_type in ("full", "tied")
    if triangular:
        per_model = k if covariance_type == "full" else 1
        factors = precisions_cholesky.reshape(-1, d, d)
        diagonal = factors.diagonal(dim1=-2, dim2=-1)
    else:
        per_model = k
        wide = precisions_cholesky if covariance_type == "diag" else precisions_cholesky[..., None]
        factors = diagonal = wide.expand(n_models, k, d).reshape(-1, d)
    log_det = diagonal.double().log().sum(-1).reshape(n_models, per_model).expand(n_models, k)
    log_norm = log_det - 0.5 * d * math.log(2 * math.pi)
    return Factors(factors.contiguous(), log_norm, per_model, triangular)
