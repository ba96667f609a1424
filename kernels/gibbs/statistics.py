"""Statistics of the clusters of many chains, in the memory that the sweep kernel reads and updates."""

from __future__ import annotations

from typing import NamedTuple

import torch
from fastdens.kernels.gibbs.moves import fit_distances
from fastdens.kernels.gibbs.problem import SweepProblem
from fastdens.kernels.gibbs.refit import fit_scatter, invert_in_place
from fastdens.kernels.optional_triton import tl, triton
from torch import Tensor

# Slots are handled in blocks of so many; a launch begins with whole blocks, and with some slots beside those in use.
BLOCK_S, SPARE_SLOTS = 16, 8


class ClusterStatistics(NamedTuple):
    """Clusters of L chains, S slots each, in memory for P chains; a slot without points is free.

    Attributes
    ----------
    chain : Tensor
        int64 [L], number ``m * C + c`` of each chain.
    place : Tensor
        int64 [L], where each chain is among the P.
    row_offset : Tensor
        int64 [L]: row i of the points is row ``row_offset + i`` of the chain's distances.
    counts : Tensor
        int64 [P, S].
    mean : Tensor
        float64 [P, S, D], m about the prior mean.
    inverse : Tensor
        float64 [P, S, D, D], the inverse of the scale matrix S.
    log_det : Tensor
        float64 [P, S], log det S.
    mahalanobis_sq : Tensor
        float64 [R, S], squared distance of each point of the chains' models from each cluster.
    """

    chain: Tensor
    place: Tensor
    row_offset: Tensor
    counts: Tensor
    mean: Tensor
    inverse: Tensor
    log_det: Tensor
    mahalanobis_sq: Tensor

    @property
    def n_slots(self) -> int:
        """Number of slots S of each chain."""
        return self.counts.shape[1]

    def select(self, selected: Tensor) -> ClusterStatistics:
        """Those of some of the chains, int64 [L'], in the same memory."""
        return self._replace(**{name: getattr(self, name)[selected] for name in ("chain", "place", "row_offset")})


class FitBlocks(NamedTuple):
    """Block sizes of a launch of the kernel that fits clusters."""

    block_n: int
    block_d: int
    num_d_blocks: int
    num_warps: int
    num_stages: int
    max_registers: int


