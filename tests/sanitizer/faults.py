"""A kernel that adds up columns, and the faults that can be planted in it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def column_sums_kernel(
    x_ptr,  # [N, D]
    out_ptr,  # [D]
    n_rows,
    n_columns,
    MASK_LOAD: tl.constexpr,
    MASK_STORE: tl.constexpr,
    APART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: the sums of BLOCK columns. Without APART the programs write to each other's elements."""
    program = tl.program_id(0)
    columns = program * BLOCK + tl.arange(0, BLOCK)
    inside = columns < n_columns
    total = tl.zeros([BLOCK], x_ptr.dtype.element_ty)
    for row in range(n_rows):
        if MASK_LOAD:
            total += tl.load(x_ptr + row * n_columns + columns, mask=inside, other=0.0)
        else:
            total += tl.load(x_ptr + row * n_columns + columns)
    places = columns if APART else columns - program
    if MASK_STORE:
        tl.store(out_ptr + places, total, mask=inside)
    else:
        tl.store(out_ptr + places, total)


def column_sums(x: Tensor, mask_load: bool = True, mask_store: bool = True, apart: bool = True) -> Tensor:
    """Sums of the columns of x [N, D], with or without a fault."""
    out = torch.empty(x.shape[1], dtype=x.dtype, device=x.device)
    block = 16
    column_sums_kernel[(-(-x.shape[1] // block),)](
        x, out, *x.shape, MASK_LOAD=mask_load, MASK_STORE=mask_store, APART=apart, BLOCK=block
    )
    return out
