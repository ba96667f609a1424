"""Starting points for many mixtures at once: k-means++ and random rows, on any device, from counter-based numbers.

k-means++ is the greedy variant of Arthur & Vassilvitskii (2007), as in scikit-learn: each new centre is the best of
``2 + log K`` candidates drawn with probability proportional to the squared distance to the nearest centre so far.
A draw with probabilities p_n is the first to arrive of exponential clocks of rates p_n, so that all models draw at once
without a running sum across models. Random numbers are a hash of (seed, draw, row within the model): a model starts
alike whatever else is in the batch, on whatever device.
"""

from __future__ import annotations

import math

import torch
from fastdens.kernels.counter_random import hashed_uniform
from fastdens.kernels.layout import bounded_runs, rows_of
from fastdens.kernels.operation import resolve_backend
from torch import Tensor

_MAX_ELEMENTS = 1 << 23


def _first_of_models(clock: Tensor, model: Tensor, n_models: int, row: Tensor) -> Tensor:
    """Row (within the batch) of the smallest clock of each model; the first one of equals."""
    soonest = clock.new_full((n_models,), math.inf).scatter_reduce_(0, model, clock, "amin")
    candidate = torch.where(clock == soonest[model], row, torch.iinfo(torch.int64).max)
    best = torch.full((n_models,), torch.iinfo(torch.int64).max, device=clock.device)
    return best.scatter_reduce_(0, model, candidate, "amin")


def _exponential(seed: int, draw: int, position: Tensor) -> Tensor:
    return -torch.log(hashed_uniform(seed, draw, position))


def _blocks(ranges: Tensor, width: int) -> list[tuple[int, int]]:
    """Runs of consecutive models whose points, ``width`` numbers each, stay within a bound on memory."""
    return bounded_runs((ranges[:, 1] - ranges[:, 0]).tolist(), max(1, _MAX_ELEMENTS // width))


class _Rows:
    """The rows of a run of models, gathered: row in the batch, model, position within the model."""

    def __init__(self, ranges: Tensor) -> None:
        sizes = ranges[:, 1] - ranges[:, 0]
        self.n_models = len(sizes)
        self.model, self.position = rows_of(ranges)
        self.row = ranges[self.model, 0] + self.position
        self.offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def random_responsibilities(ranges: Tensor, n_points: int, n_components: int, seed: int, dtype: torch.dtype) -> Tensor:
    """Uniform random responsibilities [N, K], normalised; zero for rows that no model owns.

    Parameters
    ----------
    ranges : Tensor
        int64 [M, 2], first row and one past the last row of each model.
    n_points, n_components, seed : int
    dtype : torch.dtype
    """
    resp = torch.zeros(n_points, n_components, dtype=dtype, device=ranges.device)
    for begin, end in _blocks(ranges, n_components + 16):
        rows = _Rows(ranges[begin:end])
        own = torch.stack([hashed_uniform(seed, k, rows.position).to(dtype) for k in range(n_components)], 1)
        resp[rows.row] = own / own.sum(1, keepdim=True)
    return resp


def random_rows(ranges: Tensor, n_rows: int, seed: int) -> Tensor:
    """Draw ``n_rows`` different rows of every model.

    Parameters
    ----------
    ranges : Tensor
        int64 [M, 2], first row and one past the last row of each model, of at least ``n_rows`` rows.
    n_rows, seed : int

    Returns
    -------
    Tensor
        int64 [M, n_rows], rows of the batch.
    """
    chosen = []
    for begin, end in _blocks(ranges, 16):
        rows = _Rows(ranges[begin:end])
        clock = _exponential(seed, 0, rows.position)
        local = torch.arange(len(rows.row), device=ranges.device)
        picks = []
        for _ in range(n_rows):
            pick = _first_of_models(clock, rows.model, rows.n_models, local)
            picks.append(rows.row[pick])
            clock[pick] = math.inf
        chosen.append(torch.stack(picks, 1))
    return torch.cat(chosen)


def kmeans_plusplus(points: Tensor, ranges: Tensor, n_clusters: int, seed: int, *, backend: str = "auto") -> Tensor:
    """Greedy k-means++ in every model at once.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64, finite.
    ranges : Tensor
        int64 [M, 2], first row and one past the last row of each model, of at least ``n_clusters`` rows.
    n_clusters, seed : int
    backend : {"auto", "triton", "cpu", "reference"}
        "triton" and "reference" are torch operations, on the device of the points.

    Returns
    -------
    Tensor
        int64 [M, n_clusters], rows of ``points``. Where a model has fewer different points than clusters, the
        remaining rows are drawn among those not yet chosen.

    References
    ----------
    Arthur & Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007.
    """
    n_trials = 2 + int(math.log(n_clusters))
    # Two points that are each other's nearest leave the same potential, up to rounding: the earlier draw then stands.
    tie = 1e3 * torch.finfo(points.dtype).eps
    if resolve_backend(backend, points) == "cpu":
        from fastdens.kernels.cpu.seeding import kmeans_plusplus as on_cpu

        return on_cpu(points, ranges, n_clusters, seed, n_trials, tie)
    chosen = []
    for begin, end in _blocks(ranges, points.shape[1] + 8):
        rows = _Rows(ranges[begin:end])
        x = points[rows.row]
        local = torch.arange(len(rows.row), device=points.device)
        pick = _first_of_models(_exponential(seed, 0, rows.position), rows.model, rows.n_models, local)
        taken = torch.zeros(len(local), dtype=torch.bool, device=points.device)
        taken[pick] = True
        picks = [rows.row[pick]]
        nearest = (x - x[pick][rows.model]).square_().sum(1).double()
        for k in range(1, n_clusters):
            # A potential of zero leaves nothing to be proportional to: then any row not yet taken is as good.
            spread = nearest.new_zeros(rows.n_models).scatter_reduce_(0, rows.model, nearest, "amax") > 0
            rate = torch.where(spread[rows.model], nearest, (~taken).double())
            best_sum = nearest.new_full((rows.n_models,), math.inf)
            best_pick, best_nearest = pick, nearest
            for trial in range(n_trials):
                clock = _exponential(seed, k * n_trials + trial, rows.position) / rate
                candidate = _first_of_models(clock, rows.model, rows.n_models, local)
                distance = (x - x[candidate][rows.model]).square_().sum(1).double()
                distance = torch.minimum(distance, nearest)
                potential = torch.segment_reduce(distance, "sum", offsets=rows.offsets)
                better = potential < best_sum * (1 - tie)
                best_sum = torch.where(better, potential, best_sum)
                best_pick = torch.where(better, candidate, best_pick)
                best_nearest = torch.where(better[rows.model], distance, best_nearest)
            nearest, pick = best_nearest, best_pick
            taken[pick] = True
            picks.append(rows.row[pick])
        chosen.append(torch.stack(picks, 1))
    return torch.cat(chosen)
