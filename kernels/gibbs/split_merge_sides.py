"""Statistics of a split-merge proposal inside the sweep kernel: its two sides, and the union of both.

Side s has its count in ``side_counts_ptr[s]`` and the rest in ``sides_ptr[s]``, [D + 3, D]: w, m, log det S in the
first element of a row, S^-1. Barriers are explained as in :mod:`.moves`.
"""

from __future__ import annotations

from fastdens.kernels.gibbs.moves import distance_to_mean, empty_statistics, update_statistics
from fastdens.kernels.gibbs.single_site import weigh, weigh_own
from fastdens.kernels.optional_triton import tl, triton

# The side of the first anchor, that of the second, and the union of both.
FIRST = tl.constexpr(0)
SECOND = tl.constexpr(1)
UNION = tl.constexpr(2)


@triton.jit
def statistics_of_side(s, sides_ptr, n_features):
    """Pointers to w, m, log det S and S^-1 of a side."""
    side_ptr = sides_ptr + s * (n_features + 3) * n_features
    return side_ptr, side_ptr + n_features, side_ptr + 2 * n_features, side_ptr + 3 * n_features


@triton.jit
def empty_side(
    s,
    sides_ptr,  # [3, D + 3, D]
    side_counts_ptr,  # [3]
    prior_scale_ptr,  # [D]
    prior_log_det,
    n_features,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """Give a side the statistics of no points."""
    _, mean_ptr, log_det_ptr, inverse_ptr = statistics_of_side(s, sides_ptr, n_features)
    empty_statistics(
        prior_scale_ptr, prior_log_det, mean_ptr, inverse_ptr, log_det_ptr, n_features, BLOCK_D, NUM_D_BLOCKS
    )
    tl.store(side_counts_ptr + s, tl.full([], 0, tl.int64))
    # RAW: the point that joins reads the statistics in other layouts than they were stored in.
    tl.debug_barrier()


@triton.jit
def distance_from_side(
    s,
    row,
    points_ptr,  # [N, D]
    sides_ptr,  # [3, D + 3, D]
    n_features,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """Squared distance of a point from a side, whose w is that of the point from now on."""
    w_ptr, mean_ptr, _, inverse_ptr = statistics_of_side(s, sides_ptr, n_features)
    distance_sq, _ = distance_to_mean(row, points_ptr, mean_ptr, inverse_ptr, w_ptr, n_features, BLOCK_D, NUM_D_BLOCKS)
    # RAW: w is read in other layouts than it was stored in. WAR: mean and inverse are about to change.
    tl.debug_barrier()
    return distance_sq


@triton.jit
def move_point_of_side(
    joins,
    s,
    distance_sq,
    row,
    points_ptr,  # [N, D]
    sides_ptr,  # [3, D + 3, D]
    side_counts_ptr,  # [3]
    n_features,
    kappa0,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """The point of the last :func:`distance_from_side` joins the side (``joins`` 1) or leaves it (0)."""
    w_ptr, mean_ptr, log_det_ptr, inverse_ptr = statistics_of_side(s, sides_ptr, n_features)
    sign = 2 * tl.cast(joins, tl.int64) - 1
    update_statistics(
        sign, distance_sq, row, points_ptr, side_counts_ptr + s, mean_ptr, inverse_ptr, log_det_ptr, w_ptr, n_features,
        kappa0, BLOCK_D, NUM_D_BLOCKS,
    )  # fmt: skip
    # RAW: the next distance reads the statistics. WAR: it overwrites w.
    tl.debug_barrier()


@triton.jit
def join_side(
    s,
    row,
    points_ptr,  # [N, D]
    sides_ptr,  # [3, D + 3, D]
    side_counts_ptr,  # [3]
    n_features,
    kappa0,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """A point joins a side."""
    distance_sq = distance_from_side(s, row, points_ptr, sides_ptr, n_features, BLOCK_D, NUM_D_BLOCKS)
    move_point_of_side(
        1, s, distance_sq, row, points_ptr, sides_ptr, side_counts_ptr, n_features, kappa0, BLOCK_D, NUM_D_BLOCKS
    )


@triton.jit
def weigh_side(s, distance_sq, sides_ptr, side_counts_ptr, predictive_norm_ptr, n_features, kappa0, nu0):
    """Log-weight ``log n t(x)`` of a side that does not hold the point."""
    _, _, log_det_ptr, _ = statistics_of_side(s, sides_ptr, n_features)
    count = tl.load(side_counts_ptr + s)
    return weigh(count, distance_sq, tl.load(log_det_ptr), predictive_norm_ptr, kappa0, nu0)


@triton.jit
def weigh_own_side(s, distance_sq, sides_ptr, side_counts_ptr, predictive_norm_ptr, n_features, kappa0, nu0):
    """Log-weight of the point's own side without the point, and whether that is precise."""
    _, _, log_det_ptr, _ = statistics_of_side(s, sides_ptr, n_features)
    count = tl.load(side_counts_ptr + s)
    return weigh_own(count, distance_sq, tl.load(log_det_ptr), predictive_norm_ptr, kappa0, nu0)
