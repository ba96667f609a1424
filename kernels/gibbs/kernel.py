"""The sweep kernel: a program is one chain of one model and does all the sweeps of a launch.

Statistics of the chain's clusters lie in device memory: inverse scale matrices, and the squared Mahalanobis distance of
every point of the model from every cluster. A slot without points is free.
"""

from __future__ import annotations

from typing import NamedTuple

from fastdens.kernels.counter_random_triton import stream_of
from fastdens.kernels.gibbs.concentration import resample_concentration
from fastdens.kernels.gibbs.moves import move_point, open_cluster
from fastdens.kernels.gibbs.refit import refit_without, weigh_without
from fastdens.kernels.gibbs.single_site import draw, weigh, weigh_own
from fastdens.kernels.optional_triton import tl, triton

# Status of a chain. One that is not done stands before the single-site update that it cannot make: no slot is free, the
# variant of the kernel that refits clusters has to make it, or a scale matrix has lost its definiteness in rounding.
RUNNING = tl.constexpr(0)
DONE = tl.constexpr(1)
NEEDS_SLOTS = tl.constexpr(2)
NEEDS_REFIT = tl.constexpr(3)
SINGULAR = tl.constexpr(4)

# A point carries its cluster where the closed form of the cluster without it has lost six digits.
SMALLEST_RATIO = tl.constexpr(1e-6)


@triton.jit
def log_joint(counts, log_det, marginal_norm_ptr, prior_log_det, nu0):
    """Log p(points, labels) without the factors of alpha, and the number of clusters."""
    is_used = counts > 0
    n_clusters = tl.sum(is_used.to(tl.int32), 0)
    terms = tl.load(marginal_norm_ptr + counts) - 0.5 * (nu0 + counts) * log_det
    prior_terms = 0.5 * n_clusters.to(tl.float64) * nu0 * prior_log_det
    return tl.sum(tl.where(is_used, terms, 0.0), 0) + prior_terms, n_clusters


