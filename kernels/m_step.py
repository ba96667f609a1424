"""The sums of the M step, centred before they are squared (Bishop 2006, eqs. 9.24 to 9.27).

``nk = sum_n r_nk``, ``mean_k = c_k + sum_n r_nk (x_n - c_k) / nk`` and
``S_k = sum_n r_nk (x_n - mean_k)(x_n - mean_k)'``, in two passes over the points: the second needs the means of the
first. Sums run over chunks of a model's rows in a first stage and over its chunks, in order, in a second: no atomics,
the same bits every time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from fastdens.kernels import reference
from fastdens.kernels.layout import Layout, as_layout
from fastdens.kernels.mahalanobis import config, load_centred
from fastdens.kernels.operation import Backends, check_alike
from fastdens.kernels.optional_triton import tl, triton
from fastdens.kernels.options import COVARIANCE_TYPES, MATMUL_PRECISIONS, check_choice
from torch import Tensor

_REDUCE_BLOCK = 256


class SufficientStatistics(NamedTuple):
    """Counts [M, K], means [M, K, D], scatter: full [M, K, D, D], tied [M, D, D], diag [M, K, D], spherical [M, K]."""

    nk: Tensor
    means: Tensor
    scatter: Tensor


@triton.jit
def _first_moments_kernel(
    points_ptr,  # [N, D]
    chunk_model_ptr,  # int64 [C]
    chunk_start_ptr,  # int64 [C]
    chunk_stop_ptr,  # int64 [C]
    resp_ptr,  # [N, K]
    centres_ptr,  # [M, K, D]
    nk_ptr,  # float64 [C, K]
    moment_ptr,  # float64 [C, K, D]
    n_features,
    n_components,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: ``sum r`` and ``sum r (x - c)`` of a chunk, for one component and one block of dimensions."""
    chunk, k, block = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    g = tl.load(chunk_model_ptr + chunk) * n_components + k
    start, stop = tl.load(chunk_start_ptr + chunk), tl.load(chunk_stop_ptr + chunk)
    columns = block * BLOCK_D + tl.arange(0, BLOCK_D)
    width = tl.cast(n_features, tl.int64)
    count = tl.zeros([BLOCK_N], tl.float64)
    total = tl.zeros([BLOCK_D], tl.float64)
    for first in range(start, stop, BLOCK_N):
        rows = first + tl.arange(0, BLOCK_N)
        mask = rows < stop
        r = tl.load(resp_ptr + rows * n_components + k, mask=mask, other=0.0)
        z = load_centred(points_ptr, rows, mask, centres_ptr + g * width, columns, width)
        count += r
        total += tl.sum(r[:, None] * z, 0)
    tl.store(nk_ptr + chunk * n_components + k, tl.sum(count, 0), mask=block == 0)
    tl.store(moment_ptr + (chunk * n_components + k) * width + columns, total, mask=columns < n_features)