def fit_blocks(n_features: int) -> FitBlocks:
    """Block sizes by D; blocks of D as small as the product of matrices takes them, in few registers: one stage."""
    return FitBlocks(
        block_n=32,
        block_d=16,
        num_d_blocks=-(-n_features // 16),
        num_warps=4,
        num_stages=1,
        max_registers=255,
    )


@triton.jit(do_not_specialize=["n_rows", "n_chains", "n_slots", "n_labels"])
def fit_clusters_kernel(
    points_ptr,  # [N, D], about the prior mean
    ranges_ptr,  # int64 [M, 2]
    labels_ptr,  # int32 [C, N]
    prior_scale_ptr,  # [M, D]
    constants_ptr,  # [4], the first kappa0
    w_ptr,  # [M * C * n_labels, D], working memory
    counts_ptr,  # int64 [M, C, S]
    mean_ptr,  # [M, C, S, D]
    inverse_ptr,  # [M, C, S, D, D]
    log_det_ptr,  # [M, C, S]
    mahalanobis_sq_ptr,  # [C, N, S]
    n_rows,  # N
    n_features,  # D
    n_chains,  # C
    n_slots,  # S
    n_labels,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """One program: statistics of one cluster of one chain, and the distances of the model's points from it."""
    program = tl.program_id(0).to(tl.int64)
    chain, k = program // n_labels, program % n_labels
    m, c = chain // n_chains, chain % n_chains
    width = tl.cast(n_features, tl.int64)
    start, stop = tl.load(ranges_ptr + 2 * m), tl.load(ranges_ptr + 2 * m + 1)
    slot = chain * n_slots + k
    w_ptr += program * width
    mean_ptr += slot * width
    inverse_ptr += slot * width * width
    count = fit_scatter(
        k, -1, start, stop, points_ptr, labels_ptr + c * n_rows, prior_scale_ptr + m * width, mean_ptr, inverse_ptr,
        width, tl.load(constants_ptr), BLOCK_N, BLOCK_D,
    )  # fmt: skip
    tl.store(counts_ptr + slot, count)
    if count > 0:
        tl.store(log_det_ptr + slot, invert_in_place(inverse_ptr, w_ptr, width, BLOCK_D))
        distances_ptr = mahalanobis_sq_ptr + c * n_rows * n_slots + k
        fit_distances(
            start, stop, points_ptr, mean_ptr, inverse_ptr, distances_ptr, width, n_slots, BLOCK_N, BLOCK_D,
            NUM_D_BLOCKS,
        )  # fmt: skip


def slots_for(n_labels: int) -> int:
    """Number of slots for chains that start from so many labels."""
    return -(-(n_labels + SPARE_SLOTS) // BLOCK_S) * BLOCK_S


def fit_statistics(
    problem: SweepProblem, centred: Tensor, constants: Tensor, labels: Tensor, n_labels: int, n_slots: int
) -> ClusterStatistics:
    """Statistics of all chains of a problem, from the points.

    Parameters
    ----------
    problem : SweepProblem
    centred : Tensor
        float64 [N, D], points about the prior mean of their model.
    constants : Tensor
        float64 [4], the first kappa0.
    labels : Tensor
        int32 [C, N], 0 to ``n_labels - 1``.
    n_labels, n_slots : int

    Returns
    -------
    ClusterStatistics
    """
    n_rows, n_features = centred.shape
    n_models, n_chains = problem.keys.shape
    n_launched = n_models * n_chains
    chain = torch.arange(n_launched, device=centred.device)
    # Of a free slot nothing but its count is read.
    counts = torch.zeros(n_launched, n_slots, dtype=torch.int64, device=centred.device)
    log_det = torch.zeros(n_launched, n_slots, dtype=torch.float64, device=centred.device)
    mean = torch.empty(n_launched, n_slots, n_features, dtype=torch.float64, device=centred.device)
    inverse = torch.empty(n_launched, n_slots, n_features, n_features, dtype=torch.float64, device=centred.device)
    mahalanobis_sq = torch.empty(n_chains * n_rows, n_slots, dtype=torch.float64, device=centred.device)
    sizes = fit_blocks(n_features)
    fit_clusters_kernel[(n_launched * n_labels,)](
        centred,
        problem.layout.ranges,
        labels,
        problem.prior_scale,
        constants,
        torch.empty(n_launched * n_labels, n_features, dtype=torch.float64, device=centred.device),
        counts,
        mean,
        inverse,
        log_det,
        mahalanobis_sq,
        n_rows,
        n_features,
        n_chains,
        n_slots,
        n_labels,
        BLOCK_N=sizes.block_n,
        BLOCK_D=sizes.block_d,
        NUM_D_BLOCKS=sizes.num_d_blocks,
        num_warps=sizes.num_warps,
        num_stages=sizes.num_stages,
        maxnreg=sizes.max_registers,
    )
    return ClusterStatistics(chain, chain, chain % n_chains * n_rows, counts, mean, inverse, log_det, mahalanobis_sq)


def add_slots(statistics: ClusterStatistics, problem: SweepProblem) -> ClusterStatistics:
    """The clusters of the L chains, bit for bit, in memory of their own with as many free slots again."""
    models = problem.layout.select(statistics.chain // problem.keys.shape[1])
    first = models.sizes.cumsum(0) - models.sizes
    row_offset = first - models.ranges[:, 0]
    rows = torch.arange(int(models.sizes.sum()), device=first.device)
    rows += torch.repeat_interleave(statistics.row_offset - row_offset, models.sizes, output_size=len(rows))

    def widened(field: Tensor, own: Tensor) -> Tensor:
        n_slots = field.shape[1]
        wider = torch.zeros(len(own), 2 * n_slots, *field.shape[2:], dtype=field.dtype, device=field.device)
        wider[:, :n_slots] = field[own]
        return wider

    fields = [(field, statistics.place) for field in statistics[3:-1]] + [(statistics.mahalanobis_sq, rows)]
    place = torch.arange(len(first), device=first.device)
    return ClusterStatistics(statistics.chain, place, row_offset, *(widened(field, own) for field, own in fields))
