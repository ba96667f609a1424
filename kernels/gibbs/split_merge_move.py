"""A split-merge move inside the sweep kernel; :mod:`fastdens.kernels.gibbs.split_merge` describes it."""

from __future__ import annotations

from fastdens.kernels.counter_random_triton import uniform
from fastdens.kernels.gibbs import split_merge
from fastdens.kernels.gibbs.log_joint import log_marginal
from fastdens.kernels.gibbs.moves import adopt_statistics, copy_statistics
from fastdens.kernels.gibbs.single_site import lowest_free
from fastdens.kernels.gibbs.split_merge_proposal import (
    allocate_and_scan,
    draw_anchors,
    gather_others,
    open_sides,
)
from fastdens.kernels.gibbs.split_merge_sides import FIRST, SECOND, UNION, join_side, statistics_of_side
from fastdens.kernels.gibbs.status import NEEDS_SLOTS, RUNNING
from fastdens.kernels.optional_triton import tl, triton

_ACCEPTANCE = tl.constexpr(split_merge.ACCEPTANCE)
_MOVE = tl.constexpr(split_merge.MOVE)


@triton.jit
def fit_union(
    first_anchor,
    second_anchor,
    a,
    b,
    n_others,
    others_ptr,  # [n]
    points_ptr,  # [N, D]
    labels_ptr,  # [N]
    counts_ptr,  # [S]
    mean_ptr,  # [S, D]
    inverse_ptr,  # [S, D, D]
    log_det_ptr,  # [S]
    sides_ptr,  # [3, D + 3, D]
    side_counts_ptr,  # [3]
    n_features,
    kappa0,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """Statistics of two clusters together: the points of the smaller join those of the larger."""
    a_is_larger = tl.load(counts_ptr + a) >= tl.load(counts_ptr + b)
    larger, smaller = tl.where(a_is_larger, a, b), tl.where(a_is_larger, b, a)
    _, union_mean_ptr, union_log_det_ptr, union_inverse_ptr = statistics_of_side(UNION, sides_ptr, n_features)
    copy_statistics(
        mean_ptr + larger * n_features, inverse_ptr + larger * n_features * n_features, log_det_ptr + larger,
        union_mean_ptr, union_inverse_ptr, union_log_det_ptr, n_features, BLOCK_D,
    )  # fmt: skip
    tl.store(side_counts_ptr + UNION, tl.load(counts_ptr + larger))
    # RAW: the point that joins reads the statistics in other layouts than they were stored in.
    tl.debug_barrier()
    # The anchor of the smaller cluster is the last of its points.
    for index in tl.range(n_others + 1, disable_licm=True):
        anchor = tl.where(a_is_larger, second_anchor, first_anchor)
        other = tl.load(others_ptr + index, mask=index < n_others, other=0).to(tl.int64)
        row = tl.where(index < n_others, other, anchor)
        if tl.load(labels_ptr + row) == smaller:
            join_side(UNION, row, points_ptr, sides_ptr, side_counts_ptr, n_features, kappa0, BLOCK_D, NUM_D_BLOCKS)


@triton.jit
def log_marginal_of_side(s, sides_ptr, side_counts_ptr, marginal_norm_ptr, n_features, nu0):
    """The factor of a side in log p(points, labels)."""
    _, _, log_det_ptr, _ = statistics_of_side(s, sides_ptr, n_features)
    return log_marginal(tl.load(side_counts_ptr + s), tl.load(log_det_ptr), marginal_norm_ptr, nu0)


@triton.jit
def relabel(
    a,
    b,
    new,
    start,
    stop,
    labels_ptr,  # [N]
    side_ptr,  # [N]
    BLOCK_N: tl.constexpr,
):
    """Labels of points that change their cluster: the second side of ``a = b`` becomes ``new``, or b becomes a."""
    for first in range(start, stop, BLOCK_N):
        rows = first + tl.arange(0, BLOCK_N)
        label = tl.load(labels_ptr + rows, mask=rows < stop, other=-1)
        side = tl.load(side_ptr + rows, mask=rows < stop, other=0)
        changes = (label == b) & ((a != b) | (side == SECOND))
        # No hazard: a thread stores where it loaded.
        tl.store(labels_ptr + rows, tl.where(a == b, new, a).to(tl.int32), mask=changes)


@triton.jit
def split_or_merge(
    stream,
    move,
    order_ptr,  # [n]
    start,
    stop,
    points_ptr,  # [N, D]
    labels_ptr,  # [N]
    alpha_ptr,  # scalar
    prior_scale_ptr,  # [D]
    prior_log_det_ptr,  # scalar
    predictive_norm_ptr,  # [max n + 1]
    marginal_norm_ptr,  # [max n + 1]
    mahalanobis_sq_ptr,  # [N, S]
    counts_ptr,  # [S]
    mean_ptr,  # [S, D]
    inverse_ptr,  # [S, D, D]
    log_det_ptr,  # [S]
    others_ptr,  # [n]
    side_ptr,  # [N]
    side_counts_ptr,  # [3]
    sides_ptr,  # [3, D + 3, D]
    out_split_merge_ptr,  # [4]: splits proposed and accepted, merges likewise
    n_features,
    n_slots,
    kappa0,
    nu0,
    BLOCK_S: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """One move; the chain's status. Unless it runs on, nothing changed."""
    n_points = stop - start
    base = move * _MOVE
    new = lowest_free(counts_ptr, n_slots, BLOCK_S).to(tl.int64)
    i, j = draw_anchors(stream, base, start, n_points, points_ptr, prior_scale_ptr, n_features, BLOCK_D)
    a, b = tl.load(labels_ptr + i).to(tl.int64), tl.load(labels_ptr + j).to(tl.int64)
    is_split = a == b
    status = tl.where((i != j) & is_split & (new == n_slots), NEEDS_SLOTS, RUNNING)
    if (i != j) & (status == RUNNING):
        n_others = gather_others(i, j, a, b, n_points, order_ptr, labels_ptr, others_ptr, BLOCK_N)
        log_u = tl.log(uniform(stream, base + _ACCEPTANCE))
        # Log p(two clusters) - log p(one).
        log_ratio = tl.log(tl.load(alpha_ptr)) + 0.5 * nu0 * tl.load(prior_log_det_ptr)
        if is_split == 0:
            fit_union(
                i, j, a, b, n_others, others_ptr, points_ptr, labels_ptr, counts_ptr, mean_ptr, inverse_ptr,
                log_det_ptr, sides_ptr, side_counts_ptr, n_features, kappa0, BLOCK_D, NUM_D_BLOCKS,
            )  # fmt: skip
            log_ratio += log_marginal(tl.load(counts_ptr + a), tl.load(log_det_ptr + a), marginal_norm_ptr, nu0)
            log_ratio += log_marginal(tl.load(counts_ptr + b), tl.load(log_det_ptr + b), marginal_norm_ptr, nu0)
            log_ratio -= log_marginal_of_side(UNION, sides_ptr, side_counts_ptr, marginal_norm_ptr, n_features, nu0)
        is_accepted = log_u > 0.0
        # The log-probability of the way back is at most zero: most merges are rejected before it is known.
        if is_split | (log_u < -log_ratio):
            open_sides(
                i, j, side_ptr, points_ptr, prior_scale_ptr, tl.load(prior_log_det_ptr), sides_ptr, side_counts_ptr,
                n_features, kappa0, BLOCK_D, NUM_D_BLOCKS,
            )  # fmt: skip
            least = tl.where(is_split, float("-inf"), log_u + log_ratio)
            log_q = allocate_and_scan(
                stream, base, a, is_split == 0, least, n_others, others_ptr, side_ptr, labels_ptr, start, n_features,
                kappa0, nu0, points_ptr, predictive_norm_ptr, sides_ptr, side_counts_ptr, BLOCK_D, NUM_D_BLOCKS,
            )  # fmt: skip
            if is_split:
                for s in range(2):
                    log_ratio += log_marginal_of_side(s, sides_ptr, side_counts_ptr, marginal_norm_ptr, n_features, nu0)
                log_ratio -= log_marginal(tl.load(counts_ptr + a), tl.load(log_det_ptr + a), marginal_norm_ptr, nu0)
                is_accepted = log_u < log_ratio - log_q
            else:
                is_accepted = log_u < log_q - log_ratio
        if is_accepted:
            # WAR: all threads have read labels and statistics of the clusters. RAW: sides are read in other layouts.
            tl.debug_barrier()
            relabel(a, b, new, start, stop, labels_ptr, side_ptr, BLOCK_N)
            # Cluster a takes the first side and the new one the second, or a takes the union.
            first_side, last_side = tl.where(is_split, FIRST, UNION), tl.where(is_split, SECOND, UNION)
            for s in tl.range(first_side, last_side + 1, disable_licm=True):
                k = tl.where(s == SECOND, new, a)
                statistics_ptr, _, _, _ = statistics_of_side(s, sides_ptr, n_features)
                adopt_statistics(
                    statistics_ptr, tl.load(side_counts_ptr + s), counts_ptr + k, mean_ptr + k * n_features,
                    inverse_ptr + k * n_features * n_features, log_det_ptr + k, mahalanobis_sq_ptr + k, n_slots,
                    start, stop, points_ptr, n_features, BLOCK_D, NUM_D_BLOCKS,
                )  # fmt: skip
            if is_split == 0:
                tl.store(counts_ptr + b, tl.full([], 0, tl.int64))
        kind = tl.arange(0, 4)
        proposed = tl.where(is_split, 0, 2)
        counted = tl.where(kind == proposed, 1, tl.where(kind == proposed + 1, is_accepted.to(tl.int32), 0))
        # No hazard: a thread stores where it loaded.
        tl.store(out_split_merge_ptr + kind, tl.load(out_split_merge_ptr + kind) + counted)
        # RAW: the next update or move reads labels and counts. WAR: the next move overwrites sides and others.
        tl.debug_barrier()
    return status
