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
from fastdens.kernels.arguments import checked
from fastdens.kernels.layout import Layout, as_layout
from fastdens.kernels.mahalanobis import Config, config, load_centred, product_precision
from fastdens.kernels.operation import Backends, check_alike, check_points
from fastdens.kernels.optional_triton import tl, triton
from fastdens.kernels.options import COVARIANCE_TYPES, MATMUL_PRECISIONS, check_choice
from torch import Tensor

_REDUCE_BLOCK = 256
# Of a thread of the IEEE products of many dimensions, where the assembler, left to itself, spills.
_MAX_REGISTERS = 168


class SufficientStatistics(NamedTuple):
    """Sums of the M step over the points of M models.

    Attributes
    ----------
    nk, means, scatter : Tensor
        Sums of the responsibilities [M, K]; [M, K, D]; full [M, K, D, D], tied [M, D, D], diag [M, K, D], spherical
        [M, K].
    """

    nk: Tensor
    means: Tensor
    scatter: Tensor


def weighted(values: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Values [N, ...] of points times their weights [N]; as they are without weights."""
    return values if sample_weight is None else values * sample_weight.reshape(-1, *[1] * (values.ndim - 1))


@triton.jit
def _first_moments_kernel(
    points_ptr,  # [N, D]
    chunk_model_ptr,  # int64 [C]
    chunk_start_ptr,  # int64 [C]
    chunk_stop_ptr,  # int64 [C]
    resp_ptr,  # [N, K]
    log_prob_ptr,  # [N], or None
    centres_ptr,  # [M, K, D]
    done_ptr,  # int8 [M], models that are left as they are; or None
    chunk_nk_ptr,  # float64 [C, K]
    chunk_moment_ptr,  # float64 [C, K, D]
    chunk_log_likelihood_ptr,  # float64 [C], or None
    n_features,
    n_components,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: ``sum r`` and ``sum r (x - c)`` of a chunk, for one component and one block of dimensions.

    The program of the first of both also sums the log-densities.
    """
    # Components come first, so that programs of the same points follow each other and find them in the cache.
    program = tl.program_id(0).to(tl.int64)
    k = program % n_components
    n_blocks = tl.cdiv(n_features, BLOCK_D)
    block = program // n_components % n_blocks
    chunk = program // n_components // n_blocks
    model = tl.load(chunk_model_ptr + chunk)
    if done_ptr is not None and tl.load(done_ptr + model) != 0:
        return
    start, stop = tl.load(chunk_start_ptr + chunk), tl.load(chunk_stop_ptr + chunk)
    columns = block * BLOCK_D + tl.arange(0, BLOCK_D)
    width = tl.cast(n_features, tl.int64)
    count = tl.zeros([BLOCK_N], tl.float64)
    total = tl.zeros([BLOCK_D], tl.float64)
    for first in range(start, stop, BLOCK_N):
        rows = first + tl.arange(0, BLOCK_N)
        mask = rows < stop
        r = tl.load(resp_ptr + rows * n_components + k, mask=mask, other=0.0)
        z = load_centred(points_ptr, rows, mask, centres_ptr + (model * n_components + k) * width, columns, width)
        count += r
        total += tl.sum(r[:, None] * z, 0)
    tl.store(chunk_nk_ptr + chunk * n_components + k, tl.sum(count, 0), mask=block == 0)
    tl.store(chunk_moment_ptr + (chunk * n_components + k) * width + columns, total, mask=columns < n_features)
    if log_prob_ptr is not None and (k == 0) & (block == 0):
        log_likelihood = tl.zeros([BLOCK_N], tl.float64)
        for first in range(start, stop, BLOCK_N):
            rows = first + tl.arange(0, BLOCK_N)
            log_likelihood += tl.load(log_prob_ptr + rows, mask=rows < stop, other=0.0)
        tl.store(chunk_log_likelihood_ptr + chunk, tl.sum(log_likelihood, 0))


@triton.jit
def _means_kernel(
    chunk_nk_ptr,  # float64 [C, K]
    chunk_moment_ptr,  # float64 [C, K, D]
    first_ptr,  # int64 [M + 1]: the chunks of model m are first[m]:first[m + 1]
    done_ptr,  # int8 [M], or None
    centres_ptr,  # [M, K, D]
    nk_ptr,  # [M, K]
    means_ptr,  # [M, K, D], which may be the centres
    n_features,
    n_components,
    TEN_EPS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: the count and one block of the mean of a component, its chunks added in order."""
    program = tl.program_id(0).to(tl.int64)
    n_blocks = tl.cdiv(n_features, BLOCK_D)
    block = program % n_blocks
    g = program // n_blocks
    model, k = g // n_components, g % n_components
    if done_ptr is not None and tl.load(done_ptr + model) != 0:
        return
    columns = block * BLOCK_D + tl.arange(0, BLOCK_D)
    mask = columns < n_features
    width = tl.cast(n_features, tl.int64)
    nk = tl.full([], 0.0, tl.float64)
    moment = tl.zeros([BLOCK_D], tl.float64)
    for chunk in range(tl.load(first_ptr + model), tl.load(first_ptr + model + 1)):
        row = chunk * n_components + k
        nk += tl.load(chunk_nk_ptr + row)
        moment += tl.load(chunk_moment_ptr + row * width + columns, mask=mask, other=0.0)
    nk += TEN_EPS
    centre = tl.load(centres_ptr + g * width + columns, mask=mask, other=0.0)
    tl.store(nk_ptr + g, nk, mask=block == 0)
    tl.store(means_ptr + g * width + columns, centre + moment / nk, mask=mask)


@triton.jit
def _scatter_kernel(
    points_ptr,  # [N, D]
    chunk_model_ptr,  # int64 [C]
    chunk_start_ptr,  # int64 [C]
    chunk_stop_ptr,  # int64 [C]
    resp_ptr,  # [N, K]
    means_ptr,  # [M, K, D]
    done_ptr,  # int8 [M], or None
    out_ptr,  # [C, K, D, D]; TIED: [C, 1, D, D]
    n_features,
    n_components,
    TIED: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: block (i, j), i <= j, of the scatter of a chunk, for one component or (tied) summed over all."""
    # Pairs, then components come first, so that programs of the same points follow each other.
    program = tl.program_id(0).to(tl.int64)
    n_blocks = tl.cdiv(n_features, BLOCK_D)
    n_pairs = n_blocks * (n_blocks + 1) // 2
    n_factors = 1 if TIED else n_components
    pair = (program % n_pairs).to(tl.int32)
    component = program // n_pairs % n_factors
    chunk = program // n_pairs // n_factors
    model = tl.load(chunk_model_ptr + chunk)
    if done_ptr is not None and tl.load(done_ptr + model) != 0:
        return
    # Pair (i, j) of the upper triangle, counted column by column: j (j + 1) / 2 + i.
    j = ((tl.sqrt(8.0 * pair.to(tl.float32) + 1.0) - 1.0) * 0.5).to(tl.int32)
    j = tl.where(j * (j + 1) // 2 > pair, j - 1, j)
    j = tl.where((j + 1) * (j + 2) // 2 <= pair, j + 1, j)
    i = pair - j * (j + 1) // 2
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
            zj = load_centred(points_ptr, rows, mask, mean_ptr, columns_j, width)
            zi = zj if ONE_BLOCK else load_centred(points_ptr, rows, mask, mean_ptr, rows_i, width)
            acc = tl.dot(tl.trans(zi * r[:, None]), zj, acc, input_precision=PRECISION, out_dtype=dtype)
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
    done_ptr,  # int8 [M], or None
    out_ptr,  # [C, K, D]; SPHERICAL: [C, K]
    n_features,
    n_components,
    SPHERICAL: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: ``sum r (x - mean)^2`` of a chunk, for one component and a block of dimensions or their sum."""
    program = tl.program_id(0).to(tl.int64)
    n_blocks = tl.cdiv(n_features, BLOCK_D)
    programs_of_component = 1 if SPHERICAL else n_blocks
    k = program % n_components
    own_block = (program // n_components % programs_of_component).to(tl.int32)
    chunk = program // n_components // programs_of_component
    model = tl.load(chunk_model_ptr + chunk)
    if done_ptr is not None and tl.load(done_ptr + model) != 0:
        return
    start, stop = tl.load(chunk_start_ptr + chunk), tl.load(chunk_stop_ptr + chunk)
    width = tl.cast(n_features, tl.int64)
    mean_ptr = means_ptr + (model * n_components + k) * width
    total = tl.zeros([BLOCK_D], points_ptr.dtype.element_ty)
    first_block = 0 if SPHERICAL else own_block
    last_block = n_blocks if SPHERICAL else own_block + 1
    for block in range(first_block, last_block):
        columns = block * BLOCK_D + tl.arange(0, BLOCK_D)
        for first in range(start, stop, BLOCK_N):
            rows = first + tl.arange(0, BLOCK_N)
            mask = rows < stop
            r = tl.load(resp_ptr + rows * n_components + k, mask=mask, other=0.0)
            z = load_centred(points_ptr, rows, mask, mean_ptr, columns, width)
            total += tl.sum(r[:, None] * z * z, 0)
    row = chunk * n_components + k
    if SPHERICAL:
        tl.store(out_ptr + row, tl.sum(total, 0))
    else:
        columns = own_block * BLOCK_D + tl.arange(0, BLOCK_D)
        tl.store(out_ptr + row * width + columns, total, mask=columns < n_features)


@triton.jit
def _add_chunks_kernel(
    partial_ptr,  # [C, E], the E numbers of a model's scatter by chunk
    first_ptr,  # int64 [M + 1]: the chunks of model m are first[m]:first[m + 1]
    done_ptr,  # int8 [M], or None
    nk_ptr,  # [M, K], or None: the sums alone
    reg_covar_ptr,  # float64 [1], or None
    out_ptr,  # [M, E]
    n_elements,  # E
    n_features,
    n_components,
    COVARIANCE_TYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: a run of one model's scatter, its chunks added in order; with counts, of its covariances."""
    program = tl.program_id(0).to(tl.int64)
    runs = tl.cdiv(n_elements, BLOCK)
    model = program // runs
    if done_ptr is not None and tl.load(done_ptr + model) != 0:
        return
    element = program % runs * BLOCK + tl.arange(0, BLOCK)
    mask = element < n_elements
    total = tl.zeros([BLOCK], tl.float64)
    for chunk in range(tl.load(first_ptr + model), tl.load(first_ptr + model + 1)):
        total += tl.load(partial_ptr + chunk * n_elements + element, mask=mask, other=0.0)
    if nk_ptr is not None:
        width = tl.cast(n_features, tl.int64)
        own_nk_ptr = nk_ptr + model * n_components
        on_diagonal = mask
        if COVARIANCE_TYPE == "tied":
            count = tl.full([], 0.0, tl.float64)
            for k in range(n_components):
                count += tl.load(own_nk_ptr + k)
            total /= count
            on_diagonal = element % (width + 1) == 0
        elif COVARIANCE_TYPE == "full":
            total /= tl.load(own_nk_ptr + element // (width * width), mask=mask, other=1.0)
            on_diagonal = element % (width * width) % (width + 1) == 0
        elif COVARIANCE_TYPE == "diag":
            total /= tl.load(own_nk_ptr + element // width, mask=mask, other=1.0)
        else:
            total /= width * tl.load(own_nk_ptr + element, mask=mask, other=1.0).to(tl.float64)
        total = tl.where(on_diagonal, total + tl.load(reg_covar_ptr), total)
    tl.store(out_ptr + model * n_elements + element, total, mask=mask)


class MStep:
    """Launches of M steps on the same points, over buffers that are made once.

    Parameters
    ----------
    points, layout
        Contiguous [N, D], and the rows of each model.
    n_components : int
    covariance_type, matmul_precision : str
    done : Tensor, optional
        int8 [M], looked at on the device: models other than zero are left as they are.

    Attributes
    ----------
    nk, covariances : Tensor
        Counts [M, K]; scatter or covariances in the shape of the type.
    log_likelihood : Tensor
        float64 [C], sums of log-densities over the chunks of :meth:`Layout.chunks`.
    """

    def __init__(
        self,
        points: Tensor,
        layout: Layout,
        n_components: int,
        *,
        covariance_type: str,
        matmul_precision: str,
        done: Tensor | None = None,
    ) -> None:
        m, k, d = layout.n_models, n_components, points.shape[1]
        self._points, self._done, self._shape = points, done, (m, k, d)
        self._covariance_type, self._matmul_precision = covariance_type, matmul_precision
        self.chunks = layout.chunks(k, d)
        n_chunks = len(self.chunks.model)
        self.log_likelihood = points.new_empty(n_chunks, dtype=torch.float64)
        self._chunk_nk = points.new_empty(n_chunks, k, dtype=torch.float64)
        self._chunk_moment = points.new_empty(n_chunks, k, d, dtype=torch.float64)
        self.nk = points.new_empty(m, k)
        shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[covariance_type]
        self.covariances = points.new_empty(m, *shape)
        # A model that is one chunk needs no room beside its sums.
        self._partial = self.covariances if n_chunks == m else points.new_empty(n_chunks, *shape)

    def set_means(self, resp: Tensor, centres: Tensor, means: Tensor, log_prob: Tensor | None = None) -> None:
        """Fill ``nk`` and ``means`` [M, K, D], which may be the centres; of log-densities [N], ``log_likelihood``."""
        m, k, d = self._shape
        blocks = config(d, self._points.dtype)
        chunks = self.chunks
        if not m:
            return
        _first_moments_kernel[(len(chunks.model) * blocks.num_d_blocks * k,)](
            self._points,
            *chunks[:3],
            resp,
            log_prob,
            centres,
            self._done,
            self._chunk_nk,
            self._chunk_moment,
            None if log_prob is None else self.log_likelihood,
            d,
            k,
            BLOCK_N=blocks.block_n,
            BLOCK_D=blocks.block_d,
            num_warps=blocks.num_warps,
            num_stages=blocks.num_stages,
        )
        _means_kernel[(m * k * blocks.num_d_blocks,)](
            self._chunk_nk,
            self._chunk_moment,
            chunks.first,
            self._done,
            centres,
            self.nk,
            means,
            d,
            k,
            TEN_EPS=10 * torch.finfo(means.dtype).eps,
            BLOCK_D=blocks.block_d,
            num_warps=1,
        )

    def set_covariances(self, resp: Tensor, means: Tensor, reg_covar: Tensor | None = None) -> None:
        """Fill ``covariances`` with the scatter about the means; with ``reg_covar`` float64 [1], with covariances."""
        m, k, d = self._shape
        chunks, covariance_type = self.chunks, self._covariance_type
        if not m:
            return
        matrices, tied, spherical = (
            covariance_type in types for types in (("full", "tied"), ("tied",), ("spherical",))
        )
        blocks = scatter_blocks(d, means.dtype, self._matmul_precision) if matrices else config(d, means.dtype)
        table = (self._points, *chunks[:3], resp, means, self._done, self._partial, d, k)
        tile = {
            "BLOCK_N": blocks.block_n,
            "BLOCK_D": blocks.block_d,
            "num_warps": blocks.num_warps,
            "num_stages": blocks.num_stages,
            "maxnreg": blocks.max_registers,
        }
        n_blocks = blocks.num_d_blocks
        if matrices:
            n_programs = len(chunks.model) * (1 if tied else k) * (n_blocks * (n_blocks + 1) // 2)
            kind = {"TIED": tied, "ONE_BLOCK": n_blocks == 1, "PRECISION": blocks.precision}
            _scatter_kernel[(n_programs,)](*table, **kind, **tile)
        else:
            n_programs = len(chunks.model) * k * (1 if spherical else n_blocks)
            _diagonal_scatter_kernel[(n_programs,)](*table, SPHERICAL=spherical, **tile)
        if reg_covar is None and self._partial is self.covariances:
            return
        n_elements = self.covariances[0].numel()
        _add_chunks_kernel[(m * -(-n_elements // _REDUCE_BLOCK),)](
            self._partial,
            chunks.first,
            self._done,
            None if reg_covar is None else self.nk,
            reg_covar,
            self.covariances,
            n_elements,
            d,
            k,
            COVARIANCE_TYPE=covariance_type,
            BLOCK=_REDUCE_BLOCK,
        )


def scatter_blocks(n_features: int, dtype: torch.dtype, matmul_precision: str) -> Config:
    """Block sizes of the second moments: on tensor cores 64 dimensions, the least that the products of wgmma take."""
    precision = product_precision(n_features, dtype, matmul_precision)
    sizes = config(n_features, dtype)._replace(precision=precision)
    if sizes.num_d_blocks == 1:
        return sizes
    if precision == "ieee":
        return sizes._replace(max_registers=_MAX_REGISTERS)
    n_blocks = -(-n_features // 64)
    # Two operands that differ, each in two parts, leave registers for half as many rows; so does what is not aligned.
    block_n = 64 if n_blocks == 1 and n_features % 16 == 0 else 32
    return sizes._replace(block_n=block_n, block_d=64, num_d_blocks=n_blocks)


def _launch(
    points: Tensor, layout: Layout, resp: Tensor, centres: Tensor, *, covariance_type: str, matmul_precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    step = MStep(
        points.contiguous(),
        layout,
        centres.shape[1],
        covariance_type=covariance_type,
        matmul_precision=matmul_precision,
    )
    resp, means = resp.contiguous(), torch.empty_like(centres, memory_format=torch.contiguous_format)
    step.set_means(resp, centres.contiguous(), means)
    step.set_covariances(resp, means)
    return step.nk, means, step.covariances


_BACKENDS = Backends(triton=_launch, cpu="m_step:sufficient_statistics", reference=reference.sufficient_statistics)


@checked
def sufficient_statistics(
    points: Tensor,
    layout: Layout | Tensor,
    resp: Tensor,
    centres: Tensor,
    *,
    covariance_type: str = "full",
    backend: str = "auto",
    matmul_precision: str = "tf32x3",
) -> SufficientStatistics:
    """Counts, means and scatter of every component of every model.

    Parameters
    ----------
    points, layout : Tensor
        As for :func:`fastdens.kernels.responsibilities`.
    resp : Tensor
        Responsibilities [N, K].
    centres : Tensor
        [M, K, D], a point near each component, say its previous mean: sums are formed about it, and a component
        without points stays there.
    covariance_type, backend, matmul_precision : str
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
    check_points(points)
    shape = (*resp.shape[:1], *centres.shape[-1:])
    if centres.ndim != 3 or tuple(points.shape) != shape or resp.shape[1:] != centres.shape[1:2]:
        raise ValueError(
            f"points {tuple(points.shape)}, resp {tuple(resp.shape)} and centres {tuple(centres.shape)} must be "
            "[N, D], [N, K] and [M, K, D]."
        )
    check_alike(points, resp=resp, centres=centres)
    layout = as_layout(layout, len(centres), len(points))
    options = {"covariance_type": covariance_type, "matmul_precision": matmul_precision}
    return SufficientStatistics(*_BACKENDS.run(backend, points, layout, resp, centres, **options))
