"""Single-site updates inside the sweep kernel: weights of the clusters for a point, a draw, a move if need be.

A point that stays changes nothing. So the next TURNS points of the scan are weighed side by side under the same state,
and all draws hold up to the first that moves a point; that move is made, and the scan goes on behind it. It is the
chain that takes one turn after the other, bit for bit: the weight of one cluster for one point is formed alone, and
weights are added as integers, whose sums do not depend on how the threads share the work.

A slot without points is free and has no weight. Slots are handled BLOCK_S at a time.
"""

from __future__ import annotations

from fastdens.kernels.counter_random_triton import uniform
from fastdens.kernels.gibbs.moves import adopt_statistics, open_cluster, transfer_point
from fastdens.kernels.gibbs.refit import weigh_without
from fastdens.kernels.gibbs.status import NEEDS_REFIT, NEEDS_SLOTS, RUNNING, SINGULAR
from fastdens.kernels.optional_triton import tl, triton

# A point carries its cluster where the closed form of the cluster without it has lost six digits.
SMALLEST_RATIO = tl.constexpr(1e-6)

# The largest weight of a point as an integer: the sum of 2^17 of them fits in 63 bits.
LARGEST_WEIGHT = tl.constexpr(float(1 << 46))


@triton.jit
def weigh(counts, mahalanobis_sq, log_det, predictive_norm_ptr, kappa0, nu0):
    """Log-weights of clusters that do not hold the point, ``log n t(x)``; none without points."""
    kappa = kappa0 + counts
    log_weight = tl.load(predictive_norm_ptr + counts) - 0.5 * (
        log_det + (nu0 + counts + 1.0) * tl.log(1.0 + kappa / (kappa + 1.0) * mahalanobis_sq)
    )
    return tl.where(counts > 0, log_weight, float("-inf"))


@triton.jit
def weigh_own(count, mahalanobis_sq, log_det, predictive_norm_ptr, kappa0, nu0):
    """Log-weight of the point's own cluster without the point, in closed form, and whether that is precise.

    The ratio is that of the determinants of S without the point and with it, up to a factor: where it is small, the
    point carries its cluster, and the difference has lost its digits.
    """
    kappa = kappa0 + count
    is_singleton = count == 1
    ratio = 1.0 - tl.where(is_singleton, 0.0, kappa / (kappa - 1.0) * mahalanobis_sq)
    is_precise = ratio > SMALLEST_RATIO
    log_ratio = tl.log(tl.where(is_precise, ratio, 1.0))
    log_weight = tl.load(predictive_norm_ptr + count - 1) - 0.5 * (log_det - (nu0 + count - 1.0) * log_ratio)
    return tl.where(is_singleton, float("-inf"), log_weight), is_precise


@triton.jit
def lowest_free(counts_ptr, n_slots, BLOCK_S: tl.constexpr):
    """The lowest free slot, ``n_slots`` if there is none."""
    lowest = tl.full([], 0, tl.int32) + n_slots
    for first in range(0, n_slots, BLOCK_S):
        slots = first + tl.arange(0, BLOCK_S)
        counts = tl.load(counts_ptr + slots, mask=slots < n_slots, other=1)
        lowest = tl.minimum(lowest, tl.min(tl.where(counts == 0, slots, n_slots), 0))
    return lowest


@triton.jit
def weigh_block(
    slots,  # int32 [BLOCK_S]
    rows,  # int64 [TURNS]
    own,  # int64 [TURNS]: slots of the points' own clusters
    log_weight_own,  # [TURNS]
    predictive_norm_ptr,  # [max n + 1]
    counts_ptr,  # [S]
    log_det_ptr,  # [S]
    mahalanobis_sq_ptr,  # [N, S]
    n_slots,
    kappa0,
    nu0,
):
    """Log-weights of some slots for some points, [TURNS, BLOCK_S]."""
    counts = tl.load(counts_ptr + slots, mask=slots < n_slots, other=0)
    # The distances of free slots are those of clusters that are gone.
    is_used = counts > 0
    log_det = tl.load(log_det_ptr + slots, mask=is_used, other=0.0)
    q = tl.load(mahalanobis_sq_ptr + rows[:, None] * n_slots + slots[None, :], mask=is_used[None, :], other=0.0)
    log_weight = weigh(counts[None, :], q, log_det[None, :], predictive_norm_ptr, kappa0, nu0)
    return tl.where(slots[None, :] == own[:, None], log_weight_own[:, None], log_weight)


