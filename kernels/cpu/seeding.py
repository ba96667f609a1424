"""CPU twin of :mod:`fastdens.kernels.seeding`: k-means++ in two passes over a model's points for each new centre.

The first pass draws the candidates, the second adds up what each would leave and keeps its distances, which are those
of the next draw once it is chosen. A thread takes a small model and chooses all its centres in one call; the chunks of
a large model are shared, pass after pass. Which of the two depends on the size of the model alone.
"""

from __future__ import annotations

import numpy as np
import torch
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import as_array, parallel_for
from fastdens.kernels.cpu._random import bits_of, exponential, stream_of, uniform
from fastdens.kernels.cpu._tiles import load_tile, padded, tile_width, whole_vectors
from fastdens.kernels.layout import Layout
from numpy.typing import NDArray
from torch import Tensor

# Numbers looked at for one centre that take one thread about the time that it takes to share them.
_MOST_WORK = 1 << 22
# Tiles of a chunk, whose candidates and sums are those of its model once all chunks are done.
_TILES_OF_CHUNK = 8
_BLOCK = 256


@kernel
def _race(nearest, position, stream):
    """The row whose exponential clock over ``nearest`` rings first, and when; -1 if none has any weight.

    The rows are those of a model from ``position`` on.
    """
    winner, soonest = -1, np.inf
    at_least = np.empty(_BLOCK)
    for start in range(0, len(nearest), _BLOCK):
        width = min(_BLOCK, len(nearest) - start)
        # A clock -log u is at least 1 - u: few rows come near the soonest so far and need a logarithm.
        for b in range(width):
            at_least[b] = (1 - 1e-9) * (1 - uniform(stream, position + start + b)) / nearest[start + b]
        least = np.inf
        for b in range(width):
            least = at_least[b] if at_least[b] < least else least
        if not least < soonest:
            continue
        # The row that may ring first goes first, so that it rules out most others.
        for rest in range(2):
            for b in range(width):
                if at_least[b] < soonest if rest else at_least[b] == least:
                    time = exponential(stream, position + start + b) / nearest[start + b]
                    if time < soonest or (time == soonest and start + b < winner):
                        winner, soonest = start + b, time
    return winner, soonest


@kernel
def _race_of_untaken(taken, position, stream):
    """The row not yet taken whose clock rings first, and when."""
    winner, soonest = -1, np.inf
    for n in range(len(taken)):
        if not taken[n]:
            time = exponential(stream, position + n)
            if time < soonest:
                winner, soonest = n, time
    return winner, soonest


