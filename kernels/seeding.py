"""Starting points for many mixtures at once: k-means++ and random rows, on any device, from counter-based numbers.

k-means++ is the greedy variant of Arthur & Vassilvitskii (2007), as in scikit-learn: each new centre is the best of
``2 + log K`` candidates drawn with probability proportional to the squared distance to the nearest centre so far.
A draw with probabilities p_n is the first to arrive of exponential clocks of rates p_n, so that all models draw at once
without a running sum across models. Random numbers are a hash of (seed, draw, row within the model): a model starts
alike whatever else is in the batch, on whatever device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from fastdens.kernels.counter_random import hashed_uniform
from fastdens.kernels.layout import Layout, bounded_runs, offsets_of
from fastdens.kernels.operation import Backends
from torch import Tensor

_MAX_ELEMENTS = 1 << 23


def first_of_models(clock: Tensor, model: Tensor, n_models: int, row: Tensor) -> Tensor:
    """Row (within the batch) of the smallest clock of each model; the first one of equals."""
    soonest = clock.new_full((n_models,), math.inf).scatter_reduce_(0, model, clock, "amin")
    candidate = torch.where(clock == soonest[model], row, torch.iinfo(torch.int64).max)
    best = torch.full((n_models,), torch.iinfo(torch.int64).max, device=clock.device)
    return best.scatter_reduce_(0, model, candidate, "amin")


def _exponential(seed: int, draw: int, position: Tensor) -> Tensor:
    return -torch.log(hashed_uniform(seed, draw, position))


class _Block:
    """The rows of a run of models, gathered: row in the batch, model, position within the model."""

    def __init__(self, layout: Layout) -> None:
        self.n_models = layout.n_models
        self.model, self.position = layout.rows
        self.row = layout.ranges[self.model, 0] + self.position
        self.offsets = offsets_of(layout.sizes)


def _blocks(layout: Layout, width: int) -> Iterator[_Block]:
    """Runs of consecutive models whose points, ``width`` numbers each, stay within a bound on memory."""
    for begin, end in bounded_runs(layout.sizes.tolist(), max(1, _MAX_ELEMENTS // width)):
        yield _Block(layout.select(slice(begin, end)))


def random_responsibilities(
    layout: Layout | Tensor, n_points: int, n_components: int, seed: int, dtype: torch.dtype
) -> Tensor:
    """Uniform random responsibilities [N, K], normalised; zero for rows that no model owns.

    Parameters
    ----------
    layout : Layout or Tensor
        The rows of each model: a layout, or offsets int64 [M + 1].
    n_points, n_components, seed : int
    dtype : torch.dtype
    """
    layout = layout if isinstance(layout, Layout) else Layout.from_offsets(layout, n_points)
    resp = torch.zeros(n_points, n_components, dtype=dtype, device=layout.ranges.device)
    for block in _blocks(layout, n_components + 16):
        own = torch.stack([hashed_uniform(seed, k, block.position).to(dtype) for k in range(n_components)], 1)
        resp[block.row] = own / own.sum(1, keepdim=True)
    return resp


def _random_rows(ranges: Tensor, n_rows: int, seed: int) -> Tensor:
    chosen = []
    for block in _blocks(Layout(ranges, 0), 16):
        clock = _exponential(seed, 0, block.position)
        local = torch.arange(len(block.row), device=clock.device)
        picks = []
        for _ in range(n_rows):
            pick = first_of_models(clock, block.model, block.n_models, local)
            picks.append(block.row[pick])
            clock[pick] = math.inf
        chosen.append(torch.stack(picks, 1))
    return torch.cat(chosen)


_RANDOM_ROWS = Backends(triton=_random_rows, cpu="seeding:random_rows", reference=_random_rows)


def random_rows(layout: Layout | Tensor, n_rows: int, seed: int, *, backend: str = "auto") -> Tensor:
    """Draw ``n_rows`` different rows of every model.

    Parameters
    ----------
    layout : Layout or Tensor
        The rows of each model, at least ``n_rows``: a layout, or offsets int64 [M + 1].
    n_rows, seed : int
    backend : {"auto", "triton", "cpu", "reference"}
        "triton" and "reference" are torch operations, on the device of the layout.

    Returns
    -------
    Tensor
        int64 [M, n_rows], rows of the batch.
    """
    layout = layout if isinstance(layout, Layout) else Layout.from_offsets(layout, int(layout[-1]))
    rows: Tensor = _RANDOM_ROWS.run(backend, layout.ranges, n_rows, seed)
    return rows


def _kmeans_plusplus(points: Tensor, layout: Layout, n_clusters: int, seed: int, n_trials: int, tie: float) -> Tensor:
    chosen = []
    for block in _blocks(layout, points.shape[1] + 8):
        x = points[block.row]
        local = torch.arange(len(block.row), device=points.device)
        pick = first_of_models(_exponential(seed, 0, block.position), block.model, block.n_models, local)
        taken = torch.zeros(len(local), dtype=torch.bool, device=points.device)
        taken[pick] = True
        picks = [block.row[pick]]
        nearest = (x - x[pick][block.model]).square_().sum(1).double()
        for k in range(1, n_clusters):
            # A potential of zero leaves nothing to be proportional to: then any row not yet taken is as good.
            spread = nearest.new_zeros(block.n_models).scatter_reduce_(0, block.model, nearest, "amax") > 0
            rate = torch.where(spread[block.model], nearest, (~taken).double())
            best_sum = nearest.new_full((block.n_models,), math.inf)
            best_pick, best_nearest = pick, nearest
            for trial in range(n_trials):
                clock = _exponential(seed, k * n_trials + trial, block.position) / rate
                candidate = first_of_models(clock, block.model, block.n_models, local)
                distance = (x - x[candidate][block.model]).square_().sum(1).double()
                distance = torch.minimum(distance, nearest)
                potential = torch.segment_reduce(distance, "sum", offsets=block.offsets)
                better = potential < best_sum * (1 - tie)
                best_sum = torch.where(better, potential, best_sum)
                best_pick = torch.where(better, candidate, best_pick)
                best_nearest = torch.where(better[block.model], distance, best_nearest)
            nearest, pick = best_nearest, best_pick
            taken[pick] = True
            picks.append(block.row[pick])
        chosen.append(torch.stack(picks, 1))
    return torch.cat(chosen)


# k-means++ is memory traffic and a few reductions for each centre: torch operations serve every device.
_BACKENDS = Backends(triton=_kmeans_plusplus, cpu="seeding:kmeans_plusplus", reference=_kmeans_plusplus)


def kmeans_plusplus(
    points: Tensor, layout: Layout | Tensor, n_clusters: int, seed: int, *, backend: str = "auto"
) -> Tensor:
    """Greedy k-means++ in every model at once.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64, finite.
    layout : Layout or Tensor
        The rows of each model, at least ``n_clusters``: a layout, or offsets int64 [M + 1].
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
    layout = layout if isinstance(layout, Layout) else Layout.from_offsets(layout, len(points))
    rows: Tensor = _BACKENDS.run(backend, points, layout, n_clusters, seed, n_trials, tie)
    return rows
