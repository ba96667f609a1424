"""Statistics of the clusters of many chains, in the memory that the sweep kernel reads and updates."""

from __future__ import annotations

from typing import NamedTuple

import torch
from fastdens.kernels.gibbs.problem import SweepProblem
from fastdens.kernels.mahalanobis import config, quadratic_form
from fastdens.kernels.niw import niw_posterior
from fastdens.kernels.optional_triton import tl, triton
from torch import Tensor

# The fewest slots of a chain, and the slots beside those in use at the start.
MIN_SLOTS, SPARE_SLOTS = 16, 8


class ClusterStatistics(NamedTuple):
    """Clusters of L chains, S slots each; a slot without points is free.

    Attributes
    ----------
    chain : Tensor
        int64 [L], number ``m * C + c`` of each chain.
    counts : Tensor
        int64 [L, S].
    mean : Tensor
        float64 [L, S, D], m about the prior mean.
    inverse : Tensor
        float64 [L, S, D, D], the inverse of the scale matrix S.
    log_det : Tensor
        float64 [L, S], log det S.
    mahalanobis_sq : Tensor
        float64 [R, S], squared distance of each point of the chains' models from each cluster.
    row_offset : Tensor
        int64 [L]: row i of the points is row ``row_offset + i`` of the chain's distances.
    """

    chain: Tensor
    counts: Tensor
    mean: Tensor
    inverse: Tensor
    log_det: Tensor
    mahalanobis_sq: Tensor
    row_offset: Tensor

    @property
    def n_slots(self) -> int:
        """Number of slots S of each chain."""
        return self.counts.shape[1]


@triton.jit
def mahalanobis_kernel(
    points_ptr,  # [N, D], about the prior mean
    tile_model_ptr,  # int64 [T]
    tile_start_ptr,  # int64 [T]
    tile_stop_ptr,  # int64 [T]
    mean_ptr,  # [M, C, S, D]
    factors_ptr,  # [M, C, S, D, D]
    mahalanobis_sq_ptr,  # [C, N, S]
    n_rows,  # N
    n_features,  # D
    n_chains,  # C
    n_slots,  # S
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_D_BLOCKS: tl.constexpr,
):
    """One program: squared distances of a tile of a model's points from all clusters of one chain, float64."""
    tile, c = tl.program_id(0), tl.program_id(1).to(tl.int64)
    m = tl.load(tile_model_ptr + tile)
    rows = tl.load(tile_start_ptr + tile) + tl.arange(0, BLOCK_N)
    mask = rows < tl.load(tile_stop_ptr + tile)
    width = tl.cast(n_features, tl.int64)
    for k in range(n_slots):
        g = (m * n_chains + c) * n_slots + k
        q = quadratic_form(
            points_ptr,
            rows,
            mask,
            mean_ptr + g * width,
            factors_ptr + g * width * width,
            width,
            True,
            BLOCK_N,
            BLOCK_D,
            NUM_D_BLOCKS,
            "ieee",
        )
        tl.store(mahalanobis_sq_ptr + (c * n_rows + rows) * n_slots + k, q, mask=mask)


def slots_for(labels: Tensor) -> int:
    """Number of slots, a power of two, for chains that start from labels [C, N] counted from zero."""
    highest = int(labels.max()) if labels.numel() else 0
    return max(MIN_SLOTS, 1 << (highest + SPARE_SLOTS).bit_length())


def fit_statistics(problem: SweepProblem, centred: Tensor, labels: Tensor, n_slots: int) -> ClusterStatistics:
    """Statistics of all chains of a problem, from the points.

    Parameters
    ----------
    problem : SweepProblem
    centred : Tensor
        float64 [N, D], points about the prior mean of their model.
    labels : Tensor
        int32 [C, N], 0 to ``n_slots - 1``.
    n_slots : int

    Returns
    -------
    ClusterStatistics
    """
    layout = problem.layout
    n_features = centred.shape[1]
    n_chains, n_rows = labels.shape
    n_models = layout.n_models
    origin = torch.zeros_like(problem.prior_scale)
    posteriors = [
        niw_posterior(centred, layout, own, n_slots, origin, problem.prior_scale, problem.kappa0, backend="triton")
        for own in labels
    ]
    counts, mean, factors, log_det = (torch.stack(field, 1).contiguous() for field in zip(*posteriors, strict=True))
    mahalanobis_sq = torch.zeros(n_chains * n_rows, n_slots, dtype=torch.float64, device=centred.device)
    sizes = config(n_features, torch.float64)
    tiles = layout.tiles(sizes.block_n)
    mahalanobis_kernel[(len(tiles.model), n_chains)](
        centred,
        tiles.model,
        tiles.start,
        tiles.stop,
        mean,
        factors,
        mahalanobis_sq,
        n_rows,
        n_features,
        n_chains,
        n_slots,
        BLOCK_N=sizes.block_n,
        BLOCK_D=sizes.block_d,
        NUM_D_BLOCKS=sizes.num_d_blocks,
        num_warps=sizes.num_warps,
        num_stages=sizes.num_stages,
    )
    chain = torch.arange(n_models * n_chains, device=centred.device)
    return ClusterStatistics(
        chain,
        counts.flatten(0, 1),
        mean.flatten(0, 1),
        (factors @ factors.mT).flatten(0, 1),
        log_det.flatten(0, 1),
        mahalanobis_sq,
        chain % n_chains * n_rows,
    )


def select_chains(statistics: ClusterStatistics, selected: Tensor, problem: SweepProblem) -> ClusterStatistics:
    """The same statistics of some of the chains, int64 [L'], bit for bit."""
    n_chains = problem.keys.shape[1]
    chain = statistics.chain[selected]
    models = problem.layout.select(chain // n_chains)
    old_rows = torch.arange(int(models.sizes.sum()), device=chain.device)
    new_first = models.sizes.cumsum(0) - models.sizes
    old_first = statistics.row_offset[selected] + models.ranges[:, 0]
    old_rows += torch.repeat_interleave(old_first - new_first, models.sizes)
    return ClusterStatistics(
        chain,
        statistics.counts[selected],
        statistics.mean[selected],
        statistics.inverse[selected],
        statistics.log_det[selected],
        statistics.mahalanobis_sq[old_rows],
        new_first - models.ranges[:, 0],
    )


def add_slots(statistics: ClusterStatistics) -> ClusterStatistics:
    """The same clusters with as many free slots again."""

    def widened(field: Tensor) -> Tensor:
        return torch.cat([field, torch.zeros_like(field)], 1)

    names = ("counts", "mean", "inverse", "log_det", "mahalanobis_sq")
    return statistics._replace(**{name: widened(getattr(statistics, name)) for name in names})