@triton.jit
def as_integer(log_weight, top, beta):
    """The weight to the power beta beside that of ``top``, which is LARGEST_WEIGHT; none where it is NaN."""
    weight = tl.exp(beta * (log_weight - top))
    return (tl.where(weight > 0.0, weight, 0.0) * LARGEST_WEIGHT).to(tl.int64)


@triton.jit
def draw(
    stream,
    rows,  # int64 [TURNS]
    start,
    own,  # int64 [TURNS]
    log_weight_own,  # [TURNS]
    log_weight_new,  # [TURNS]
    beta,
    predictive_norm_ptr,  # [max n + 1]
    counts_ptr,  # [S]
    log_det_ptr,  # [S]
    mahalanobis_sq_ptr,  # [N, S]
    n_slots,
    kappa0,
    nu0,
    BLOCK_S: tl.constexpr,
):
    """For each point a slot with probability proportional to its weight to the power beta, or S for a new cluster.

    Three passes over the slots tell the largest weight, the sum and the draw. Each forms the weights anew, which costs
    less than memory for all of them would, and by the same code, which keeps that short.
    """
    u = uniform(stream, rows - start)
    top = log_weight_new
    total, below, target = rows * 0, rows * 0, rows * 0
    drawn = total.to(tl.int32) + n_slots
    n_blocks = tl.cdiv(n_slots, BLOCK_S)
    for index in tl.range(3 * n_blocks, disable_licm=True):
        slots = index % n_blocks * BLOCK_S + tl.arange(0, BLOCK_S)
        log_weight = weigh_block(
            slots, rows, own, log_weight_own, predictive_norm_ptr, counts_ptr, log_det_ptr, mahalanobis_sq_ptr,
            n_slots, kappa0, nu0,
        )  # fmt: skip
        if index < n_blocks:
            top = tl.maximum(top, tl.max(log_weight, 1))
        else:
            weight = as_integer(log_weight, top[:, None], beta)
            if index < 2 * n_blocks:
                total += tl.sum(weight, 1)
                target = (u * (total + as_integer(log_weight_new, top, beta)).to(tl.float64)).to(tl.int64)
            else:
                is_reached = target[:, None] < below[:, None] + tl.cumsum(weight, 1)
                drawn = tl.minimum(drawn, tl.min(tl.where(is_reached, slots[None, :], n_slots), 1))
                below += tl.sum(weight, 1)
    return drawn


