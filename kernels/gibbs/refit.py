"""A cluster, or one without one of its points, from the points themselves, inside Triton kernels.

Where a launch begins, every cluster is fitted so. Where a point carries its cluster, almost nothing is left of S
without it, and closed forms lose their digits. Both are rare, so these functions are written for few registers, not for
speed: their loops over blocks of D are not unrolled. Pointers are those of :mod:`.moves`.
"""

from __future__ import annotations

from fastdens.kernels.gibbs.moves import distance_to_mean, load_block, load_tile, store_tile
from fastdens.kernels.optional_triton import tl, triton


@triton.jit
def member_tile(member, others, columns, mean, points_ptr, stop, n_features):
    """Tile of ``x - mean`` of the points of a cluster, with zeros for other points."""
    x = load_tile(points_ptr, others, columns, stop, n_features)
    return tl.where(member[:, None], x - mean[None, :], 0.0)


@triton.jit
def fit_scatter(
    cluster,
    left_out,
    start,
    stop,
    points_ptr,  # [N, D]
    labels_ptr,  # [N]
    prior_scale_ptr,  # [D]
    mean_ptr,  # [D]
    inverse_ptr,  # [D, D]
    n_features,
    kappa0,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Posterior mean m and scale matrix S, into ``mean_ptr`` and ``inverse_ptr``, and the number of points."""
    count = tl.full([], 0, tl.int64)
    for first in range(start, stop, BLOCK_N):
        others = first + tl.arange(0, BLOCK_N)
        label = tl.load(labels_ptr + others, mask=others < stop, other=-1)
        count += tl.sum(((label == cluster) & (others != left_out)).to(tl.int64), 0)
    kappa = kappa0 + count
    origin = tl.zeros([BLOCK_D], tl.float64)
    for j in range(0, n_features, BLOCK_D):
        columns = j + tl.arange(0, BLOCK_D)
        total = tl.zeros([BLOCK_D], tl.float64)
        for first in range(start, stop, BLOCK_N):
            others = first + tl.arange(0, BLOCK_N)
            member = (tl.load(labels_ptr + others, mask=others < stop, other=-1) == cluster) & (others != left_out)
            total += tl.sum(member_tile(member, others, columns, origin, points_ptr, stop, n_features), 0)
        tl.store(mean_ptr + columns, total / tl.maximum(count, 1), mask=columns < n_features)
    # RAW: the mean is read in other layouts than the one it was stored in.
    tl.debug_barrier()
    for i in range(0, n_features, BLOCK_D):
        rows = i + tl.arange(0, BLOCK_D)
        mean_rows = load_block(mean_ptr, rows, n_features)
        prior_scale = load_block(prior_scale_ptr, rows, n_features)
        for j in range(0, n_features, BLOCK_D):
            columns = j + tl.arange(0, BLOCK_D)
            mean_columns = load_block(mean_ptr, columns, n_features)
            tile = kappa0 * count / kappa * mean_rows[:, None] * mean_columns[None, :]
            tile += tl.where(rows[:, None] == columns[None, :], prior_scale[:, None], 0.0)
            for first in range(start, stop, BLOCK_N):
                others = first + tl.arange(0, BLOCK_N)
                member = (tl.load(labels_ptr + others, mask=others < stop, other=-1) == cluster) & (others != left_out)
                x_rows = member_tile(member, others, rows, mean_rows, points_ptr, stop, n_features)
                x_columns = member_tile(member, others, columns, mean_columns, points_ptr, stop, n_features)
                tile = tl.dot(tl.trans(x_rows), x_columns, tile, input_precision="ieee", out_dtype=tl.float64)
            store_tile(inverse_ptr, rows, columns, n_features, n_features, tile)
    # WAR: all threads have read the sample mean, which the posterior's replaces. RAW: S is about to be inverted.
    tl.debug_barrier()
    for i in range(0, n_features, BLOCK_D):
        rows = i + tl.arange(0, BLOCK_D)
        mean = load_block(mean_ptr, rows, n_features)
        # WAR: a block of D may be shorter than the program has threads, and several of them load the same element.
        tl.debug_barrier()
        tl.store(mean_ptr + rows, count / kappa * mean, mask=rows < n_features)
    return count


@triton.jit
def invert_in_place(
    matrix_ptr,  # [D, D]
    w_ptr,  # [D]
    n_features,
    BLOCK_D: tl.constexpr,
):
    """Inverse of a symmetric positive definite matrix in its own memory, and its log-determinant; NaN if not definite.

    Gauss-Jordan elimination without pivoting (Goodnight, A tutorial on the sweep operator, The American Statistician
    33, 1979): sweeping all rows of A leaves minus its inverse, and its determinant is the product of the pivots.
    """
    log_det = tl.full([], 0.0, tl.float64)
    for pivot_row in range(n_features):
        pivot = tl.load(matrix_ptr + pivot_row * n_features + pivot_row)
        # The logarithm of a pivot that is not positive is NaN or minus infinity, on any device.
        log_det += tl.where(pivot > 0.0, tl.log(tl.where(pivot > 0.0, pivot, 1.0)), float("nan"))
        for i in range(0, n_features, BLOCK_D):
            rows = i + tl.arange(0, BLOCK_D)
            column = tl.load(matrix_ptr + rows * n_features + pivot_row, mask=rows < n_features, other=0.0)
            tl.store(w_ptr + rows, column, mask=rows < n_features)
        # RAW: all read the pivot's column from w. WAR: all have read it, and the pivot, from the matrix.
        tl.debug_barrier()
        for i in range(0, n_features, BLOCK_D):
            rows = i + tl.arange(0, BLOCK_D)
            w_rows = load_block(w_ptr, rows, n_features)
            for j in range(0, n_features, BLOCK_D):
                columns = j + tl.arange(0, BLOCK_D)
                w_columns = load_block(w_ptr, columns, n_features)
                in_row = (rows == pivot_row)[:, None]
                in_column = (columns == pivot_row)[None, :]
                tile = load_tile(matrix_ptr, rows, columns, n_features, n_features)
                tile -= w_rows[:, None] * w_columns[None, :] / pivot
                tile = tl.where(in_row, w_columns[None, :] / pivot, tile)
                tile = tl.where(in_column, w_rows[:, None] / pivot, tile)
                tile = tl.where(in_row & in_column, -1.0 / pivot, tile)
                store_tile(matrix_ptr, rows, columns, n_features, n_features, tile)
        # RAW: the next column and pivot are read in other layouts. WAR: w is overwritten.
        tl.debug_barrier()
    for i in range(0, n_features, BLOCK_D):
        rows = i + tl.arange(0, BLOCK_D)
        for j in range(0, n_features, BLOCK_D):
            columns = j + tl.arange(0, BLOCK_D)
            tile = load_tile(matrix_ptr, rows, columns, n_features, n_features)
            store_tile(matrix_ptr, rows, columns, n_features, n_features, -tile)
    # RAW: the inverse is read in other layouts than the one it was stored in.
    tl.debug_barrier()
    return log_det


@triton.jit
def weigh_without(
    row,
    cluster,
    start,
    stop,
    points_ptr,  # [N, D]
    labels_ptr,  # [N]
    prior_scale_ptr,  # [D]
    predictive_norm_ptr,  # [max n + 1]
    workspace_ptr,  # [D + 3, D]: w, m, log det S in the first element of a row, S^-1
    n_features,
    kappa0,
    nu0,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """Log-weight of the point's own cluster without the point, from its other points; NaN if S is not definite.

    The statistics stay in the working memory, should the point leave.
    """
    mean_ptr, inverse_ptr = workspace_ptr + n_features, workspace_ptr + 3 * n_features
    # Products of square tiles take the fewest registers.
    count = fit_scatter(
        cluster,
        row,
        start,
        stop,
        points_ptr,
        labels_ptr,
        prior_scale_ptr,
        mean_ptr,
        inverse_ptr,
        n_features,
        kappa0,
        BLOCK_D,
        BLOCK_D,
    )
    log_det = invert_in_place(inverse_ptr, workspace_ptr, n_features, BLOCK_D)
    tl.store(workspace_ptr + 2 * n_features, log_det)
    distance_sq, _ = distance_to_mean(row, points_ptr, mean_ptr, inverse_ptr, None, n_features, BLOCK_D, NUM_D_BLOCKS)
    kappa = kappa0 + count
    log_spread = tl.log(1.0 + kappa / (kappa + 1.0) * distance_sq)
    return tl.load(predictive_norm_ptr + count) - 0.5 * (log_det + (nu0 + count + 1.0) * log_spread)