@triton.jit
def keep_labels(
    counts,
    start,
    stop,
    labels_ptr,  # [N]
    out_labels_ptr,  # [N]
    SLOTS: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Labels of the model's points: the rank of their slot among those in use."""
    slots = tl.arange(0, SLOTS)
    is_used = counts > 0
    for first in range(start, stop, BLOCK_N):
        others = first + tl.arange(0, BLOCK_N)
        label = tl.load(labels_ptr + others, mask=others < stop, other=0)
        is_below = is_used[None, :] & (slots[None, :] < label[:, None])
        tl.store(out_labels_ptr + others, tl.sum(is_below.to(tl.int32), 1), mask=others < stop)


@triton.jit
def gibbs_sweep_kernel(
    chain_ptr,  # int64 [L]: m * C + c of each program
    points_ptr,  # [N, D], about the prior mean
    ranges_ptr,  # int64 [M, 2]
    order_ptr,  # int32 [W, C, N]
    labels_ptr,  # int32 [C, N]: slots
    keys_ptr,  # int64 [M, C]
    alpha_ptr,  # [M, C]
    prior_mahalanobis_sq_ptr,  # [N]
    prior_log_prob_ptr,  # [N]
    prior_scale_ptr,  # [M, D]
    prior_log_det_ptr,  # [M]
    predictive_norm_ptr,  # [max n + 1]
    marginal_norm_ptr,  # [max n + 1]
    counts_ptr,  # int64 [L, SLOTS]
    mean_ptr,  # [L, SLOTS, D]
    inverse_ptr,  # [L, SLOTS, D, D]
    log_det_ptr,  # [L, SLOTS]
    mahalanobis_sq_ptr,  # [R, SLOTS], the rows of the L chains
    row_offset_ptr,  # int64 [L]: row i of the points is row row_offset + i of the chain's distances
    workspace_ptr,  # [L, D + 3, D]
    progress_ptr,  # int64 [M, C]: single-site updates done
    status_ptr,  # int32 [M, C]
    out_labels_ptr,  # int32 [W / thin, C, N]
    out_alpha_ptr,  # [M, C, W]
    out_n_components_ptr,  # int32 [M, C, W]
    out_log_joint_ptr,  # [M, C, W]
    constants_ptr,  # [4]: kappa0, nu0, shape and rate of alpha's prior; as arguments they would come as float32
    n_rows,  # N
    n_features,  # D
    n_chains,  # C
    first_sweep,
    n_sweeps,  # W
    thin,
    SLOTS: tl.constexpr,
    REFIT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """Sweeps of one chain from where it stands to the last, or to an update that it cannot make.

    With REFIT a cluster that its point carries is fitted anew to its other points: rare, and more registers than the
    usual sweep needs, hence a variant. Pointers without a dtype are to float64.
    """
    program = tl.program_id(0).to(tl.int64)
    chain = tl.load(chain_ptr + program)
    kappa0, nu0 = tl.load(constants_ptr), tl.load(constants_ptr + 1)
    m, c = chain // n_chains, chain % n_chains
    width = tl.cast(n_features, tl.int64)
    start, stop = tl.load(ranges_ptr + 2 * m), tl.load(ranges_ptr + 2 * m + 1)
    n_points = stop - start
    key = tl.load(keys_ptr + chain)
    slots = tl.arange(0, SLOTS)
    labels_ptr += c * n_rows
    counts_ptr += program * SLOTS
    mean_ptr += program * SLOTS * width
    inverse_ptr += program * SLOTS * width * width
    log_det_ptr += program * SLOTS
    mahalanobis_sq_ptr += tl.load(row_offset_ptr + program) * SLOTS
    workspace_ptr += program * (width + 3) * width
    progress = tl.load(progress_ptr + chain)
    status = tl.full([], RUNNING, tl.int32)
    while (progress < n_points * n_sweeps) & (status == RUNNING):
        sweep = progress // n_points
        position = progress % n_points
        random_draw = 4 * (first_sweep + sweep)
        row = tl.load(order_ptr + (sweep * n_chains + c) * n_rows + start + position).to(tl.int64)
        old = tl.load(labels_ptr + row).to(tl.int64)
        count_old = tl.load(counts_ptr + old)
        is_singleton = count_old == 1
        counts = tl.load(counts_ptr + slots)
        log_weight = weigh(
            counts,
            tl.load(mahalanobis_sq_ptr + row * SLOTS + slots),
            tl.load(log_det_ptr + slots),
            predictive_norm_ptr,
            kappa0,
            nu0,
        )
        log_weight_own, is_precise = weigh_own(
            count_old,
            tl.load(mahalanobis_sq_ptr + row * SLOTS + old),
            tl.load(log_det_ptr + old),
            predictive_norm_ptr,
            kappa0,
            nu0,
            SMALLEST_RATIO,
        )
        if REFIT:
            if is_precise == 0:
                log_weight_own = weigh_without(
                    row,
                    old,
                    start,
                    stop,
                    points_ptr,
                    labels_ptr,
                    prior_scale_ptr + m * width,
                    predictive_norm_ptr,
                    workspace_ptr,
                    width,
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
        log_weight_new = tl.log(tl.load(alpha_ptr + chain)) + tl.load(prior_log_prob_ptr + row)
        drawn, free = draw(stream_of(key, random_draw + 1), row - start, counts, log_weight, log_weight_new, SLOTS)
        is_new = drawn == SLOTS
        # A singleton that draws a new cluster stays where it is.
        stays = (drawn == old) | (is_new & is_singleton)
        new = tl.where(is_new, free, drawn).to(tl.int64)
        status = tl.where((status == RUNNING) & (stays == 0) & (new == SLOTS), NEEDS_SLOTS, status)
        # WAR: all threads have read labels and statistics before any of them changes.
        tl.debug_barrier()
        if (stays == 0) & (status == RUNNING):
            if is_new:
                open_cluster(
                    start,
                    stop,
                    prior_mahalanobis_sq_ptr,
                    prior_scale_ptr + m * width,
                    tl.load(prior_log_det_ptr + m),
                    mean_ptr + new * width,
                    inverse_ptr + new * width * width,
                    log_det_ptr + new,
                    mahalanobis_sq_ptr + new,
                    width,
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
                        mean_ptr + cluster * width,
                        inverse_ptr + cluster * width * width,
                        log_det_ptr + cluster,
                        mahalanobis_sq_ptr + cluster,
                        workspace_ptr,
                        width,
                        SLOTS,
                        kappa0,
                        BLOCK_N,
                        BLOCK_D,
                        NUM_D_BLOCKS,
                    )
                elif REFIT:
                    refit_without(
                        workspace_ptr,
                        counts_ptr + cluster,
                        mean_ptr + cluster * width,
                        inverse_ptr + cluster * width * width,
                        log_det_ptr + cluster,
                        mahalanobis_sq_ptr + cluster,
                        SLOTS,
                        start,
                        stop,
                        points_ptr,
                        width,
                        BLOCK_D,
                        NUM_D_BLOCKS,
                    )
        if (position == n_points - 1) & (status == RUNNING):
            counts = tl.load(counts_ptr + slots)
            log_p, n_clusters = log_joint(
                counts, tl.load(log_det_ptr + slots), marginal_norm_ptr, tl.load(prior_log_det_ptr + m), nu0
            )
            alpha = tl.load(alpha_ptr + chain)
            shape, rate = tl.load(constants_ptr + 2), tl.load(constants_ptr + 3)
            if shape > 0.0:
                stream = stream_of(key, random_draw + 2)
                alpha = resample_concentration(stream, alpha, n_points, n_clusters, shape, rate)
            # WAR: all threads have read alpha.
            tl.debug_barrier()
            tl.store(alpha_ptr + chain, alpha)
            tl.store(out_alpha_ptr + chain * n_sweeps + sweep, alpha)
            tl.store(out_n_components_ptr + chain * n_sweeps + sweep, n_clusters)
            tl.store(out_log_joint_ptr + chain * n_sweeps + sweep, log_p)
            if (sweep + 1) % thin == 0:
                kept = ((sweep + 1) // thin - 1) * n_chains + c
                keep_labels(counts, start, stop, labels_ptr, out_labels_ptr + kept * n_rows, SLOTS, BLOCK_N)
            # RAW: the next update reads alpha.
            tl.debug_barrier()
        progress = tl.where(status == RUNNING, progress + 1, progress)
    tl.store(progress_ptr + chain, progress)
    tl.store(status_ptr + chain, tl.where(status == RUNNING, DONE, status))


class Blocks(NamedTuple):
    """Block sizes of a launch of the sweep kernel, and the registers that a thread may use."""

    block_n: int
    block_d: int
    num_d_blocks: int
    num_warps: int
    max_registers: int


def blocks(n_features: int, refit: bool) -> Blocks:
    """Block sizes by D: tiles of float64 that stay in registers, more threads where there are many of them.

    Without a limit on the registers, ptxas keeps room for more programs on a multiprocessor and spills to make it.
    """
    block_d = 16 if refit or n_features <= 16 else 32
    num_warps = 4 if n_features <= 64 else 8
    # Three programs of four warps fit at 168.
    max_registers = 168 if n_features <= 16 and not refit else 255
    return Blocks(64, block_d, -(-n_features // block_d), num_warps, max_registers)
