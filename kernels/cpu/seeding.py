"""CPU twin of k-means++ in :mod:`fastdens.kernels.seeding`: two passes over the points for each new centre.

The first pass moves every point's nearest centre on to the last one chosen and draws the candidates; the second adds
up what each candidate would leave. Chunks of rows are the unit of work, so that one large model uses all threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import as_array, parallel_for
from fastdens.kernels.cpu._random import exponential, stream_of
from fastdens.kernels.layout import Layout
from numpy.typing import NDArray
from torch import Tensor


@kernel
def _squared_distance(points, a, b):
    total = points.dtype.type(0)
    for d in range(points.shape[1]):
        z = points[a, d] - points[b, d]
        total += z * z
    return total


@kernel
def _draw(begin, end, model, first_row, last_row, model_start, points, centre, seed, draw, nearest, taken, race, row):
    """Candidates of each chunk: ``row[c, t]`` with the smallest ``race[c, t]``, exponential over weight.

    Column T holds the draw among the rows not taken, for models in which no distance is left.
    """
    n_trials = row.shape[1] - 1
    first_stream = stream_of(seed, draw)
    for c in range(begin, end):
        m = model[c]
        for t in range(n_trials + 1):
            race[c, t] = np.inf
            row[c, t] = -1
        for n in range(first_row[c], last_row[c]):
            if draw > 0:
                nearest[n] = min(nearest[n], _squared_distance(points, n, centre[m]))
                if n == centre[m]:
                    taken[n] = True
            clock = exponential(first_stream, n - model_start[m])
            if not taken[n] and clock < race[c, n_trials]:
                race[c, n_trials] = clock
                row[c, n_trials] = n
            for t in range(n_trials):
                if t > 0:
                    clock = exponential(stream_of(seed, draw + t), n - model_start[m])
                if nearest[n] > 0 and clock / nearest[n] < race[c, t]:
                    race[c, t] = clock / nearest[n]
                    row[c, t] = n


@kernel
def _add_potentials(begin, end, model, first_row, last_row, points, candidate, nearest, potential):
    """``sum_n min(nearest_n, |x_n - candidate|^2)`` of each chunk and candidate."""
    n_trials = potential.shape[1]
    for c in range(begin, end):
        m = model[c]
        for t in range(n_trials):
            total = 0.0
            for n in range(first_row[c], last_row[c]):
                total += min(nearest[n], _squared_distance(points, n, candidate[m, t]))
            potential[c, t] = total


def _first_of_models(race: NDArray[Any], row: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row that wins in each model, [M, T], from the winners of its chunks."""
    best = np.minimum.reduceat(race, first[:-1])
    wins = np.where(race == np.repeat(best, np.diff(first), 0), row, np.iinfo(np.int64).max)
    return np.minimum.reduceat(wins, first[:-1])


def kmeans_plusplus(points: Tensor, layout: Layout, n_clusters: int, seed: int, n_trials: int, tie: float) -> Tensor:
    """Rows of ``points`` that greedy k-means++ chooses in every model, int64 [M, K].

    A candidate replaces an earlier one if it leaves less by more than the fraction ``tie``.
    """
    *work, first = (t.numpy() for t in layout.chunks(n_clusters, points.shape[1]))
    n_chunks = len(work[0])
    model_start = as_array(layout.ranges[:, 0])
    array = as_array(points)
    nearest = np.full(len(array), np.inf, array.dtype)
    taken = np.zeros(len(array), np.bool_)
    chosen = np.empty((layout.n_models, n_clusters), np.int64)
    for k in range(n_clusters):
        # Nothing is chosen before the first draw, in which every row is as likely as any other.
        tries = n_trials if k else 0
        race, row = np.empty((n_chunks, tries + 1)), np.empty((n_chunks, tries + 1), np.int64)
        centre = chosen[:, k - 1] if k else np.zeros(layout.n_models, np.int64)
        draw = k * n_trials
        arguments = (model_start, array, centre, seed, draw, nearest, taken, race, row)
        parallel_for(_draw, n_chunks, *work, *arguments)
        winner = _first_of_models(race, row, first)
        if not k:
            chosen[:, 0] = winner[:, 0]
            continue
        candidate = np.where(winner[:, :tries] < 0, winner[:, tries:], winner[:, :tries])
        potential = np.empty((n_chunks, tries))
        parallel_for(_add_potentials, n_chunks, *work, array, candidate, nearest, potential)
        left = np.add.reduceat(potential, first[:-1])
        best, smallest = candidate[:, 0], left[:, 0]
        for t in range(1, tries):
            better = left[:, t] < smallest * (1 - tie)
            best, smallest = np.where(better, candidate[:, t], best), np.where(better, left[:, t], smallest)
        chosen[:, k] = best
    return torch.from_numpy(chosen)
