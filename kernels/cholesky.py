"""Cholesky factors of precisions from covariances, for any number of small matrices at once.

With ``covariance = L L'`` (L lower triangular), ``U = (L^-1)'`` is upper triangular and ``precision = U U'``; this is
the factor that scikit-learn calls ``precisions_cholesky_`` (Golub & Van Loan, *Matrix Computations*, section 4.2). The
factorisation runs in float64 whatever the dtype of the covariances: it is cheap beside the sums of the E and M step,
and a covariance that is singular to float32 often is not to float64.

On a GPU one program factors and inverts one matrix, or several of up to 16 dimensions. Larger matrices are cut into
square blocks, and row p of the blocks is finished before the next begins: with ``L' = R``,

- ``W_pp`` is the inverse of the lower factor of ``A_pp - sum_{q < p} R_qp' R_qp``,
- ``R_pj = W_pp (A_pj - sum_{q < p} R_qp' R_qj)`` for ``j > p``, and
- ``W_pj = -W_pp sum_{j <= q < p} R_qp' W_qj`` for ``j < p``, blocks of ``W = L^-1``.

The result of a matrix depends on nothing else, which cannot be said of libraries that choose an algorithm by the number
of matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from fastdens.kernels import reference
from fastdens.kernels.arguments import checked
from fastdens.kernels.operation import Backends
from fastdens.kernels.optional_triton import tl, triton
from torch import Tensor

# Up to so many dimensions a matrix is one tile in registers.
SMALL = 16
# Larger ones need working memory, which is bounded: a program takes several matrices where there are more.
_MAX_PROGRAMS, _MAX_WORK_BYTES = 4096, 1 << 32


@triton.jit
def _inverse_factor(a, order, BLOCK: tl.constexpr):
    """``L^-1`` of ``a = L L'``, matrices [B, BLOCK, BLOCK] equal to the identity past their first ``order`` rows.

    Step p finishes row p. In the rows below, columns up to p hold those of the inverse so far, and the columns after
    it what is left of ``a``. NaN from the first pivot on that is not positive and finite.
    """
    row, column = tl.arange(0, BLOCK)[None, :, None], tl.arange(0, BLOCK)[None, None, :]
    for p in range(order):
        below = tl.sum(tl.where(column == p, a, 0.0), 2, keep_dims=True)
        along = tl.sum(tl.where(row == p, a, 0.0), 1, keep_dims=True)
        pivot = tl.sum(tl.where(column == p, along, 0.0), 2, keep_dims=True)
        pivot = tl.where((pivot > 0.0) & (pivot < float("inf")), pivot, float("nan"))
        along = tl.where(column == p, 1.0, along)
        # Rows in proportion to one another cancel exactly: a quotient of such elements has no rounding.
        rest = tl.where(column == p, 0.0, a) - below / pivot * along
        done = tl.where(column <= p, along / tl.sqrt(pivot), 0.0)
        a = tl.where(row > p, rest, tl.where(row == p, done, a))
    return a


@triton.jit
def _trace(a, BLOCK: tl.constexpr):
    """Sums of the diagonals of matrices [B, BLOCK, BLOCK]: of inverse factors positive, or NaN if there is none."""
    row, column = tl.arange(0, BLOCK)[None, :, None], tl.arange(0, BLOCK)[None, None, :]
    return tl.sum(tl.sum(tl.where(row == column, a, 0.0), 2), 1)


@triton.jit
def _factor_small_kernel(
    covariances_ptr,  # [G, D, D]
    out_ptr,  # [G, D, D]
    bad_ptr,  # int8 [G]
    skip_ptr,  # int8 or bool [G / matrices_per_model], or None
    n_matrices,  # G
    matrices_per_model,
    n_features,  # D
    BATCH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: a run of matrices, each one tile."""
    g = tl.program_id(0).to(tl.int64) * BATCH + tl.arange(0, BATCH)
    asked = g < n_matrices
    if skip_ptr is not None:
        asked = asked & (tl.load(skip_ptr + g // matrices_per_model, mask=asked, other=1) == 0)
    row, column = tl.arange(0, BLOCK)[None, :, None], tl.arange(0, BLOCK)[None, None, :]
    mask = asked[:, None, None] & (row < n_features) & (column < n_features)
    first = (g * n_features * n_features)[:, None, None]
    a = tl.load(covariances_ptr + first + row * n_features + column, mask=mask, other=0.0).to(tl.float64)
    a = tl.where(mask, a, tl.where(row == column, 1.0, 0.0))
    w = _inverse_factor(a, n_features, BLOCK)
    tl.store(out_ptr + first + column * n_features + row, w, mask=mask)
    is_bad = tl.where(_trace(w, BLOCK) > 0.0, 0, 1)
    tl.store(bad_ptr + g, is_bad.to(tl.int8), mask=asked)


@triton.jit
def _load_block(matrix_ptr, i, j, n_features, BLOCK: tl.constexpr):
    """Block (i, j) of a matrix [D, D], float64, zero outside."""
    rows, columns = i * BLOCK + tl.arange(0, BLOCK), j * BLOCK + tl.arange(0, BLOCK)
    mask = (rows < n_features)[:, None] & (columns < n_features)[None, :]
    at = rows.to(tl.int64)[:, None] * n_features + columns[None, :]
    return tl.load(matrix_ptr + at, mask=mask, other=0.0).to(tl.float64)


@triton.jit
def _store_block(matrix_ptr, i, j, block, n_features, BLOCK: tl.constexpr):
    rows, columns = i * BLOCK + tl.arange(0, BLOCK), j * BLOCK + tl.arange(0, BLOCK)
    mask = (rows < n_features)[:, None] & (columns < n_features)[None, :]
    tl.store(matrix_ptr + rows.to(tl.int64)[:, None] * n_features + columns[None, :], block, mask=mask)


@triton.jit
def _products_above(work_ptr, p, j, first, n_features, BLOCK: tl.constexpr):
    """``sum_q R_qp' X_qj`` over the rows q of blocks from ``first`` to p - 1."""
    total = tl.zeros([BLOCK, BLOCK], tl.float64)
    for q in range(first, p):
        r = _load_block(work_ptr, q, p, n_features, BLOCK)
        x = _load_block(work_ptr, q, j, n_features, BLOCK)
        total = tl.dot(tl.trans(r), x, total, input_precision="ieee", out_dtype=tl.float64)
    return total


@triton.jit
def _factor_blocked_kernel(
    covariances_ptr,  # [G, D, D]
    work_ptr,  # float64 [programs, D, D]: R above the diagonal of blocks, W on it and below
    out_ptr,  # [G, D, D]
    bad_ptr,  # int8 [G]
    skip_ptr,  # int8 or bool [G / matrices_per_model], or None
    n_matrices,  # G
    matrices_per_model,
    n_features,  # D
    BLOCK: tl.constexpr,
):
    """One program: matrix after matrix, by rows of blocks."""
    size = tl.cast(n_features, tl.int64) * n_features
    n_blocks = tl.cdiv(n_features, BLOCK)
    work_ptr += tl.program_id(0) * size
    diagonal = tl.arange(0, BLOCK)[:, None] == tl.arange(0, BLOCK)[None, :]
    for g in range(tl.program_id(0).to(tl.int64), n_matrices, tl.num_programs(0)):
        asked = True
        if skip_ptr is not None:
            asked = tl.load(skip_ptr + g // matrices_per_model) == 0
        if asked:
            a_ptr, u_ptr = covariances_ptr + g * size, out_ptr + g * size
            trace = tl.full([1], 0.0, tl.float64)
            for p in range(n_blocks):
                order = tl.minimum(n_features - p * BLOCK, BLOCK)
                a = _load_block(a_ptr, p, p, n_features, BLOCK) - _products_above(work_ptr, p, p, 0, n_features, BLOCK)
                a = tl.where(diagonal & (tl.arange(0, BLOCK) >= order)[:, None], 1.0, a)
                w = _inverse_factor(tl.reshape(a, [1, BLOCK, BLOCK]), order, BLOCK)
                trace += _trace(w, BLOCK)
                w = tl.reshape(w, [BLOCK, BLOCK])
                _store_block(work_ptr, p, p, w, n_features, BLOCK)
                _store_block(u_ptr, p, p, tl.trans(w), n_features, BLOCK)
                for j in range(p):
                    total = _products_above(work_ptr, p, j, j, n_features, BLOCK)
                    x = -tl.dot(w, total, input_precision="ieee", out_dtype=tl.float64)
                    _store_block(work_ptr, p, j, x, n_features, BLOCK)
                    _store_block(u_ptr, j, p, tl.trans(x), n_features, BLOCK)
                    _store_block(u_ptr, p, j, tl.zeros([BLOCK, BLOCK], tl.float64), n_features, BLOCK)
                for j in range(p + 1, n_blocks):
                    a = _load_block(a_ptr, p, j, n_features, BLOCK) - _products_above(
                        work_ptr, p, j, 0, n_features, BLOCK
                    )
                    x = tl.dot(w, a, input_precision="ieee", out_dtype=tl.float64)
                    _store_block(work_ptr, p, j, x, n_features, BLOCK)
                # RAW: rows below read this one in other layouts. WAR: the next matrix takes the same memory.
                tl.debug_barrier()
            tl.store(bad_ptr + g + tl.arange(0, 1), tl.where(trace > 0.0, 0, 1).to(tl.int8))


class Blocks(NamedTuple):
    """How matrices of D dimensions are launched: matrices in a tile, its order, and warps."""

    batch: int
    block: int
    num_warps: int


def blocks(n_features: int) -> Blocks:
    """Sizes of a launch by D alone: a tile of 16 is one warp's, without barriers; large products want larger ones."""
    if n_features <= SMALL:
        block = 1 << (n_features - 1).bit_length()
        return Blocks(SMALL * SMALL // (block * block), block, 1)
    return Blocks(1, 16, 1) if n_features <= 128 else Blocks(1, 32, 4)


def factor_covariances(
    covariances: Tensor, out: Tensor, bad: Tensor, skip: Tensor | None, matrices_per_model: int
) -> None:
    """Factor G covariances on the device they are on, in one launch and without waiting for it.

    Parameters
    ----------
    covariances : Tensor
        [G, D, D], float32 or float64, contiguous.
    out : Tensor
        [G, D, D], contiguous, into which go the upper-triangular factors.
    bad : Tensor
        int8 [G], set to 1 where a covariance is not positive definite or not finite, whose factor is unspecified, and
        to 0 elsewhere.
    skip : Tensor or None
        int8 or bool [G / matrices_per_model]: the matrices of these models stay as they are, in ``out`` and ``bad``.
    matrices_per_model : int
    """
    n_matrices, n_features, _ = covariances.shape
    if n_matrices == 0:
        return
    sizes = blocks(n_features)
    outputs = (out, bad, skip, n_matrices, matrices_per_model, n_features)
    if n_features <= SMALL:
        _factor_small_kernel[(-(-n_matrices // sizes.batch),)](
            covariances, *outputs, BATCH=sizes.batch, BLOCK=sizes.block, num_warps=sizes.num_warps
        )
        return
    n_programs = max(1, min(n_matrices, _MAX_PROGRAMS, _MAX_WORK_BYTES // (8 * n_features**2)))
    work = torch.empty(n_programs, n_features, n_features, dtype=torch.float64, device=covariances.device)
    _factor_blocked_kernel[(n_programs,)](
        covariances, work, *outputs, BLOCK=sizes.block, num_warps=sizes.num_warps, num_stages=1
    )


def _launch(covariances: Tensor, *, covariance_type: str = "full") -> tuple[Tensor, Tensor]:
    if covariance_type in ("diag", "spherical"):
        return reference.precision_cholesky(covariances, covariance_type=covariance_type)
    n_models, *_, n_features = covariances.shape
    flat = covariances.reshape(-1, n_features, n_features).contiguous()
    out = torch.empty_like(flat)
    bad = torch.empty(len(flat), dtype=torch.int8, device=flat.device)
    factor_covariances(flat, out, bad, None, 1)
    return out.reshape(covariances.shape), bad.reshape(n_models, -1).any(1)


_BACKENDS = Backends(triton=_launch, cpu="cholesky:precision_cholesky", reference=reference.precision_cholesky)


@checked
def precision_cholesky(
    covariances: Tensor, *, covariance_type: str = "full", backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Factor the covariances of M models.

    Parameters
    ----------
    covariances : Tensor
        full [M, K, D, D], tied [M, D, D], diag [M, K, D] or spherical [M, K]; float32 or float64.
    covariance_type : {"full", "tied", "diag", "spherical"}
    backend : {"auto", "triton", "cpu", "reference"}

    Returns
    -------
    precisions_cholesky : Tensor
        Same shape and dtype; NaN or unspecified for a matrix that has no factor.
    bad : Tensor
        Bool [M], True where a covariance of the model is not positive definite or not finite.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import precision_cholesky
    >>> factors, bad = precision_cholesky(torch.tensor([[[[4.0]], [[-1.0]]]]))
    >>> factors[0, 0], bad
    (tensor([[0.5000]]), tensor([True]))
    """
    factors, bad = _BACKENDS.run(backend, covariances, covariance_type=covariance_type)
    return factors, bad
