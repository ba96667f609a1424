"""Starting points of one model whose rows are divided over ranks: as :mod:`fastdens.kernels.seeding` chooses them.

Races of exponential clocks, as there: each rank races its own rows, and the soonest of all ranks wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens.inference.point_blocks import PointBlocks
from fastdens.kernels.counter_random import hashed_uniform


class _Potentials(NamedTuple):
    """What each of T candidates would leave, float64 [T]."""

    left: Tensor


def random_rows(blocks: PointBlocks, n_rows: int, seed: int, device: torch.device) -> Tensor:
    """Different rows of the model, int64 [n_rows]."""
    clocks = _exponential(seed, 0, _positions(blocks, device))[None]
    chosen = []
    for _ in range(n_rows):
        chosen.append(blocks.first(clocks)[1])
        _exclude(blocks, clocks, chosen[-1])
    return torch.cat(chosen)


def kmeans_plusplus(
    blocks: PointBlocks, own: Tensor, coordinates: Callable[[Tensor], Tensor], n_clusters: int, seed: int
) -> Tensor:
    """Greedy k-means++ (Arthur & Vassilvitskii 2007): rows of the model, int64 [n_clusters].

    Parameters
    ----------
    blocks : PointBlocks
    own : Tensor
        [n, D], the points of this rank.
    coordinates : callable
        The points [T, D] at some rows of the model int64 [T], which may be other ranks'.
    n_clusters, seed : int
    """
    n_trials = 2 + int(math.log(n_clusters))
    tie = 1e3 * torch.finfo(own.dtype).eps
    position = _positions(blocks, own.device)
    free = torch.zeros_like(position, dtype=torch.float64)[None]
    _, chosen = blocks.first(_exponential(seed, 0, position)[None])
    picks = [chosen]
    _exclude(blocks, free, chosen)
    nearest = _squared_distances(blocks, own, coordinates(chosen))[0]
    for k in range(1, n_clusters):
        draws = torch.stack([_exponential(seed, k * n_trials + trial, position) for trial in range(n_trials)])
        # Where no distance is left, any row not yet taken is as good.
        clock, candidates = blocks.first(torch.cat([draws / nearest, draws[:1] + free]))
        candidates = torch.where(clock[:-1].isfinite(), candidates[:-1], candidates[-1])
        distances = torch.minimum(_squared_distances(blocks, own, coordinates(candidates)), nearest)
        left = _sum(blocks, distances).tolist()
        best = 0
        for trial in range(1, n_trials):
            best = trial if left[trial] < left[best] * (1 - tie) else best
        nearest = distances[best]
        picks.append(candidates[best : best + 1])
        _exclude(blocks, free, picks[-1])
    return torch.cat(picks)


def _sum(blocks: PointBlocks, values: Tensor) -> Tensor:
    """Sums of values [T, n] of the rows of all ranks, [T]."""

    def of_block(rows: slice) -> _Potentials:
        return _Potentials(values[:, rows].sum(1))

    def add(a: _Potentials, b: _Potentials) -> _Potentials:
        return _Potentials(a.left + b.left)

    return blocks.sum(_Potentials(values.new_zeros(len(values))), of_block, add).left


def _squared_distances(blocks: PointBlocks, own: Tensor, centres: Tensor) -> Tensor:
    """Of this rank's points from centres [T, D], float64 [T, n].

    A block at a time: how torch adds up the features may depend on the number of rows.
    """
    result = torch.empty(len(centres), len(own), dtype=torch.float64, device=own.device)
    for block in blocks.own:
        for trial, centre in enumerate(centres):
            result[trial, block] = (own[block] - centre).square_().sum(1).double()
    return result


def _exponential(seed: int, draw: int, position: Tensor) -> Tensor:
    return -torch.log(hashed_uniform(seed, draw, position))


def _positions(blocks: PointBlocks, device: torch.device) -> Tensor:
    """Places of this rank's rows within the model, int64 [n]."""
    return torch.arange(blocks.rows.start, blocks.rows.stop, device=device)


def _exclude(blocks: PointBlocks, clocks: Tensor, row: Tensor) -> None:
    """Let a row of the model win no race any more."""
    at = int(row) - blocks.rows.start
    if 0 <= at < clocks.shape[1]:
        clocks[:, at] = math.inf
