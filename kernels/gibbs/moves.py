"""Changes of a cluster inside the sweep kernel: it is opened, a point joins it, a point leaves it.

``mean_ptr``, ``inverse_ptr`` and so on point to the cluster's own entries: m [D], S^-1 [D, D], and the squared
Mahalanobis distances of the model's points, ``n_slots`` apart. ``w_ptr`` [D] is working memory of the chain.

Threads of a program share this memory, so each barrier says which hazard it removes: a write before others have read
the old value (WAR), or a read before others have written the new one (RAW).
"""

from __future__ import annotations

from fastdens.kernels.optional_triton import tl, triton


@triton.jit
def load_block(vector_ptr, columns, n_columns):
    """Elements of a vector, zeros past its end."""
    return tl.load(vector_ptr + columns, mask=columns < n_columns, other=0.0)


@triton.jit
def load_tile(matrix_ptr, rows, columns, end_row, n_columns):
    """Elements of a row-major matrix, zeros from row ``end_row`` and past the last column on."""
    inside = (rows < end_row)[:, None] & (columns < n_columns)[None, :]
    return tl.load(matrix_ptr + rows[:, None] * n_columns + columns[None, :], mask=inside, other=0.0)


@triton.jit
def store_tile(matrix_ptr, rows, columns, end_row, n_columns, tile):
    """Write what :func:`load_tile` reads."""
    inside = (rows < end_row)[:, None] & (columns < n_columns)[None, :]
    tl.store(matrix_ptr + rows[:, None] * n_columns + columns[None, :], tile, mask=inside)


