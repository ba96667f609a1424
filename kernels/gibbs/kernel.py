"""The sweep kernel: a program is one chain of one model and does all the sweeps of a launch.

Statistics of the chain's clusters lie in device memory: inverse scale matrices, and the squared Mahalanobis distance of
every point of the model from every cluster. A slot without points is free.
"""

from __future__ import annotations

from typing import NamedTuple

from fastdens.kernels.counter_random_triton import stream_of
from fastdens.kernels.gibbs.concentration import resample_concentration
from fastdens.kernels.gibbs.log_joint import log_joint
from fastdens.kernels.gibbs.single_site import update_point
from fastdens.kernels.gibbs.split_merge_move import split_or_merge
from fastdens.kernels.gibbs.status import DONE, NEEDS_MOVES, RUNNING, SINGULAR
from fastdens.kernels.optional_triton import tl, triton


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
    inverse_temperature_ptr,  # [M, W]
    split_merge_ptr,  # int32 [M, W], or None if there are no moves
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
    others_ptr,  # int32 [C, N], or None without MOVES
    side_ptr,  # int32 [C, N], or None without MOVES
    side_counts_ptr,  # int64 [L, 3], or None without MOVES
    sides_ptr,  # [L, 3, D + 3, D], or None without MOVES
    progress_ptr,  # int64 [M, C, 2]: sweeps done, and single-site updates and moves done in the next
    status_ptr,  # int32 [M, C]
    out_labels_ptr,  # int32 [W / thin, C, N]
    out_alpha_ptr,  # [M, C, W]
    out_n_components_ptr,  # int32 [M, C, W]
    out_log_joint_ptr,  # [M, C, W]
    out_split_merge_ptr,  # int32 [M, C, 4]
    constants_ptr,  # [4]: kappa0, nu0, shape and rate of alpha's prior; as arguments they would come as float32
    n_rows,  # N
    n_features,  # D
    n_chains,  # C
    first_sweep,
    n_sweeps,  # W
    thin,
    SLOTS: tl.constexpr,
    REFIT: tl.constexpr,
    MOVES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """Sweeps of one chain from where it stands to the last, or to an update or move that it cannot make.

    With REFIT a cluster that its point carries is fitted anew to its other points: rare, and more registers than the
    usual sweep needs, hence a variant. With MOVES the kernel makes split-merge moves. Both together would need more
    registers than there are. Pointers without a dtype are to float64.
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
    alpha_ptr += chain
    prior_scale_ptr += m * width
    prior_log_det_ptr += m
    counts_ptr += program * SLOTS
    mean_ptr += program * SLOTS * width
    inverse_ptr += program * SLOTS * width * width
    log_det_ptr += program * SLOTS
    mahalanobis_sq_ptr += tl.load(row_offset_ptr + program) * SLOTS
    workspace_ptr += program * (width + 3) * width
    sweep, step = tl.load(progress_ptr + 2 * chain), tl.load(progress_ptr + 2 * chain + 1)
    status = tl.full([], RUNNING, tl.int32)
    while (sweep < n_sweeps) & (status == RUNNING):
        random_draw = 4 * (first_sweep + sweep)
        own_order_ptr = order_ptr + (sweep * n_chains + c) * n_rows + start
        n_steps = n_points
        # Known at compile time if there are no moves.
        is_update = True
        if split_merge_ptr is not None:
            n_steps += tl.load(split_merge_ptr + m * n_sweeps + sweep)
            is_update = step < n_points
        if is_update:
            status = update_point(
                tl.load(own_order_ptr + step).to(tl.int64),
                stream_of(key, random_draw + 1),
                tl.load(inverse_temperature_ptr + m * n_sweeps + sweep),
                start,
                stop,
                points_ptr,
                labels_ptr,
                alpha_ptr,
                prior_mahalanobis_sq_ptr,
                prior_log_prob_ptr,
                prior_scale_ptr,
                prior_log_det_ptr,
                predictive_norm_ptr,
                counts_ptr,
                mean_ptr,
                inverse_ptr,
                log_det_ptr,
                mahalanobis_sq_ptr,
                workspace_ptr,
                width,
                kappa0,
                nu0,
                SLOTS,
                REFIT,
                BLOCK_N,
                BLOCK_D,
                NUM_D_BLOCKS,
            )
        elif MOVES:
            status = split_or_merge(
                stream_of(key, random_draw + 3),
                step - n_points,
                own_order_ptr,
                start,
                stop,
                points_ptr,
                labels_ptr,
                alpha_ptr,
                prior_scale_ptr,
                prior_log_det_ptr,
                predictive_norm_ptr,
                marginal_norm_ptr,
                mahalanobis_sq_ptr,
                counts_ptr,
                mean_ptr,
                inverse_ptr,
                log_det_ptr,
                others_ptr + c * n_rows + start,
                side_ptr + c * n_rows,
                side_counts_ptr + 3 * program,
                sides_ptr + 3 * program * (width + 3) * width,
                out_split_merge_ptr + 4 * chain,
                width,
                kappa0,
                nu0,
                SLOTS,
                BLOCK_N,
                BLOCK_D,
                NUM_D_BLOCKS,
            )
        else:
            status = tl.full([], NEEDS_MOVES, tl.int32)
        step = tl.where(status == RUNNING, step + 1, step)
        if step == n_steps:
            counts = tl.load(counts_ptr + slots)
            log_p, n_clusters = log_joint(
                counts, tl.load(log_det_ptr + slots), marginal_norm_ptr, tl.load(prior_log_det_ptr), nu0
            )
            alpha = tl.load(alpha_ptr)
            shape, rate = tl.load(constants_ptr + 2), tl.load(constants_ptr + 3)
            if shape > 0.0:
                stream = stream_of(key, random_draw + 2)
                alpha = resample_concentration(stream, alpha, n_points, n_clusters, shape, rate)
            # WAR: all threads have read alpha.
            tl.debug_barrier()
            tl.store(alpha_ptr, alpha)
            tl.store(out_alpha_ptr + chain * n_sweeps + sweep, alpha)
            tl.store(out_n_components_ptr + chain * n_sweeps + sweep, n_clusters)
            tl.store(out_log_joint_ptr + chain * n_sweeps + sweep, log_p)
            if (sweep + 1) % thin == 0:
                kept = ((sweep + 1) // thin - 1) * n_chains + c
                keep_labels(counts, start, stop, labels_ptr, out_labels_ptr + kept * n_rows, SLOTS, BLOCK_N)
            # RAW: the next update reads alpha.
            tl.debug_barrier()
            status = tl.where(log_p == log_p, RUNNING, SINGULAR)
            sweep += 1
            step = tl.full([], 0, tl.int64)
    tl.store(progress_ptr + 2 * chain, sweep)
    tl.store(progress_ptr + 2 * chain + 1, step)
    tl.store(status_ptr + chain, tl.where(status == RUNNING, DONE, status))


class Blocks(NamedTuple):
    """Block sizes of a launch of the sweep kernel, and the registers that a thread may use."""

    block_n: int
    block_d: int
    num_d_blocks: int
    num_warps: int
    max_registers: int


def blocks(n_features: int, refit: bool, moves: bool) -> Blocks:
    """Block sizes by D: tiles of float64 that stay in registers, more threads where there are many of them.

    Without a limit on the registers, ptxas keeps room for more programs on a multiprocessor and spills to make it.
    """
    block_d = 16 if refit or n_features <= 16 or (moves and n_features > 64) else 32
    num_warps = 8 if n_features > 64 or (moves and block_d == 32) else 4
    # Three programs of four warps fit at 168.
    max_registers = 168 if n_features <= 16 and not refit and not moves else 255
    block_n = 32 if moves and block_d == 32 else 64
    return Blocks(block_n, block_d, -(-n_features // block_d), num_warps, max_registers)