@triton.jit
def update_points(
    step,
    n_points,
    order_ptr,  # [n]
    stream,
    beta,
    start,
    points_ptr,  # [N, D]
    labels_ptr,  # [N]
    alpha_ptr,  # scalar
    prior_mahalanobis_sq_ptr,  # [N]
    prior_log_prob_ptr,  # [N]
    prior_scale_ptr,  # [D]
    prior_log_det_ptr,  # scalar
    predictive_norm_ptr,  # [max n + 1]
    counts_ptr,  # [S]
    mean_ptr,  # [S, D]
    inverse_ptr,  # [S, D, D]
    log_det_ptr,  # [S]
    mahalanobis_sq_ptr,  # [N, S]
    workspace_ptr,  # [D + 4, D]
    n_features,
    n_slots,
    kappa0,
    nu0,
    REFIT: tl.constexpr,
    TURNS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """Draw clusters of the next points of the scan, up to the first that moves, and move that one.

    Returns the number of updates made and the chain's status. An update that cannot be made changes nothing.
    """
    stop = start + n_points
    turns = tl.arange(0, TURNS)
    is_turn = step + turns < n_points
    rows = tl.load(order_ptr + step + turns, mask=is_turn, other=0).to(tl.int64)
    rows = tl.where(is_turn, rows, start)
    old = tl.load(labels_ptr + rows).to(tl.int64)
    count_old = tl.load(counts_ptr + old)
    q_old, log_det_old = tl.load(mahalanobis_sq_ptr + rows * n_slots + old), tl.load(log_det_ptr + old)
    log_weight_own, is_precise = weigh_own(count_old, q_old, log_det_old, predictive_norm_ptr, kappa0, nu0)
    is_weighed = is_precise
    if REFIT:
        # One point at a time.
        tl.static_assert(TURNS == 1)
        is_carried = tl.sum(is_precise.to(tl.int32), 0) == 0
        if is_carried:
            log_weight_own = tl.zeros([TURNS], tl.float64) + weigh_without(
                tl.sum(rows, 0),
                tl.sum(old, 0),
                start,
                stop,
                points_ptr,
                labels_ptr,
                prior_scale_ptr,
                predictive_norm_ptr,
                workspace_ptr + n_features,
                n_features,
                kappa0,
                nu0,
                BLOCK_D,
                NUM_D_BLOCKS,
            )
        is_weighed = log_weight_own == log_weight_own
    log_weight_new = tl.log(tl.load(alpha_ptr)) + tl.load(prior_log_prob_ptr + rows)
    drawn = draw(
        stream, rows, start, old, tl.where(is_weighed, log_weight_own, float("-inf")), log_weight_new, beta,
        predictive_norm_ptr, counts_ptr, log_det_ptr, mahalanobis_sq_ptr, n_slots, kappa0, nu0, BLOCK_S,
    )  # fmt: skip
    # A singleton that draws a new cluster stays where it is.
    stays = (drawn == old) | ((drawn == n_slots) & (count_old == 1))
    ends = is_turn & ((stays == 0) | (is_weighed == 0))
    first_end = tl.min(tl.where(ends, turns, TURNS), 0)
    n_done = tl.minimum(tl.cast(first_end, tl.int64), n_points - step)
    status = tl.full([], RUNNING, tl.int32)
    if first_end < TURNS:
        is_first = turns == first_end
        row, cluster = tl.sum(tl.where(is_first, rows, 0), 0), tl.sum(tl.where(is_first, old, 0), 0)
        new = tl.sum(tl.where(is_first, drawn, 0), 0)
        is_new = new == n_slots
        if is_new:
            new = lowest_free(counts_ptr, n_slots, BLOCK_S)
            status = tl.where(new == n_slots, NEEDS_SLOTS, status)
        new = new.to(tl.int64)
        is_unweighed = tl.max((is_first & (is_weighed == 0)).to(tl.int32), 0) > 0
        status = tl.where(is_unweighed, SINGULAR if REFIT else NEEDS_REFIT, status)
        # WAR: all threads have read labels and statistics before any of them changes.
        tl.debug_barrier()
        if status == RUNNING:
            if is_new:
                open_cluster(
                    start,
                    stop,
                    prior_mahalanobis_sq_ptr,
                    prior_scale_ptr,
                    tl.load(prior_log_det_ptr),
                    mean_ptr + new * n_features,
                    inverse_ptr + new * n_features * n_features,
                    log_det_ptr + new,
                    mahalanobis_sq_ptr + new,
                    n_features,
                    n_slots,
                    BLOCK_N,
                    BLOCK_D,
                    NUM_D_BLOCKS,
                )
            # No hazard: barriers of the transfer lie between this and the next reading of labels.
            tl.store(labels_ptr + row, new.to(tl.int32))
            transfer_point(
                row,
                cluster,
                new,
                start,
                stop,
                points_ptr,
                counts_ptr,
                mean_ptr,
                inverse_ptr,
                log_det_ptr,
                mahalanobis_sq_ptr,
                workspace_ptr,
                n_features,
                n_slots,
                kappa0,
                BLOCK_N,
                BLOCK_D,
                NUM_D_BLOCKS,
            )
            if REFIT:
                is_carried = tl.sum(is_precise.to(tl.int32), 0) == 0
                if is_carried:
                    # In place of what rounding left of the cluster: the statistics that weighed it without the point.
                    adopt_statistics(
                        workspace_ptr + n_features,
                        tl.load(counts_ptr + cluster),
                        counts_ptr + cluster,
                        mean_ptr + cluster * n_features,
                        inverse_ptr + cluster * n_features * n_features,
                        log_det_ptr + cluster,
                        mahalanobis_sq_ptr + cluster,
                        n_slots,
                        start,
                        stop,
                        points_ptr,
                        n_features,
                        BLOCK_D,
                        NUM_D_BLOCKS,
                    )
            n_done += 1
    return n_done, status
