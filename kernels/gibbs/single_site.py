"""The single-site update inside the sweep kernel: weights of the clusters for a point, a draw, a move if need be.

Vectors over clusters have SLOTS elements; a slot without points is free and has no weight.
"""

from __future__ import annotations

from fastdens.kernels.counter_random_triton import uniform
from fastdens.kernels.gibbs.moves import adopt_statistics, move_point, open_cluster
from fastdens.kernels.gibbs.refit import weigh_without
from fastdens.kernels.gibbs.status import NEEDS_REFIT, NEEDS_SLOTS, RUNNING, SINGULAR
from fastdens.kernels.optional_triton import tl, triton

# A point carries its cluster where the closed form of the cluster without it has lost six digits.
SMALLEST_RATIO = tl.constexpr(1e-6)


@triton.jit
def weigh(counts, mahalanobis_sq, log_det, predictive_norm_ptr, kappa0, nu0):
    """Log-weights [SLOTS] of clusters that do not hold the point, ``log n t(x)``."""
    kappa = kappa0 + counts
    # The distances of free slots are those of clusters that are gone.
    q = tl.where(counts > 0, mahalanobis_sq, 0.0)
    log_weight = tl.load(predictive_norm_ptr + counts) - 0.5 * (
        log_det + (nu0 + counts + 1.0) * tl.log(1.0 + kappa / (kappa + 1.0) * q)
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
def lowest_free(counts, SLOTS: tl.constexpr):
    """The lowest free slot, SLOTS if there is none."""
    return tl.min(tl.where(counts == 0, tl.arange(0, SLOTS), SLOTS), 0)


@triton.jit
def draw(stream, counter, log_weight, log_weight_new, beta, SLOTS: tl.constexpr):
    """A slot with probability proportional to its weight to the power beta, or SLOTS for a new cluster."""
    top = tl.maximum(tl.max(log_weight, 0), log_weight_new)
    log_weight = beta * (log_weight - top)
    log_weight_new = beta * (log_weight_new - top)
    # Next to the largest weight, anything smaller than this is lost in rounding.
    weight = tl.where(log_weight > -45.0, tl.exp(log_weight), 0.0)
    weight_new = tl.where(log_weight_new > -45.0, tl.exp(log_weight_new), 0.0)
    target = uniform(stream, counter) * (tl.sum(weight, 0) + weight_new)
    return tl.min(tl.where(target < tl.cumsum(weight, 0), tl.arange(0, SLOTS), SLOTS), 0)


@triton.jit
def update_point(
    row,
    stream,
    beta,
    start,
    stop,
    points_ptr,  # [N, D]
    labels_ptr,  # [N]
    alpha_ptr,  # scalar
    prior_mahalanobis_sq_ptr,  # [N]
    prior_log_prob_ptr,  # [N]
    prior_scale_ptr,  # [D]
    prior_log_det_ptr,  # scalar
    predictive_norm_ptr,  # [max n + 1]
    counts_ptr,  # [SLOTS]
    mean_ptr,  # [SLOTS, D]
    inverse_ptr,  # [SLOTS, D, D]
    log_det_ptr,  # [SLOTS]
    mahalanobis_sq_ptr,  # [N, SLOTS]
    workspace_ptr,  # [D + 3, D]
    n_features,
    kappa0,
    nu0,
    SLOTS: tl.constexpr,
    REFIT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """Draw the cluster of a point, and move the point there; the chain's status. Unless it runs on, nothing changed."""
    slots = tl.arange(0, SLOTS)
    old = tl.load(labels_ptr + row).to(tl.int64)
    count_old = tl.load(counts_ptr + old)
    is_singleton = count_old == 1
    counts = tl.load(counts_ptr + slots)
    q, log_det = tl.load(mahalanobis_sq_ptr + row * SLOTS + slots), tl.load(log_det_ptr + slots)
    log_weight = weigh(counts, q, log_det, predictive_norm_ptr, kappa0, nu0)
    q_own, log_det_own = tl.load(mahalanobis_sq_ptr + row * SLOTS + old), tl.load(log_det_ptr + old)
    log_weight_own, is_precise = weigh_own(count_old, q_own, log_det_own, predictive_norm_ptr, kappa0, nu0)
    status = tl.full([], RUNNING, tl.int32)
    if REFIT:
        if is_precise == 0:
            log_weight_own = weigh_without(
                row,
                old,
                start,
                stop,
                points_ptr,
                labels_ptr,
                prior_scale_ptr,
                predictive_norm_ptr,
                workspace_ptr,
                n_features,
                kappa0,
                nu0,
                BLOCK_N,
                BLOCK_D,
                NUM_D_BLOCKS,
            )
            status = tl.where(log_weight_own == log_weight_own, RUNNING, SINGULAR)
    else:
        status = tl.where(is_precise, RUNNING, NEEDS_REFIT)
        # Known at compile time: the update goes on only if it is.
        is_precise = True
    log_weight = tl.where(slots == old, log_weight_own, log_weight)
    log_weight_new = tl.log(tl.load(alpha_ptr)) + tl.load(prior_log_prob_ptr + row)
    drawn = draw(stream, row - start, log_weight, log_weight_new, beta, SLOTS)
    is_new = drawn == SLOTS
    # A singleton that draws a new cluster stays where it is.
    stays = (drawn == old) | (is_new & is_singleton)
    new = tl.where(is_new, lowest_free(counts, SLOTS), drawn).to(tl.int64)
    status = tl.where((status == RUNNING) & (stays == 0) & (new == SLOTS), NEEDS_SLOTS, status)
    # WAR: all threads have read labels and statistics before any of them changes.
    tl.debug_barrier()
    if (stays == 0) & (status == RUNNING):
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
                SLOTS,
                BLOCK_N,
                BLOCK_D,
                NUM_D_BLOCKS,
            )
        tl.store(labels_ptr + row, new.to(tl.int32))
        if is_singleton:
            tl.store(counts_ptr + old, count_old * 0)
        # RAW: counts and labels are read next.
        tl.debug_barrier()
        # The point leaves its cluster, unless that is gone, then joins the other.
        for move in range(is_singleton.to(tl.int32), 2):
            joins = tl.cast(move, tl.int64)
            cluster = tl.where(joins == 1, new, old)
            if (joins == 1) | is_precise:
                move_point(
                    (2 * joins - 1).to(tl.float64),
                    row,
                    start,
                    stop,
                    points_ptr,
                    counts_ptr + cluster,
                    mean_ptr + cluster * n_features,
                    inverse_ptr + cluster * n_features * n_features,
                    log_det_ptr + cluster,
                    mahalanobis_sq_ptr + cluster,
                    workspace_ptr,
                    n_features,
                    SLOTS,
                    kappa0,
                    BLOCK_N,
                    BLOCK_D,
                    NUM_D_BLOCKS,
                )
            elif REFIT:
                # The statistics that weighed the cluster without the point.
                adopt_statistics(
                    workspace_ptr,
                    tl.load(counts_ptr + cluster) - 1,
                    counts_ptr + cluster,
                    mean_ptr + cluster * n_features,
                    inverse_ptr + cluster * n_features * n_features,
                    log_det_ptr + cluster,
                    mahalanobis_sq_ptr + cluster,
                    SLOTS,
                    start,
                    stop,
                    points_ptr,
                    n_features,
                    BLOCK_D,
                    NUM_D_BLOCKS,
                )
    return status