@kernel
def _new_state(points, n_rows, n_trials):
    """Room for a model of so many rows: its points in tiles, nearest distances, rows taken, distances of candidates."""
    size = tile_width(points.shape[1])
    return (
        np.zeros((-(-n_rows // size), padded(points.shape[1]), size + 16), points.dtype),
        np.empty(n_rows, points.dtype),
        np.empty(n_rows, np.bool_),
        np.empty((n_trials, n_rows), points.dtype),
    )


@kernel
def _load_tiles(begin, end, points, first, last, tiles):
    """Lay rows ``first:last`` out in tiles ``begin:end``."""
    size = tile_width(points.shape[1])
    for i in range(begin, end):
        row = first + i * size
        load_tile(points, row, min(size, last - row), tiles[i])


@kernel
def _draw(begin, end, rows_of_chunk, seed, draw, nearest, taken, race, row):
    """Candidates of chunks ``begin:end``: ``row[t, c]``, whose clock rings at ``race[t, c]``.

    Row T of both holds the draw among the rows not taken, where no distance is left or there is no other trial.
    """
    n_trials = len(race) - 1
    for c in range(begin, end):
        first = c * rows_of_chunk
        last = min(first + rows_of_chunk, len(nearest))
        for t in range(n_trials):
            row[t, c], race[t, c] = _race(nearest[first:last], first, stream_of(seed, draw + t))
        race[n_trials, c] = np.inf
        if n_trials == 0 or row[0, c] < 0:
            row[n_trials, c], race[n_trials, c] = _race_of_untaken(taken[first:last], first, stream_of(seed, draw))


@kernel
def _soonest(times):
    """The chunk whose clock rings first."""
    first = 0
    for c in range(1, len(times)):
        if times[c] < times[first]:
            first = c
    return first


@kernel
def _candidates(rows_of_chunk, race, row):
    """The rows that win in the model, from the winners of its chunks."""
    n_trials = len(race) - 1
    candidate = np.empty(max(n_trials, 1), np.int64)
    for t in range(len(candidate)):
        trial, c = t, _soonest(race[t])
        if not race[t, c] < np.inf:
            trial, c = n_trials, _soonest(race[n_trials])
        candidate[t] = c * rows_of_chunk + row[trial, c]
    return candidate


@kernel
def _squared_distances(tile, width, centre, form):
    width = whole_vectors(width)
    for b in range(width):
        form[b] = 0
    for d in range(0, tile.shape[0], 4):
        c0, c1, c2, c3 = centre[d], centre[d + 1], centre[d + 2], centre[d + 3]
        for b in range(width):
            z0, z1, z2, z3 = tile[d, b] - c0, tile[d + 1, b] - c1, tile[d + 2, b] - c2, tile[d + 3, b] - c3
            form[b] += z0 * z0 + z1 * z1 + z2 * z2 + z3 * z3


@kernel
def _weigh(begin, end, rows_of_chunk, points, first_row, candidate, tiles, nearest, distance, potential):
    """``distance[t, n] = min(nearest_n, |x_n - candidate_t|^2)`` and its sum ``potential[t, c]``, in ``begin:end``."""
    size, n_trials = tile_width(points.shape[1]), len(candidate)
    centre, form = np.zeros((n_trials, tiles.shape[1]), points.dtype), np.empty(size, points.dtype)
    for t in range(n_trials):
        for d in range(points.shape[1]):
            centre[t, d] = points[first_row + candidate[t], d]
    for c in range(begin, end):
        potential[:, c] = 0
        for start in range(c * rows_of_chunk, min((c + 1) * rows_of_chunk, len(nearest)), size):
            tile, width = tiles[start // size], min(size, len(nearest) - start)
            for t in range(n_trials):
                _squared_distances(tile, width, centre[t], form)
                total = 0.0
                for b in range(width):
                    before = nearest[start + b]
                    left = form[b] if form[b] < before else before
                    distance[t, start + b] = left
                    total += left
                potential[t, c] += total


@kernel
def _least(potential, tie):
    """The candidate that leaves least; a later one has to leave less by the fraction ``tie``."""
    best, smallest = 0, potential[0].sum()
    for t in range(1, len(potential)):
        own = potential[t].sum()
        if own < smallest * (1 - tie):
            best, smallest = t, own
    return best


@kernel
def _choose(begin, end, row_ranges, rows_of_chunk, points, seed, n_trials, tie, chosen):
    """All centres of models ``begin:end``."""
    n_rows = 1
    for m in range(begin, end):
        n_rows = max(n_rows, row_ranges[m, 1] - row_ranges[m, 0])
    tiles, nearest_all, taken_all, distance_all = _new_state(points, n_rows, n_trials)
    n_chunks = -(-n_rows // rows_of_chunk)
    race_all, row_all = np.empty((n_trials + 1, n_chunks)), np.empty((n_trials + 1, n_chunks), np.int64)
    for m in range(begin, end):
        first, last = row_ranges[m]
        n_rows = last - first
        n_chunks = -(-n_rows // rows_of_chunk)
        nearest, taken, distance = nearest_all[:n_rows], taken_all[:n_rows], distance_all[:, :n_rows]
        nearest[:] = np.inf
        taken[:] = False
        _load_tiles(0, -(-n_rows // tile_width(points.shape[1])), points, first, last, tiles)
        for k in range(chosen.shape[1]):
            tries = n_trials if k else 0
            race, row = race_all[: tries + 1, :n_chunks], row_all[: tries + 1, :n_chunks]
            _draw(0, n_chunks, rows_of_chunk, seed, k * n_trials, nearest, taken, race, row)
            candidate = _candidates(rows_of_chunk, race, row)
            potential = race[: len(candidate)]
            _weigh(0, n_chunks, rows_of_chunk, points, first, candidate, tiles, nearest, distance, potential)
            best = _least(potential, tie)
            chosen[m, k] = first + candidate[best]
            taken[candidate[best]] = True
            # Element by element: an assignment of arrays brings a message on their shapes, which takes long to compile.
            for n in range(n_rows):
                nearest[n] = distance[best, n]


def _choose_together(
    first: int,
    last: int,
    rows_of_chunk: int,
    points: NDArray[np.floating],
    seed: int,
    n_trials: int,
    tie: float,
    chosen: NDArray[np.int64],
) -> None:
    """All centres of one large model, whose chunks the threads share."""
    n_rows = last - first
    n_chunks = -(-n_rows // rows_of_chunk)
    tiles, nearest, taken, distance = _new_state(points, n_rows, n_trials)
    nearest[:] = np.inf
    taken[:] = False
    parallel_for(_load_tiles, len(tiles), points, first, last, tiles)
    for k in range(len(chosen)):
        tries = n_trials if k else 0
        race, row = np.empty((tries + 1, n_chunks)), np.empty((tries + 1, n_chunks), np.int64)
        parallel_for(_draw, n_chunks, rows_of_chunk, seed, k * n_trials, nearest, taken, race, row)
        candidate = _candidates(rows_of_chunk, race, row)
        potential = race[: len(candidate)]
        arguments = (points, first, candidate, tiles, nearest, distance, potential)
        parallel_for(_weigh, n_chunks, rows_of_chunk, *arguments)
        best = _least(potential, tie)
        chosen[k] = first + candidate[best]
        taken[candidate[best]] = True
        nearest[:] = distance[best]


def kmeans_plusplus(points: Tensor, layout: Layout, n_clusters: int, seed: int, n_trials: int, tie: float) -> Tensor:
    """Rows of ``points`` that greedy k-means++ chooses in every model, int64 [M, K].

    A candidate replaces an earlier one if it leaves less by more than the fraction ``tie``.
    """
    n_features = points.shape[1]
    array, rows_of_chunk = as_array(points), _TILES_OF_CHUNK * tile_width(n_features)
    options = (rows_of_chunk, array, seed, n_trials, tie)
    most_rows = _MOST_WORK // (n_trials * (n_features + 40))
    large = [m for m, size in enumerate(layout.sizes.tolist()) if size > most_rows]
    small = layout if not large else layout.select([m for m in range(layout.n_models) if m not in set(large)])
    chosen = np.empty((small.n_models, n_clusters), np.int64)
    parallel_for(_choose, small.n_models, small.ranges.numpy(), *options, chosen)
    for m in large:
        own = np.empty(n_clusters, np.int64)
        first, last = layout.ranges[m].tolist()
        _choose_together(first, last, *options, own)
        chosen = np.insert(chosen, m, own, 0)
    return torch.from_numpy(chosen)


@kernel
def _rows(begin, end, row_ranges, seed, chosen):
    """The rows with the soonest clocks, which are those of the largest random bits, soonest first."""
    n_rows = chosen.shape[1]
    bits = np.empty(n_rows, np.uint64)
    stream = stream_of(seed, 0)
    for m in range(begin, end):
        first, last = row_ranges[m]
        filled = 0
        for n in range(first, last):
            own = bits_of(stream, n - first)
            if filled == n_rows and own <= bits[n_rows - 1]:
                continue
            at = min(filled, n_rows - 1)
            while at > 0 and bits[at - 1] < own:
                bits[at], chosen[m, at] = bits[at - 1], chosen[m, at - 1]
                at -= 1
            bits[at], chosen[m, at] = own, n
            filled = min(filled + 1, n_rows)


def random_rows(ranges: Tensor, n_rows: int, seed: int) -> Tensor:
    """As :func:`fastdens.kernels.random_rows`, of the row ranges int64 [M, 2]."""
    chosen = torch.empty(len(ranges), n_rows, dtype=torch.int64, device="cpu")
    parallel_for(_rows, len(ranges), ranges.numpy(), seed, chosen.numpy())
    return chosen


@kernel
def _fill_responsibilities(begin, end, row_ranges, seed, resp):
    number, n_components = resp.dtype.type, resp.shape[1]
    for m in range(begin, end):
        first, last = row_ranges[m]
        for k in range(n_components):
            stream = stream_of(seed, k)
            for n in range(first, last):
                resp[n, k] = number(uniform(stream, n - first))
        for n in range(first, last):
            total = number(0)
            for k in range(n_components):
                total += resp[n, k]
            for k in range(n_components):
                resp[n, k] /= total


def random_responsibilities(resp: Tensor, layout: Layout, seed: int) -> Tensor:
    """Fill ``resp`` [N, K] as :func:`fastdens.kernels.random_responsibilities` does, and return it."""
    parallel_for(_fill_responsibilities, layout.n_models, layout.ranges.numpy(), seed, resp.numpy())
    return resp
