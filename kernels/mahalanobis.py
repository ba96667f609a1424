"""Squared Mahalanobis distances inside Triton kernels, and the block sizes of the kernels that form them.

The quadratic form is ``|(x - mu) U|^2`` for ``precision = U U'``, U upper triangular. Up to BLOCK_D dimensions are one
block (the small-D path, NUM_D_BLOCKS = 1); more are blocks of columns j, each a sum over the row blocks i <= j that a
triangular U has (the tiled-D path).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from fastdens.kernels.optional_triton import tl, triton


@triton.jit
def load_centred(points_ptr, rows, row_mask, mean_ptr, columns, n_features):
    """Tile of ``x - mean``, [rows, columns], with zeros past the last row and the last column."""
    mask = row_mask[:, None] & (columns < n_features)[None, :]
    x = tl.load(points_ptr + rows[:, None] * n_features + columns[None, :], mask=mask, other=0.0)
    mu = tl.load(mean_ptr + columns, mask=columns < n_features, other=0.0)
    return tl.where(mask, x - mu[None, :], 0.0)


@triton.jit
def quadratic_form(
    points_ptr,  # [N, D]
    rows,  # int64 [BLOCK_N]
    row_mask,  # bool [BLOCK_N]
    mean_ptr,  # [D]
    factor_ptr,  # U [D, D] if TRIANGULAR, else its diagonal [D]
    n_features,  # int64
    TRIANGULAR: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``|(x - mean) U|^2`` of a tile of rows, [BLOCK_N]."""
    dtype = points_ptr.dtype.element_ty
    form = tl.zeros([BLOCK_N], dtype)
    for j in range(NUM_D_BLOCKS):
        out_columns = j * BLOCK_D + tl.arange(0, BLOCK_D)
        if TRIANGULAR:
            y = tl.zeros([BLOCK_N, BLOCK_D], dtype)
            for i in range(j + 1):
                columns = i * BLOCK_D + tl.arange(0, BLOCK_D)
                z = load_centred(points_ptr, rows, row_mask, mean_ptr, columns, n_features)
                # Below the diagonal U is zero by definition, whatever is stored there.
                mask = (columns[:, None] <= out_columns[None, :]) & (out_columns < n_features)[None, :]
                u = tl.load(
                    factor_ptr + columns.to(tl.int64)[:, None] * n_features + out_columns[None, :], mask=mask, other=0.0
                )
                y = tl.dot(z, u, y, input_precision=PRECISION, out_dtype=dtype)
        else:
            u = tl.load(factor_ptr + out_columns, mask=out_columns < n_features, other=0.0)
            y = load_centred(points_ptr, rows, row_mask, mean_ptr, out_columns, n_features) * u[None, :]
        form += tl.sum(y * y, 1)
    return form


# Up to so many dimensions are one block.
_SMALL = 32


class Config(NamedTuple):
    """Block sizes of a launch, and how it forms products."""

    block_n: int
    block_d: int
    num_d_blocks: int
    num_warps: int
    num_stages: int
    max_registers: int | None = None  # of a thread; None leaves it to the assembler
    precision: str = "ieee"


def config(n_features: int, dtype: torch.dtype) -> Config:
    """Block sizes by D and dtype: the largest whose tiles stay in registers and in 99 KiB of shared memory.

    Exact float32 products run outside the matrix units, where blocks of 64 dimensions, or the buffers of a software
    pipeline, spill.
    """
    block_d = min(_SMALL, max(16, 1 << (n_features - 1).bit_length()))
    block_n = 64 if dtype == torch.float32 else 32
    return Config(block_n, block_d, -(-n_features // block_d), 4, 1)


def product_precision(n_features: int, dtype: torch.dtype, matmul_precision: str) -> str:
    """The precision of products over D dimensions: that asked for, except where "tf32x3" is not worth it.

    Float64 has products of its own. Of few dimensions, IEEE sums of products are so short that those of tensor cores,
    which cut where the others round, have twice their error; and tiles are too small for the tensor cores' large
    instructions.
    """
    is_ieee = dtype == torch.float64 or (matmul_precision == "tf32x3" and n_features <= _SMALL)
    return "ieee" if is_ieee else matmul_precision