@triton.jit
def _scatter_kernel(
    points_ptr,  # [N, D]
    chunk_model_ptr,  # int64 [C]
    chunk_start_ptr,  # int64 [C]
    chunk_stop_ptr,  # int64 [C]
    resp_ptr,  # [N, K]
    means_ptr,  # [M, K, D]
    out_ptr,  # [C, K, D, D]; TIED: [C, 1, D, D]
    n_features,
    n_components,
    n_factors,
    TIED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: block (i, j), i <= j, of the scatter of a chunk, for one component or (tied) summed over all."""
    chunk, component, pair = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    # Pair (i, j) of the upper triangle, counted column by column: j (j + 1) / 2 + i.
    j = ((tl.sqrt(8.0 * pair.to(tl.float32) + 1.0) - 1.0) * 0.5).to(tl.int32)
    j = tl.where(j * (j + 1) // 2 > pair, j - 1, j)
    j = tl.where((j + 1) * (j + 2) // 2 <= pair, j + 1, j)
    i = pair - j * (j + 1) // 2
    model = tl.load(chunk_model_ptr + chunk)
    start, stop = tl.load(chunk_start_ptr + chunk), tl.load(chunk_stop_ptr + chunk)
    rows_i, columns_j = i * BLOCK_D + tl.arange(0, BLOCK_D), j * BLOCK_D + tl.arange(0, BLOCK_D)
    width = tl.cast(n_features, tl.int64)
    dtype = points_ptr.dtype.element_ty
    acc = tl.zeros([BLOCK_D, BLOCK_D], dtype)
    first_k = 0 if TIED else component
    last_k = n_components if TIED else component + 1
    for k in range(first_k, last_k):
        mean_ptr = means_ptr + (model * n_components + k) * width
        for first in range(start, stop, BLOCK_N):
            rows = first + tl.arange(0, BLOCK_N)
            mask = rows < stop
            r = tl.load(resp_ptr + rows * n_components + k, mask=mask, other=0.0)
            zi = load_centred(points_ptr, rows, mask, mean_ptr, rows_i, width) * r[:, None]
            zj = load_centred(points_ptr, rows, mask, mean_ptr, columns_j, width)
            acc = tl.dot(tl.trans(zi), zj, acc, input_precision=PRECISION, out_dtype=dtype)
    base_ptr = out_ptr + (chunk * n_factors + component) * width * width
    inside = (rows_i < n_features)[:, None] & (columns_j < n_features)[None, :]
    # On the diagonal block both stores hit the same addresses: the upper triangle alone may write there, twice.
    upper = inside & (rows_i[:, None] <= columns_j[None, :])
    a, b = rows_i.to(tl.int64), columns_j.to(tl.int64)
    tl.store(base_ptr + a[:, None] * width + b[None, :], acc, mask=upper)
    tl.store(base_ptr + b[None, :] * width + a[:, None], acc, mask=upper)


@triton.jit
def _diagonal_scatter_kernel(
    points_ptr,  # [N, D]
    chunk_model_ptr,  # int64 [C]
    chunk_start_ptr,  # int64 [C]
    chunk_stop_ptr,  # int64 [C]
    resp_ptr,  # [N, K]
    means_ptr,  # [M, K, D]
    out_ptr,  # [C, K, D]
    n_features,
    n_components,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: ``sum r (x - mean)^2`` of a chunk, for one component and one block of dimensions."""
    chunk, k, block = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    g = tl.load(chunk_model_ptr + chunk) * n_components + k
    start, stop = tl.load(chunk_start_ptr + chunk), tl.load(chunk_stop_ptr + chunk)
    columns = block * BLOCK_D + tl.arange(0, BLOCK_D)
    width = tl.cast(n_features, tl.int64)
    total = tl.zeros([BLOCK_D], points_ptr.dtype.element_ty)
    for first in range(start, stop, BLOCK_N):
        rows = first + tl.arange(0, BLOCK_N)
        mask = rows < stop
        r = tl.load(resp_ptr + rows * n_components + k, mask=mask, other=0.0)
        z = load_centred(points_ptr, rows, mask, means_ptr + g * width, columns, width)
        total += tl.sum(r[:, None] * z * z, 0)
    tl.store(out_ptr + (chunk * n_components + k) * width + columns, total, mask=columns < n_features)


@triton.jit
def _add_chunks_kernel(
    partial_ptr,  # [C, E]
    first_ptr,  # int64 [M + 1]: the chunks of model m are first[m]:first[m + 1]
    out_ptr,  # [M, E]
    n_elements,  # E
    BLOCK: tl.constexpr,
):
    """One program: a run of one model's elements, its chunks added in order."""
    program = tl.program_id(0).to(tl.int64)
    runs = tl.cdiv(n_elements, BLOCK)
    m = program // runs
    element = program % runs * BLOCK + tl.arange(0, BLOCK)
    mask = element < n_elements
    total = tl.zeros([BLOCK], tl.float64)
    for c in range(tl.load(first_ptr + m), tl.load(first_ptr + m + 1)):
        total += tl.load(partial_ptr + c * n_elements + element, mask=mask, other=0.0)
    tl.store(out_ptr + m * n_elements + element, total, mask=mask)


def _add_chunks(partial: Tensor, first: Tensor) -> Tensor:
    n_models = len(first) - 1
    if len(partial) == n_models:
        return partial
    out = torch.empty(n_models, *partial.shape[1:], dtype=partial.dtype, device=partial.device)
    n_elements = partial[0].numel()
    _add_chunks_kernel[(n_models * -(-n_elements // _REDUCE_BLOCK),)](
        partial, first, out, n_elements, BLOCK=_REDUCE_BLOCK
    )
    return out


def _launch(
    points: Tensor, layout: Layout, resp: Tensor, centres: Tensor, *, covariance_type: str, matmul_precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    _, k, d = centres.shape
    points, resp, centres = points.contiguous(), resp.contiguous(), centres.contiguous()
    blocks = config(d, points.dtype)
    chunks = layout.chunks(k, d)
    n_chunks = len(chunks.model)
    table = (points, chunks.model, chunks.start, chunks.stop, resp)
    tile = {
        "BLOCK_N": blocks.block_n,
        "BLOCK_D": blocks.block_d,
        "num_warps": blocks.num_warps,
        "num_stages": blocks.num_stages,
    }

    def empty(*shape: int, dtype: torch.dtype = points.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=points.device)

    nk, moment = empty(n_chunks, k, dtype=torch.float64), empty(n_chunks, k, d, dtype=torch.float64)
    _first_moments_kernel[(n_chunks, k, blocks.num_d_blocks)](*table, centres, nk, moment, d, k, **tile)
    nk, moment = _add_chunks(nk, chunks.first), _add_chunks(moment, chunks.first)
    nk = nk + 10 * torch.finfo(points.dtype).eps
    means = (centres.double() + moment / nk[..., None]).to(points.dtype)
    if covariance_type in ("full", "tied"):
        n_factors = k if covariance_type == "full" else 1
        scatter = empty(n_chunks, n_factors, d, d)
        pairs = blocks.num_d_blocks * (blocks.num_d_blocks + 1) // 2
        _scatter_kernel[(n_chunks, n_factors, pairs)](
            *table, means, scatter, d, k, n_factors, TIED=covariance_type == "tied", PRECISION=matmul_precision, **tile
        )
    else:
        scatter = empty(n_chunks, k, d)
        _diagonal_scatter_kernel[(n_chunks, k, blocks.num_d_blocks)](*table, means, scatter, d, k, **tile)
    scatter = _add_chunks(scatter, chunks.first)
    if covariance_type == "tied":
        scatter = scatter[:, 0]
    elif covariance_type == "spherical":
        scatter = scatter.sum(-1)
    return nk.to(points.dtype), means, scatter


_BACKENDS = Backends(triton=_launch, cpu="m_step:sufficient_statistics", reference=reference.sufficient_statistics)


def sufficient_statistics(
    points: Tensor,
    layout: Layout | Tensor,
    resp: Tensor,
    centres: Tensor,
    *,
    covariance_type: str = "full",
    backend: str = "auto",
    matmul_precision: str = "ieee",
) -> SufficientStatistics:
    """Counts, means and scatter of every component of every model.

    Parameters
    ----------
    points, layout
        As for :func:`fastdens.kernels.responsibilities`.
    resp : Tensor
        Responsibilities [N, K].
    centres : Tensor
        [M, K, D], a point near each component, say its previous mean: sums are formed about it, and a component
        without points stays there.
    covariance_type, backend, matmul_precision
        As for :func:`fastdens.kernels.gaussian_log_prob`.

    Returns
    -------
    SufficientStatistics
        ``nk`` (with ``10 eps`` added, as scikit-learn does against division by zero), ``means`` and ``scatter``, not
        yet divided by the counts.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.
    """
    check_choice("covariance_type", covariance_type, COVARIANCE_TYPES)
    check_choice("matmul_precision", matmul_precision, MATMUL_PRECISIONS)
    if tuple(points.shape) != (resp.shape[0], centres.shape[-1]) or resp.shape[1:] != centres.shape[1:2]:
        raise ValueError(
            f"points {tuple(points.shape)}, resp {tuple(resp.shape)} and centres {tuple(centres.shape)} must be "
            "[N, D], [N, K] and [M, K, D]."
        )
    check_alike(points, resp=resp, centres=centres)
    layout = as_layout(layout, len(centres), len(points))
    options = {"covariance_type": covariance_type, "matmul_precision": matmul_precision}
    return SufficientStatistics(*_BACKENDS.run(backend, points, layout, resp, centres, **options))