@triton.jit
def empty_statistics(
    prior_scale_ptr,  # [D]
    prior_log_det,
    mean_ptr,  # [D]
    inverse_ptr,  # [D, D]
    log_det_ptr,  # scalar
    n_features,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """The statistics of no points: those of the prior."""
    for i in range(NUM_D_BLOCKS):
        rows = i * BLOCK_D + tl.arange(0, BLOCK_D)
        mask = rows < n_features
        prior_precision = 1.0 / tl.load(prior_scale_ptr + rows, mask=mask, other=1.0)
        tl.store(mean_ptr + rows, tl.zeros([BLOCK_D], tl.float64), mask=mask)
        for j in range(NUM_D_BLOCKS):
            columns = j * BLOCK_D + tl.arange(0, BLOCK_D)
            diagonal = tl.where(rows[:, None] == columns[None, :], prior_precision[:, None], 0.0)
            store_tile(inverse_ptr, rows, columns, n_features, n_features, diagonal)
    tl.store(log_det_ptr, prior_log_det)


@triton.jit
def open_cluster(
    start,
    stop,
    prior_mahalanobis_sq_ptr,  # [N]
    prior_scale_ptr,  # [D]
    prior_log_det,
    mean_ptr,  # [D]
    inverse_ptr,  # [D, D]
    log_det_ptr,  # scalar
    mahalanobis_sq_ptr,  # [N], n_slots apart
    n_features,
    n_slots,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """Give a free slot the statistics of no points."""
    empty_statistics(
        prior_scale_ptr, prior_log_det, mean_ptr, inverse_ptr, log_det_ptr, n_features, BLOCK_D, NUM_D_BLOCKS
    )
    for first in range(start, stop, BLOCK_N):
        others = first + tl.arange(0, BLOCK_N)
        q = tl.load(prior_mahalanobis_sq_ptr + others, mask=others < stop, other=0.0)
        tl.store(mahalanobis_sq_ptr + others * n_slots, q, mask=others < stop)
    # RAW: the point that joins reads mean and inverse in another layout than they were stored in.
    tl.debug_barrier()


@triton.jit
def distance_to_mean(
    row,
    points_ptr,  # [N, D]
    mean_ptr,  # [D]
    inverse_ptr,  # [D, D]
    w_ptr,  # [D], or None
    n_features,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """``w = S^-1 (x - m)`` into memory, the squared distance ``(x - m)'w`` and ``m'w``.

    Only behind a barrier may w be read (RAW: in other layouts than it was stored in) or mean and inverse change (WAR).
    """
    distance_sq = tl.full([], 0.0, tl.float64)
    offset = tl.full([], 0.0, tl.float64)
    for j in range(NUM_D_BLOCKS):
        columns = j * BLOCK_D + tl.arange(0, BLOCK_D)
        total = tl.zeros([BLOCK_D], tl.float64)
        for i in range(NUM_D_BLOCKS):
            rows = i * BLOCK_D + tl.arange(0, BLOCK_D)
            delta = load_block(points_ptr + row * n_features, rows, n_features)
            delta -= load_block(mean_ptr, rows, n_features)
            p = load_tile(inverse_ptr, rows, columns, n_features, n_features)
            total += tl.sum(p * delta[:, None], 0)
        mean = load_block(mean_ptr, columns, n_features)
        x = load_block(points_ptr + row * n_features, columns, n_features)
        distance_sq += tl.sum((x - mean) * total, 0)
        offset += tl.sum(mean * total, 0)
        if w_ptr is not None:
            tl.store(w_ptr + columns, total, mask=columns < n_features)
    return distance_sq, offset


@triton.jit
def update_inverse(
    coefficient,
    step,
    row,
    points_ptr,  # [N, D]
    mean_ptr,  # [D]
    inverse_ptr,  # [D, D]
    w_ptr,  # [D]
    n_features,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """``S^-1 += coefficient w w'`` and ``m -= step (x - m)``."""
    for i in range(NUM_D_BLOCKS):
        rows = i * BLOCK_D + tl.arange(0, BLOCK_D)
        w_rows = load_block(w_ptr, rows, n_features)
        for j in range(NUM_D_BLOCKS):
            columns = j * BLOCK_D + tl.arange(0, BLOCK_D)
            w_columns = load_block(w_ptr, columns, n_features)
            p = load_tile(inverse_ptr, rows, columns, n_features, n_features)
            p += coefficient * w_rows[:, None] * w_columns[None, :]
            # No hazard: a thread stores the elements that it loaded, and nobody else reads them here.
            store_tile(inverse_ptr, rows, columns, n_features, n_features, p)
        mean = load_block(mean_ptr, rows, n_features)
        x = load_block(points_ptr + row * n_features, rows, n_features)
        # WAR: a block of D may be shorter than the program has threads, and several of them load the same element.
        tl.debug_barrier()
        tl.store(mean_ptr + rows, mean - step * (x - mean), mask=rows < n_features)


@triton.jit
def update_statistics(
    sign,
    distance_sq,
    row,
    points_ptr,  # [N, D]
    count_ptr,  # scalar
    mean_ptr,  # [D]
    inverse_ptr,  # [D, D]
    log_det_ptr,  # scalar
    w_ptr,  # [D]
    n_features,
    kappa0,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """A point joins (sign 1) or leaves (-1), of which :func:`distance_to_mean` told w and the squared distance.

    By the formula of Sherman and Morrison: with d = x - m and kappa before the move, S changes by
    ``sign kappa / (kappa + sign) d d'``, m by ``sign / (kappa + sign) d``. Returns the coefficient of ``w w'`` in the
    change of the inverse, and minus that of d in the change of m.
    """
    count = tl.load(count_ptr)
    kappa = kappa0 + count
    step = -sign / (kappa + sign)
    scale = kappa / (kappa + sign)
    # Of what the last point leaves behind nothing is used.
    ratio = tl.where(count + sign > 0, 1.0 + sign * scale * distance_sq, 1.0)
    coefficient = -sign * scale / ratio
    update_inverse(coefficient, step, row, points_ptr, mean_ptr, inverse_ptr, w_ptr, n_features, BLOCK_D, NUM_D_BLOCKS)
    log_det = tl.load(log_det_ptr) + tl.log(ratio)
    # WAR: all threads have read count and log-determinant.
    tl.debug_barrier()
    tl.store(log_det_ptr, log_det)
    tl.store(count_ptr, count + sign)
    return coefficient, step


@triton.jit
def update_distances(moved, coefficient, step, distance_sq, mahalanobis_sq_ptr, rows, stop, n_slots):
    """Squared distances of some points after a move, of which ``moved = w'(x - m)`` with the m after it."""
    q = tl.load(mahalanobis_sq_ptr + rows * n_slots, mask=rows < stop, other=0.0)
    q += moved * (2.0 * step + coefficient * moved) - step * step * distance_sq
    # No hazard: a thread stores where it loaded.
    tl.store(mahalanobis_sq_ptr + rows * n_slots, q, mask=rows < stop)


@triton.jit
def transfer_point(
    row,
    old,
    new,
    start,
    stop,
    points_ptr,  # [N, D]
    counts_ptr,  # [S]
    mean_ptr,  # [S, D]
    inverse_ptr,  # [S, D, D]
    log_det_ptr,  # [S]
    mahalanobis_sq_ptr,  # [N, S]
    w_ptr,  # [2, D]: of the cluster that the point leaves, and of the other
    n_features,
    n_slots,
    kappa0,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """A point leaves cluster ``old`` and joins ``new``; the distances of all points from both follow in one pass.

    A cluster that loses its last point is left with what rounding makes of the prior, and its slot is free.
    """
    nothing = tl.full([], 0.0, tl.float64)
    old_coefficient, old_step, old_q, old_offset = nothing, nothing, nothing, nothing
    coefficient, step, q, offset = nothing, nothing, nothing, nothing
    for joins in tl.range(2, disable_licm=True):
        cluster = tl.where(joins == 1, new, old)
        own_mean_ptr, own_inverse_ptr = mean_ptr + cluster * n_features, inverse_ptr + cluster * n_features * n_features
        own_w_ptr = w_ptr + joins * n_features
        q, offset = distance_to_mean(
            row, points_ptr, own_mean_ptr, own_inverse_ptr, own_w_ptr, n_features, BLOCK_D, NUM_D_BLOCKS
        )
        # RAW: w is read in other layouts than it was stored in. WAR: mean and inverse are about to change.
        tl.debug_barrier()
        coefficient, step = update_statistics(
            2 * joins - 1, q, row, points_ptr, counts_ptr + cluster, own_mean_ptr, own_inverse_ptr,
            log_det_ptr + cluster, own_w_ptr, n_features, kappa0, BLOCK_D, NUM_D_BLOCKS,
        )  # fmt: skip
        # Of the cluster that the point leaves.
        old_q, old_offset = tl.where(joins == 0, q, old_q), tl.where(joins == 0, offset, old_offset)
        old_step = tl.where(joins == 0, step, old_step)
        old_coefficient = tl.where(joins == 0, coefficient, old_coefficient)
    for first in range(start, stop, BLOCK_N):
        others = first + tl.arange(0, BLOCK_N)
        old_moved = tl.zeros([BLOCK_N], tl.float64) + (old_step * old_q - old_offset)
        moved = tl.zeros([BLOCK_N], tl.float64) + (step * q - offset)
        for j in range(NUM_D_BLOCKS):
            columns = j * BLOCK_D + tl.arange(0, BLOCK_D)
            x = load_tile(points_ptr, others, columns, stop, n_features)
            old_moved += tl.sum(x * load_block(w_ptr, columns, n_features)[None, :], 1)
            moved += tl.sum(x * load_block(w_ptr + n_features, columns, n_features)[None, :], 1)
        update_distances(old_moved, old_coefficient, old_step, old_q, mahalanobis_sq_ptr + old, others, stop, n_slots)
        update_distances(moved, coefficient, step, q, mahalanobis_sq_ptr + new, others, stop, n_slots)
    # RAW: the next move or update reads the statistics. WAR: it overwrites w.
    tl.debug_barrier()


@triton.jit
def fit_distances(
    start,
    stop,
    points_ptr,  # [N, D]
    mean_ptr,  # [D]
    inverse_ptr,  # [D, D]
    mahalanobis_sq_ptr,  # [N], n_slots apart
    n_features,
    n_slots,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """Squared distances of all points of the model, from mean and inverse."""
    for first in range(start, stop, BLOCK_N):
        others = first + tl.arange(0, BLOCK_N)
        q = tl.zeros([BLOCK_N], tl.float64)
        for j in range(NUM_D_BLOCKS):
            columns = j * BLOCK_D + tl.arange(0, BLOCK_D)
            y = tl.zeros([BLOCK_N, BLOCK_D], tl.float64)
            for i in range(NUM_D_BLOCKS):
                rows = i * BLOCK_D + tl.arange(0, BLOCK_D)
                z = load_tile(points_ptr, others, rows, stop, n_features) - load_block(mean_ptr, rows, n_features)
                p = load_tile(inverse_ptr, rows, columns, n_features, n_features)
                y = tl.dot(z, p, y, input_precision="ieee", out_dtype=tl.float64)
            z = load_tile(points_ptr, others, columns, stop, n_features) - load_block(mean_ptr, columns, n_features)
            q += tl.sum(y * z, 1)
        tl.store(mahalanobis_sq_ptr + others * n_slots, q, mask=others < stop)


@triton.jit
def copy_statistics(
    from_mean_ptr,  # [D]
    from_inverse_ptr,  # [D, D]
    from_log_det_ptr,  # scalar
    mean_ptr,  # [D]
    inverse_ptr,  # [D, D]
    log_det_ptr,  # scalar
    n_features,
    BLOCK_D: tl.constexpr,
):
    """Mean, inverse and log-determinant from one place to another."""
    for i in range(0, n_features, BLOCK_D):
        rows = i + tl.arange(0, BLOCK_D)
        tl.store(mean_ptr + rows, load_block(from_mean_ptr, rows, n_features), mask=rows < n_features)
        for j in range(0, n_features, BLOCK_D):
            columns = j + tl.arange(0, BLOCK_D)
            tile = load_tile(from_inverse_ptr, rows, columns, n_features, n_features)
            store_tile(inverse_ptr, rows, columns, n_features, n_features, tile)
    tl.store(log_det_ptr, tl.load(from_log_det_ptr))


@triton.jit
def adopt_statistics(
    statistics_ptr,  # [D + 3, D]: w, m, log det S in the first element of a row, S^-1
    count,
    count_ptr,  # scalar
    mean_ptr,  # [D]
    inverse_ptr,  # [D, D]
    log_det_ptr,  # scalar
    mahalanobis_sq_ptr,  # [N], n_slots apart
    n_slots,
    start,
    stop,
    points_ptr,  # [N, D]
    n_features,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """The cluster takes a count and statistics from working memory, and distances that are computed from them."""
    from_mean_ptr, from_log_det_ptr = statistics_ptr + n_features, statistics_ptr + 2 * n_features
    from_inverse_ptr = statistics_ptr + 3 * n_features
    copy_statistics(
        from_mean_ptr, from_inverse_ptr, from_log_det_ptr, mean_ptr, inverse_ptr, log_det_ptr, n_features, BLOCK_D
    )
    # Products of square tiles take the fewest registers.
    fit_distances(
        start, stop, points_ptr, from_mean_ptr, from_inverse_ptr, mahalanobis_sq_ptr, n_features, n_slots, BLOCK_D,
        BLOCK_D, NUM_D_BLOCKS,
    )  # fmt: skip
    # WAR: all threads have read the count.
    tl.debug_barrier()
    tl.store(count_ptr, count)
    # RAW: the next move or update reads the statistics.
    tl.debug_barrier()
