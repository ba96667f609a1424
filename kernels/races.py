"""Random rows and k-means++ as races of rows, in torch operations on any device, for points with weights or without.

A draw with probabilities p_n is the first to arrive of exponential clocks of rates p_n, so that all models draw at once
without a running sum across models. The random number of a clock is a hash of (seed, draw, place within the model).

A point of weight w counts as w equal points would. Where all weights of a model are integers, copies of the rows race,
each with the number of the place that it would have among the repeated rows: the outcome is that of these, though no
point is repeated. Other weights, and integers whose sum is far beyond the number of points, are rates of the clocks of
single rows. Which of the two depends on the model's own weights alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from fastdens.kernels.counter_random import hashed_uniform
from fastdens.kernels.layout import Layout, bounded_runs, offsets_of
from torch import Tensor

_MAX_ELEMENTS = 1 << 23
# Copies of a model at most: so many for each of its points, or so many in all.
_COPIES_OF_POINT, _COPIES_OF_MODEL = 8, 1 << 16
# Numbers that a copy takes while it races.
_NUMBERS_OF_COPY = 8


class Copies(NamedTuple):
    """What races in place of some rows, R copies of n rows of M models, one after the other."""

    row: Tensor  # int64 [R], among the n
    model: Tensor  # int64 [R]
    position: Tensor  # int64 [R], within the model
    rate: Tensor | None  # float64 [R]; None where each is one
    of_row: Tensor | None  # int64 [n], how many each row has; None where each has one
    sizes: Tensor  # int64 [M], how many each model has


class Block(NamedTuple):
    """The rows of a run of models."""

    row: Tensor  # int64 [n], in the batch
    model: Tensor  # int64 [n]
    sizes: Tensor  # int64 [M]
    weight: Tensor | None  # float64 [n]
    copies: Copies


def most_copies(sizes: Tensor) -> Tensor:
    """Copies at most of the rows of models of so many points, int64 [M]."""
    return (_COPIES_OF_POINT * sizes).clamp_min(_COPIES_OF_MODEL)


def copies_of_rows(layout: Layout, sample_weight: Tensor) -> Tensor:
    """How many copies of each row race, int64, for the rows of all models one after the other.

    Parameters
    ----------
    layout : Layout
        Rows of each model.
    sample_weight : Tensor
        [N], not negative.
    """
    model, position = layout.rows
    weight = sample_weight[layout.ranges[model, 0] + position].double()
    fractions = torch.zeros_like(layout.sizes).index_add_(0, model, (weight != weight.round()).long())
    repeats = (fractions == 0) & (layout.sum(sample_weight) <= most_copies(layout.sizes))
    return torch.where(repeats[model], weight, (weight > 0).double()).long()


def copies_of_models(layout: Layout, sample_weight: Tensor | None) -> Tensor:
    """How many copies of the rows of each model race, int64 [M]: those are the clusters that it may have."""
    if sample_weight is None:
        return layout.sizes
    return torch.zeros_like(layout.sizes).index_add_(0, layout.rows.model, copies_of_rows(layout, sample_weight))


def blocks(layout: Layout, sample_weight: Tensor | None, width: int) -> Iterator[Block]:
    """Runs of consecutive models whose rows, ``width`` numbers each, and copies stay within a bound on memory."""
    numbers = layout.sizes * width
    if sample_weight is not None:
        numbers += _NUMBERS_OF_COPY * copies_of_models(layout, sample_weight)
    for begin, end in bounded_runs(numbers.tolist(), _MAX_ELEMENTS):
        own = layout.select(slice(begin, end))
        model, position = own.rows
        row = own.ranges[model, 0] + position
        if sample_weight is None:
            local = torch.arange(len(row), device=row.device)
            yield Block(row, model, own.sizes, None, Copies(local, model, position, None, None, own.sizes))
            continue
        weight, of_row = sample_weight[row].double(), copies_of_rows(own, sample_weight)
        sizes = torch.zeros_like(own.sizes).index_add_(0, model, of_row)
        copied = torch.repeat_interleave(of_row)
        place = torch.arange(len(copied), device=row.device) - offsets_of(sizes)[model[copied]]
        copies = Copies(copied, model[copied], place, (weight / of_row)[copied], of_row, sizes)
        yield Block(row, model, own.sizes, weight, copies)


def first_of_models(clock: Tensor, model: Tensor, sizes: Tensor, row: Tensor) -> Tensor:
    """Row (within the batch) of the smallest clock of each model; the first one of equals.

    The clocks of a model, float64 [N], lie one after the other, and as many as its size, int64 [M], which is not zero.
    """
    # Unsafe: the sizes of a layout are right, and looking at them would wait for the device.
    soonest = torch.segment_reduce(clock, "min", lengths=sizes, unsafe=True)
    # Float64 holds the number of any row.
    candidate = torch.where(clock == soonest[model], row.double(), math.inf)
    return torch.segment_reduce(candidate, "min", lengths=sizes, unsafe=True).long()


def _clocks(seed: int, draw: int, copies: Copies, rate: Tensor | None) -> Tensor:
    """When each copy arrives, float64 [R]."""
    clock = -torch.log(hashed_uniform(seed, draw, copies.position))
    return clock if rate is None else clock / rate


def _soonest(clock: Tensor, copies: Copies) -> Tensor:
    """The copy of each model that arrives first, int64 [M]."""
    return first_of_models(clock, copies.model, copies.sizes, torch.arange(len(clock), device=clock.device))


def random_responsibilities(resp: Tensor, layout: Layout, seed: int, sample_weight: Tensor | None = None) -> Tensor:
    """Fill ``resp`` [N, K] with uniform random responsibilities; a row has the mean of those of its copies."""
    n_components = resp.shape[1]
    for block in blocks(layout, sample_weight, n_components + 16):
        copies = block.copies
        draws = [hashed_uniform(seed, k, copies.position).to(resp.dtype) for k in range(n_components)]
        own = torch.stack(draws, 1)
        own /= own.sum(1, keepdim=True)
        if copies.of_row is not None:
            sums = torch.segment_reduce(own.double(), "sum", lengths=copies.of_row, unsafe=True)
            own = (sums / copies.of_row[:, None].clamp_min(1)).to(resp.dtype)
        resp[block.row] = own
    return resp


def random_rows(layout: Layout, n_rows: int, seed: int, sample_weight: Tensor | None = None) -> Tensor:
    """The rows of ``n_rows`` different copies of every model, int64 [M, n_rows]."""
    chosen = []
    for block in blocks(layout, sample_weight, 16):
        clock = _clocks(seed, 0, block.copies, block.copies.rate)
        picks = []
        for _ in range(n_rows):
            pick = _soonest(clock, block.copies)
            picks.append(block.row[block.copies.row[pick]])
            clock[pick] = math.inf
        chosen.append(torch.stack(picks, 1))
    return torch.cat(chosen)


def kmeans_plusplus(
    points: Tensor,
    layout: Layout,
    n_clusters: int,
    seed: int,
    n_trials: int,
    tie: float,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Rows that greedy k-means++ chooses in every model, int64 [M, n_clusters].

    A distance counts as often as its point weighs, in the draw of candidates and in what each would leave.
    """
    chosen = []
    for block in blocks(layout, sample_weight, points.shape[1] + 8):
        x, copies = points[block.row], block.copies
        pick = _soonest(_clocks(seed, 0, copies, copies.rate), copies)
        taken = torch.zeros(len(copies.row), dtype=torch.bool, device=points.device)
        taken[pick] = True
        picks = [copies.row[pick]]
        nearest = (x - x[picks[0]][block.model]).square_().sum(1).double()
        for k in range(1, n_clusters):
            # A potential of zero leaves nothing to be proportional to: then any copy not yet taken is as good.
            spread = torch.segment_reduce(nearest, "max", lengths=block.sizes, unsafe=True) > 0
            rate = torch.where(spread[copies.model], nearest[copies.row], (~taken).double())
            rate = rate if copies.rate is None else rate * copies.rate
            best_sum = nearest.new_full((len(block.sizes),), math.inf)
            best_pick, best_nearest = pick, nearest
            for trial in range(n_trials):
                candidate = _soonest(_clocks(seed, k * n_trials + trial, copies, rate), copies)
                distance = (x - x[copies.row[candidate]][block.model]).square_().sum(1).double()
                distance = torch.minimum(distance, nearest)
                counted = distance if block.weight is None else block.weight * distance
                potential = torch.segment_reduce(counted, "sum", lengths=block.sizes, unsafe=True)
                better = potential < best_sum * (1 - tie)
                best_sum = torch.where(better, potential, best_sum)
                best_pick = torch.where(better, candidate, best_pick)
                best_nearest = torch.where(better[block.model], distance, best_nearest)
            nearest, pick = best_nearest, best_pick
            taken[pick] = True
            picks.append(copies.row[pick])
        chosen.append(block.row[torch.stack(picks, 1)])
    return torch.cat(chosen)
