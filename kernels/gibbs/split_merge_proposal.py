"""Proposals of split-merge moves inside the sweep kernel: anchors, launch state, restricted scan.

:mod:`fastdens.kernels.gibbs.split_merge` describes the move. Rows are those of the points of all models; counters
of random numbers count from the model's first row.
"""

from __future__ import annotations

from fastdens.kernels.counter_random_triton import uniform
from fastdens.kernels.gibbs import split_merge
from fastdens.kernels.gibbs.moves import load_block, load_tile
from fastdens.kernels.gibbs.split_merge_sides import (
    FIRST,
    SECOND,
    distance_from_side,
    empty_side,
    join_side,
    move_point_of_side,
    weigh_own_side,
    weigh_side,
)
from fastdens.kernels.optional_triton import tl, triton

_CANDIDATES = tl.constexpr(split_merge.CANDIDATES)
_NEARBY = tl.constexpr(split_merge.NEARBY)
_ALLOCATION = tl.constexpr(split_merge.ALLOCATION)
_SCAN = tl.constexpr(split_merge.SCAN)


@triton.jit
def log_sigmoid(x):
    """``log(1 / (1 + exp(-x)))``."""
    return tl.minimum(x, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def draw_anchors(
    stream,
    base,
    start,
    n_points,
    points_ptr,  # [N, D]
    prior_scale_ptr,  # [D]
    n_features,
    BLOCK_D: tl.constexpr,
):
    """Rows of two points: any, and any other or the nearest of some; twice the same where there is no other."""
    first = start + (uniform(stream, base) * n_points).to(tl.int64)
    n_candidates = tl.where(uniform(stream, base + _NEARBY) < 0.5, _CANDIDATES, 1)
    number = tl.arange(0, _CANDIDATES)
    rows = start + (uniform(stream, base + 1 + number) * n_points).to(tl.int64)
    distance_sq = tl.zeros([_CANDIDATES], tl.float64)
    for j in range(0, n_features, BLOCK_D):
        columns = j + tl.arange(0, BLOCK_D)
        x = load_block(points_ptr + first * n_features, columns, n_features)
        difference = load_tile(points_ptr, rows, columns, start + n_points, n_features) - x[None, :]
        scale = tl.load(prior_scale_ptr + columns, mask=columns < n_features, other=1.0)
        distance_sq += tl.sum(difference * difference / scale[None, :], 1)
    is_candidate = (number < n_candidates) & (rows != first)
    distance_sq = tl.where(is_candidate, distance_sq, float("inf"))
    is_nearest = is_candidate & (distance_sq == tl.min(distance_sq, 0))
    nearest = tl.min(tl.where(is_nearest, number, _CANDIDATES), 0)
    second = tl.sum(tl.where(number == nearest, rows, 0), 0)
    return first, tl.where(nearest == _CANDIDATES, first, second)


@triton.jit
def gather_others(
    first_anchor,
    second_anchor,
    a,
    b,
    n_points,
    order_ptr,  # [n]
    labels_ptr,  # [N]
    others_ptr,  # [n]
    BLOCK_N: tl.constexpr,
):
    """Rows of the points of clusters a and b without the anchors, in the order of the sweep, and their number."""
    n_others = tl.full([], 0, tl.int32)
    for first in range(0, n_points, BLOCK_N):
        positions = first + tl.arange(0, BLOCK_N)
        in_model = positions < n_points
        rows = tl.load(order_ptr + positions, mask=in_model, other=0)
        label = tl.load(labels_ptr + rows, mask=in_model, other=-1)
        is_other = ((label == a) | (label == b)) & (rows != first_anchor) & (rows != second_anchor)
        rank = tl.cumsum(is_other.to(tl.int32), 0)
        tl.store(others_ptr + n_others + rank - 1, rows, mask=is_other)
        n_others += tl.sum(is_other.to(tl.int32), 0)
    # RAW: the rows are read one by one.
    tl.debug_barrier()
    return n_others


@triton.jit
def open_sides(
    first_anchor,
    second_anchor,
    side_ptr,  # [N]
    points_ptr,  # [N, D]
    prior_scale_ptr,  # [D]
    prior_log_det,
    sides_ptr,  # [3, D + 3, D]
    side_counts_ptr,  # [3]
    n_features,
    kappa0,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """Each anchor opens a side."""
    for s in tl.range(2, disable_licm=True):
        anchor = tl.where(s == FIRST, first_anchor, second_anchor)
        empty_side(s, sides_ptr, side_counts_ptr, prior_scale_ptr, prior_log_det, n_features, BLOCK_D, NUM_D_BLOCKS)
        join_side(s, anchor, points_ptr, sides_ptr, side_counts_ptr, n_features, kappa0, BLOCK_D, NUM_D_BLOCKS)
        tl.store(side_ptr + anchor, s)


@triton.jit
def allocate_and_scan(
    stream,
    base,
    a,
    is_led,
    least,
    n_others,
    others_ptr,  # [n]
    side_ptr,  # [N]
    labels_ptr,  # [N]
    start,
    n_features,
    kappa0,
    nu0,
    points_ptr,  # [N, D]
    predictive_norm_ptr,  # [max n + 1]
    sides_ptr,  # [3, D + 3, D]
    side_counts_ptr,  # [3]
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """The launch state, a Gibbs scan from there, and the log-probability of the sides that points end on.

    In a first pass the points, which are on no side, join the sides one after the other: the launch state. The second
    is the scan. A scan that is led takes points of cluster a to the first side, the others to the second. It is given
    up with ``-inf`` as soon as the log-probability is under ``least``.
    """
    log_q = tl.full([], 0.0, tl.float64)
    for index in tl.range(2 * n_others, disable_licm=True):
        scans = index >= n_others
        if log_q >= least:
            row = tl.load(others_ptr + index % n_others).to(tl.int64)
            own = tl.load(side_ptr + row, mask=scans, other=-1)
            # The log-odds are those of the point's own side, or of the first.
            likely = tl.where(scans, own, FIRST)
            log_odds = tl.full([], 0.0, tl.float64)
            q_first, q_second = log_odds, log_odds
            is_precise = index >= 0
            for s in tl.range(2, disable_licm=True):
                q = distance_from_side(s, row, points_ptr, sides_ptr, n_features, BLOCK_D, NUM_D_BLOCKS)
                log_weight = weigh_side(s, q, sides_ptr, side_counts_ptr, predictive_norm_ptr, n_features, kappa0, nu0)
                log_weight_own, is_own_precise = weigh_own_side(
                    s, q, sides_ptr, side_counts_ptr, predictive_norm_ptr, n_features, kappa0, nu0
                )
                log_weight = tl.where(s == own, log_weight_own, log_weight)
                log_odds += tl.where(s == likely, log_weight, -log_weight)
                is_precise = is_precise & (is_own_precise | (s != own))
                q_first, q_second = tl.where(s == FIRST, q, q_first), tl.where(s == SECOND, q, q_second)
            log_u = tl.log(uniform(stream, base + tl.where(scans, _SCAN, _ALLOCATION) + row - start))
            is_likely = log_u < log_sigmoid(log_odds)
            if scans:
                goal = tl.where(tl.load(labels_ptr + row) == a, FIRST, SECOND)
                is_likely = tl.where(is_led, goal == own, is_likely)
                log_step = log_sigmoid(tl.where(is_likely, log_odds, -log_odds))
                # A point stays on the side that it carries: a scan that is led elsewhere cannot end on its label.
                log_stay = tl.where(is_led & (goal != own), float("-inf"), 0.0)
                log_q += tl.where(is_precise, log_step, log_stay)
                is_likely = is_likely | (is_precise == 0)
            chosen = tl.where(is_likely, likely, 1 - likely)
            if chosen != own:
                # No hazard: barriers lie behind the reading of the point's side, and before its next.
                tl.store(side_ptr + row, chosen)
                # The point leaves its side, if it is on one, then joins the other.
                for joins in tl.range(tl.where(scans, 0, 1), 2, disable_licm=True):
                    s = tl.where(joins == 1, chosen, own)
                    q = tl.where(s == FIRST, q_first, q_second)
                    move_point_of_side(
                        joins, s, q, row, points_ptr, sides_ptr, side_counts_ptr, n_features, kappa0, BLOCK_D,
                        NUM_D_BLOCKS,
                    )  # fmt: skip
    return tl.where(log_q >= least, log_q, float("-inf"))
