"""The sweep kernel: a program is one chain of one model and does all the sweeps of a launch.

Statistics of the chain's clusters lie in device memory: inverse scale matrices, and the squared Mahalanobis distance of
every point of the model from every cluster. A slot without points is free.
"""

from __future__ import annotations

from typing import NamedTuple

from fastdens.kernels.counter_random_triton import stream_of
from fastdens.kernels.gibbs.concentration import resample_concentration
from fastdens.kernels.gibbs.log_joint import log_joint
from fastdens.kernels.gibbs.single_site import update_points
from fastdens.kernels.gibbs.split_merge_move import split_or_merge
from fastdens.kernels.gibbs.statistics import BLOCK_S
from fastdens.kernels.gibbs.status import DONE, NEEDS_MOVES, RUNNING, SINGULAR
from fastdens.kernels.optional_triton import tl, triton


@triton.jit
def keep_labels(
    counts_ptr,  # int64 [S]
    start,
    stop,
    labels_ptr,  # [N]
    out_labels_ptr,  # [N]
    n_slots,
    TURNS: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Labels of the model's points: the rank of their slot among those in use."""
    for first in range(start, stop, TURNS):
        others = first + tl.arange(0, TURNS)
        label = tl.load(labels_ptr + others, mask=others < stop, other=0)
        rank = tl.zeros([TURNS], tl.int32)
        for first_slot in range(0, n_slots, BLOCK_S):
            slots = first_slot + tl.arange(0, BLOCK_S)
            is_used = tl.load(counts_ptr + slots, mask=slots < n_slots, other=0) > 0
            rank += tl.sum((is_used[None, :] & (slots[None, :] < label[:, None])).to(tl.int32), 1)
        tl.store(out_labels_ptr + others, rank, mask=others < stop)


@triton.jit(do_not_specialize=["n_rows", "n_chains", "n_slots", "first_sweep", "n_sweeps", "thin"])
def gibbs_sweep_kernel(
    chain_ptr,  # int64 [L]: m * C + c of each program
    place_ptr,  # int64 [L]: where the clusters of its chain lie among those of P chains
    points_ptr,  # [N, D], about the prior mean
    ranges_ptr,  # int64 [M, 2]
    order_ptr,  # int32 [W, C, N]
    inverse_temperature_ptr,  # [M, W]
    split_merge_ptr,  # int32 [M, W]
    labels_ptr,  # int32 [C, N]: slots
    keys_ptr,  # int64 [M, C]
    alpha_ptr,  # [M, C]
    prior_mahalanobis_sq_ptr,  # [N]
    prior_log_prob_ptr,  # [N]
    prior_scale_ptr,  # [M, D]
    prior_log_det_ptr,  # [M]
    predictive_norm_ptr,  # [max n + 1]
    marginal_norm_ptr,  # [max n + 1]
    counts_ptr,  # int64 [P, S]
    mean_ptr,  # [P, S, D]
    inverse_ptr,  # [P, S, D, D]
    log_det_ptr,  # [P, S]
    mahalanobis_sq_ptr,  # [R, S], the rows of the P chains
    row_offset_ptr,  # int64 [L]: row i of the points is row row_offset + i of the chain's distances
    workspace_ptr,  # [L, D + 4, D]
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
    n_slots,  # S
    first_sweep,
    n_sweeps,  # W
    thin,
    REFIT: tl.constexpr,
    MOVES: tl.constexpr,
    TURNS: tl.constexpr,
    BLOCK_S: tl.constexpr,
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
    chain, place = tl.load(chain_ptr + program), tl.load(place_ptr + program)
    kappa0, nu0 = tl.load(constants_ptr), tl.load(constants_ptr + 1)
    m, c = chain // n_chains, chain % n_chains
    width, size = tl.cast(n_features, tl.int64), tl.cast(n_slots, tl.int64)
    start, stop = tl.load(ranges_ptr + 2 * m), tl.load(ranges_ptr + 2 * m + 1)
    n_points = stop - start
    key = tl.load(keys_ptr + chain)
    labels_ptr += c * n_rows
    alpha_ptr += chain
    prior_scale_ptr += m * width
    prior_log_det_ptr += m
    counts_ptr += place * size
    mean_ptr += place * size * width
    inverse_ptr += place * size * width * width
    log_det_ptr += place * size
    mahalanobis_sq_ptr += tl.load(row_offset_ptr + program) * size
    workspace_ptr += program * (width + 4) * width
    sweep, step = tl.load(progress_ptr + 2 * chain), tl.load(progress_ptr + 2 * chain + 1)
    status = tl.load(status_ptr + chain)
    while (sweep < n_sweeps) & (status == RUNNING):
        random_draw = 4 * (first_sweep + sweep)
        own_order_ptr = order_ptr + (sweep * n_chains + c) * n_rows + start
        n_steps = n_points + tl.load(split_merge_ptr + m * n_sweeps + sweep)
        n_done = tl.full([], 1, tl.int64)
        if step < n_points:
            n_done, status = update_points(
                step, n_points, own_order_ptr, stream_of(key, random_draw + 1),
                tl.load(inverse_temperature_ptr + m * n_sweeps + sweep), start, points_ptr, labels_ptr, alpha_ptr,
                prior_mahalanobis_sq_ptr, prior_log_prob_ptr, prior_scale_ptr, prior_log_det_ptr, predictive_norm_ptr,
                counts_ptr, mean_ptr, inverse_ptr, log_det_ptr, mahalanobis_sq_ptr, workspace_ptr, width, n_slots,
                kappa0, nu0, REFIT, TURNS, BLOCK_S, BLOCK_N, BLOCK_D, NUM_D_BLOCKS,
            )  # fmt: skip
        elif step < n_steps:
            if MOVES:
                status = split_or_merge(
                    stream_of(key, random_draw + 3), step - n_points, own_order_ptr, start, stop, points_ptr,
                    labels_ptr, alpha_ptr, prior_scale_ptr, prior_log_det_ptr, predictive_norm_ptr, marginal_norm_ptr,
                    mahalanobis_sq_ptr, counts_ptr, mean_ptr, inverse_ptr, log_det_ptr, others_ptr + c * n_rows + start,
                    side_ptr + c * n_rows, side_counts_ptr + 3 * program,
                    sides_ptr + 3 * program * (width + 3) * width, out_split_merge_ptr + 4 * chain, width, n_slots,
                    kappa0, nu0, BLOCK_S, BLOCK_N, BLOCK_D, NUM_D_BLOCKS,
                )  # fmt: skip
            else:
                status = tl.full([], NEEDS_MOVES, tl.int32)
            n_done = tl.where(status == RUNNING, n_done, 0)
        step += n_done
        if step == n_steps:
            log_p, n_clusters = log_joint(
                counts_ptr, log_det_ptr, marginal_norm_ptr, tl.load(prior_log_det_ptr), nu0, n_slots, BLOCK_S
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
                keep_labels(
                    counts_ptr, start, stop, labels_ptr, out_labels_ptr + kept * n_rows, n_slots, TURNS, BLOCK_S
                )
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

    turns: int
    block_s: int
    block_n: int
    block_d: int
    num_d_blocks: int
    num_warps: int
    num_stages: int
    max_registers: int


def blocks(n_features: int, refit: bool, moves: bool) -> Blocks:
    """Block sizes by D: tiles of float64 that stay in registers, more threads where there are many of them.

    Sixteen points are weighed side by side: for a block of slots, two weights a thread. Where every point moves,
    only the first of them counts, and its move takes longer by far than weighing the others did.

    Without a limit on the registers, ptxas keeps room for more programs on a multiprocessor and spills to make it.
    Where the kernel refits or makes moves, it takes all that a thread can have. So its loops over products are not
    pipelined (one stage), and tiles are smaller under 16 dimensions, where rows that are not aligned take registers.
    """
    block_d = 16 if refit or moves or n_features <= 16 else 32
    block_n = 64 if not refit and not moves else 32 if n_features >= 16 else 16
    num_warps = 8 if n_features > 64 or (block_d == 16 and n_features > 16) else 4
    return Blocks(
        turns=1 if refit else 16,
        block_s=BLOCK_S,
        block_n=block_n,
        block_d=block_d,
        num_d_blocks=-(-n_features // block_d),
        num_warps=num_warps,
        num_stages=1,
        max_registers=255,
    )
