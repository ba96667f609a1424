"""Starting points for many mixtures at once: k-means++ and random rows, on any device, from counter-based numbers.

k-means++ is the greedy variant of Arthur & Vassilvitskii (2007), as in scikit-learn: each new centre is the best of
``2 + log K`` candidates drawn with probability proportional to the squared distance to the nearest centre so far.
Draws are races (:mod:`~fastdens.kernels.races`), whose random numbers are a hash of (seed, draw, row within the model):
a model starts alike whatever else is in the batch, on whatever device. Points with weights start by those operations.

On a GPU one program chooses all centres of a model, in one launch for all models. Where one of them is too large for
that, chunks of rows are the programs, in two launches for each centre: chunks race for the candidates, and add up what
each candidate would leave. Either way sums run in the same order.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from fastdens.kernels import races
from fastdens.kernels.arguments import checked, count
from fastdens.kernels.counter_random_triton import stream_of, uniform
from fastdens.kernels.layout import Layout, ranges_of_offsets
from fastdens.kernels.mahalanobis import load_centred
from fastdens.kernels.operation import Backends, check_points, check_sample_weight
from fastdens.kernels.optional_triton import tl, triton
from torch import Tensor

# Rows of a chunk, the unit of sums, and of a model that one program takes alone.
_CHUNK_ROWS, _ONE_PROGRAM_ROWS = 1024, 4096
# Clocks at a time, over rows and trials, and a bound on registers: left to itself, the assembler spills.
_CLOCKS, _MAX_REGISTERS = 512, 168
_NO_ROW = tl.constexpr(torch.iinfo(torch.int64).max)


_RANDOM_RESPONSIBILITIES = Backends(
    triton=races.random_responsibilities, cpu="seeding:random_responsibilities", reference=races.random_responsibilities
)


@checked
def random_responsibilities(
    layout: Layout | Tensor,
    n_points: int,
    n_components: int,
    seed: int,
    dtype: torch.dtype,
    *,
    sample_weight: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Uniform random responsibilities, normalised.

    Parameters
    ----------
    layout : Layout or Tensor
        The rows of each model: a layout, or offsets int64 [M + 1].
    n_points, n_components, seed : int
        N, K, and the seed.
    dtype : torch.dtype
        Of the result.
    sample_weight : Tensor, optional
        [n_points], not negative. A row of integer weight w has the mean of the responsibilities of w rows, as long as
        the weights of its model are all integers and not very large.
    backend : {"auto", "triton", "cpu", "reference"}
        "triton" and "reference" are torch operations, on the device of the layout, as is everything with weights.

    Returns
    -------
    Tensor
        [N, K]; zero for rows that no model owns.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import random_responsibilities
    >>> resp = random_responsibilities(torch.tensor([0, 10]), 10, 3, seed=0, dtype=torch.float64)
    >>> resp.shape, bool(torch.allclose(resp.sum(1), torch.ones(10, dtype=torch.float64)))
    (torch.Size([10, 3]), True)
    """
    layout = layout if isinstance(layout, Layout) else Layout.from_offsets(layout, count("n_points", n_points))
    resp = torch.zeros(n_points, count("n_components", n_components), dtype=dtype, device=layout.ranges.device)
    return _run(_RANDOM_RESPONSIBILITIES, backend, sample_weight, resp, layout, seed)


def _random_rows(ranges: Tensor, n_rows: int, seed: int, sample_weight: Tensor | None = None) -> Tensor:
    return races.random_rows(Layout(ranges, 0), n_rows, seed, sample_weight)


_RANDOM_ROWS = Backends(triton=_random_rows, cpu="seeding:random_rows", reference=_random_rows)


@checked
def random_rows(
    layout: Layout | Tensor,
    n_rows: int,
    seed: int,
    *,
    sample_weight: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Draw ``n_rows`` different rows of every model.

    Parameters
    ----------
    layout : Layout or Tensor
        The rows of each model, at least ``n_rows``: a layout, or offsets int64 [M + 1].
    n_rows, seed : int
        Rows of each model, and the seed.
    sample_weight : Tensor, optional
        [N], not negative: rows are drawn in proportion to their weights. A row of integer weight w counts as w rows,
        and may be drawn as often, as long as the weights of its model are all integers and not very large.
    backend : {"auto", "triton", "cpu", "reference"}
        "triton" and "reference" are torch operations, on the device of the layout, as is everything with weights.

    Returns
    -------
    Tensor
        int64 [M, n_rows], rows of the batch.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import random_rows
    >>> random_rows(torch.tensor([0, 10, 30]), n_rows=3, seed=0).shape
    torch.Size([2, 3])
    """
    if not isinstance(layout, Layout):
        layout = Layout.from_ranges(ranges_of_offsets(layout), int(layout[-1]))
    _check_choice("random_rows", layout, count("n_rows", n_rows), sample_weight)
    return _run(_RANDOM_ROWS, backend, sample_weight, layout.ranges, n_rows, seed)


@triton.jit
def _first(race, row):
    """The row of the smallest clock in each column, [B, TRIALS] each; the first one of equals."""
    return tl.min(tl.where(race == tl.min(race, 0)[None, :], row, _NO_ROW), 0)


@triton.jit
def _winners(race_ptr, row_ptr, first, last, BLOCK: tl.constexpr, TRIALS: tl.constexpr):
    """Rows that win the races of the chunks of a model, [TRIALS]; _NO_ROW where nothing ran."""
    race, row = tl.full([BLOCK, TRIALS], float("inf"), tl.float64), tl.full([BLOCK, TRIALS], _NO_ROW, tl.int64)
    for c in range(first, last, BLOCK):
        chunk = c + tl.arange(0, BLOCK)[:, None]
        at = chunk * TRIALS + tl.arange(0, TRIALS)[None, :]
        clock = tl.load(race_ptr + at, mask=chunk < last, other=float("inf"))
        row = tl.where(clock < race, tl.load(row_ptr + at, mask=chunk < last, other=_NO_ROW), row)
        race = tl.minimum(race, clock)
    return _first(race, row)


@triton.jit
def _least(candidate_ptr, potential_ptr, first, last, n_trials, TIE, BLOCK: tl.constexpr, TRIALS: tl.constexpr):
    """The candidate of a model that leaves least; a later one has to leave less by the fraction TIE."""
    trials = tl.arange(0, TRIALS)
    total = tl.zeros([BLOCK, TRIALS], tl.float64)
    for c in range(first, last, BLOCK):
        chunk = c + tl.arange(0, BLOCK)[:, None]
        total += tl.load(potential_ptr + chunk * TRIALS + trials[None, :], mask=chunk < last, other=0.0)
    left = tl.sum(total, 0)
    best, smallest = tl.full([], 0, tl.int32), tl.sum(tl.where(trials == 0, left, 0.0), 0)
    for t in range(1, n_trials):
        own = tl.sum(tl.where(trials == t, left, 0.0), 0)
        better = own < smallest * (1.0 - TIE)
        best, smallest = tl.where(better, t, best), tl.where(better, own, smallest)
    return tl.load(candidate_ptr + best)


@triton.jit
def _squared_distances(points_ptr, rows, mask, centre, n_features, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """``|x_n - x_centre|^2``, [BLOCK_N]."""
    total = tl.zeros([BLOCK_N], points_ptr.dtype.element_ty)
    for d in range(0, n_features, BLOCK_D):
        columns = d + tl.arange(0, BLOCK_D)
        z = load_centred(points_ptr, rows, mask, points_ptr + centre * n_features, columns, n_features)
        total += tl.sum(z * z, 1)
    return total


@triton.jit
def _draw(
    k,
    chunk,
    points_ptr,
    chunk_start_ptr,
    chunk_stop_ptr,
    model_start,
    centre,
    nearest_ptr,
    race_ptr,
    row_ptr,
    seed,
    n_features,
    n_trials,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TRIALS: tl.constexpr,
):
    """Move the nearest centre of a chunk's points on to the last one, and race for the candidates of centre k.

    Column T is the race of the rows not taken, for models in which no distance is left. A row taken has distance -1.
    """
    trials = tl.arange(0, TRIALS)
    stream = stream_of(tl.cast(seed, tl.int64), tl.cast(k, tl.int64) * n_trials + trials % n_trials)
    race, row = tl.full([BLOCK_N, TRIALS], float("inf"), tl.float64), tl.full([BLOCK_N, TRIALS], _NO_ROW, tl.int64)
    stop = tl.load(chunk_stop_ptr + chunk)
    for n in range(tl.load(chunk_start_ptr + chunk), stop, BLOCK_N):
        rows = n + tl.arange(0, BLOCK_N)
        mask = rows < stop
        nearest = tl.load(nearest_ptr + rows, mask=mask & (k > 1), other=float("inf"))
        if k > 0:
            distance = _squared_distances(points_ptr, rows, mask, centre, n_features, BLOCK_N, BLOCK_D)
            nearest = tl.where(rows == centre, -1.0, tl.minimum(nearest, distance))
            tl.store(nearest_ptr + rows, nearest, mask=mask)
        rate = nearest.to(tl.float64)[:, None]
        rate = tl.where(trials == n_trials, tl.where(rate < 0.0, 0.0, 1.0), rate)
        runs = mask[:, None] & (rate > 0.0) & (trials <= n_trials)
        clock = -tl.log(uniform(stream[None, :], (rows - model_start)[:, None])) / tl.where(runs, rate, 1.0)
        clock = tl.where(runs, clock, float("inf"))
        row = tl.where(clock < race, rows[:, None], row)
        race = tl.minimum(race, clock)
    tl.store(race_ptr + chunk * TRIALS + trials, tl.min(race, 0))
    tl.store(row_ptr + chunk * TRIALS + trials, _first(race, row))


@triton.jit
def _weigh(
    chunk,
    points_ptr,
    chunk_start_ptr,
    chunk_stop_ptr,
    candidates,
    nearest_ptr,
    potential_ptr,
    n_features,
    n_trials,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TRIALS: tl.constexpr,
):
    """``sum_n min(nearest_n, |x_n - candidate|^2)`` of a chunk, for each candidate."""
    trials = tl.arange(0, TRIALS)
    total = tl.zeros([TRIALS], tl.float64)
    stop = tl.load(chunk_stop_ptr + chunk)
    for n in range(tl.load(chunk_start_ptr + chunk), stop, BLOCK_N):
        rows = n + tl.arange(0, BLOCK_N)
        mask = rows < stop
        nearest = tl.maximum(tl.load(nearest_ptr + rows, mask=mask, other=0.0), 0.0)
        for t in range(n_trials):
            candidate = tl.sum(tl.where(trials == t, candidates, 0), 0)
            distance = _squared_distances(points_ptr, rows, mask, candidate, n_features, BLOCK_N, BLOCK_D)
            left = tl.sum(tl.minimum(nearest, distance).to(tl.float64), 0)
            total += tl.where(trials == t, left, 0.0)
    tl.store(potential_ptr + chunk * TRIALS + trials, total)


@triton.jit(do_not_specialize=["first_k", "last_k", "seed", "n_clusters", "n_trials"])
def _kmeans_plusplus_kernel(
    points_ptr,  # [N, D]
    chunk_model_ptr,  # int64 [C]
    chunk_start_ptr,  # int64 [C]
    chunk_stop_ptr,  # int64 [C]
    first_ptr,  # int64 [M + 1]: the chunks of model m are first[m]:first[m + 1]
    own_ptr,  # int64 [programs + 1]: the chunks of program p are own[p]:own[p + 1], all of one model
    nearest_ptr,  # [N], squared distance to the nearest centre so far, -1 in the rows taken
    race_ptr,  # float64 [C, TRIALS], clocks of the candidates
    row_ptr,  # int64 [C, TRIALS], their rows
    candidate_ptr,  # int64 [M, TRIALS], column T of the race among the rows not taken
    potential_ptr,  # float64 [C, TRIALS]
    chosen_ptr,  # int64 [M, K]
    first_k,
    last_k,
    seed,
    n_features,  # D
    n_clusters,  # K
    n_trials,  # T
    DRAW: tl.constexpr,
    WEIGH: tl.constexpr,
    TIE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TRIALS: tl.constexpr,  # a power of two, at least T + 1
):
    """One program: centres ``first_k`` to ``last_k`` - 1 of one model; all its chunks and stages, or one of each."""
    begin, end = tl.load(own_ptr + tl.program_id(0)), tl.load(own_ptr + tl.program_id(0) + 1)
    m = tl.load(chunk_model_ptr + begin)
    first, last = tl.load(first_ptr + m), tl.load(first_ptr + m + 1)
    model_start = tl.load(chunk_start_ptr + first)
    trials = tl.arange(0, TRIALS)
    width = tl.cast(n_features, tl.int64)
    for k in range(first_k, last_k):
        if DRAW:
            centre = model_start
            if k == 1:
                centre = tl.load(candidate_ptr + m * TRIALS + n_trials)
            if k > 1:
                centre = _least(candidate_ptr + m * TRIALS, potential_ptr, first, last, n_trials, TIE, BLOCK_N, TRIALS)
            tl.store(chosen_ptr + m * n_clusters + k - 1, centre, mask=(begin == first) & (k > 0))
            for chunk in range(begin, tl.where(k < n_clusters, end, begin)):
                _draw(
                    k,
                    chunk,
                    points_ptr,
                    chunk_start_ptr,
                    chunk_stop_ptr,
                    model_start,
                    centre,
                    nearest_ptr,
                    race_ptr,
                    row_ptr,
                    seed,
                    width,
                    n_trials,
                    BLOCK_N,
                    BLOCK_D,
                    TRIALS,
                )
            # RAW: races and distances are read in other layouts than those they were stored in.
            tl.debug_barrier()
        if WEIGH:
            winners = _winners(race_ptr, row_ptr, first, last, BLOCK_N, TRIALS)
            any_row = tl.sum(tl.where(trials == n_trials, winners, 0), 0)
            candidates = tl.where(winners == _NO_ROW, any_row, winners)
            tl.store(candidate_ptr + m * TRIALS + trials, candidates, mask=(trials <= n_trials) & (begin == first))
            # The first centre is drawn among all rows, without candidates to weigh.
            for chunk in range(begin, tl.where((k > 0) & (k < n_clusters), end, begin)):
                _weigh(
                    chunk,
                    points_ptr,
                    chunk_start_ptr,
                    chunk_stop_ptr,
                    candidates,
                    nearest_ptr,
                    potential_ptr,
                    width,
                    n_trials,
                    BLOCK_N,
                    BLOCK_D,
                    TRIALS,
                )
            # RAW: candidates and what they leave. WAR: the next draw overwrites races and distances.
            tl.debug_barrier()


def _launch(points: Tensor, layout: Layout, n_clusters: int, seed: int, n_trials: int, tie: float) -> Tensor:
    n_features, device = points.shape[1], points.device
    chosen = torch.empty(layout.n_models, n_clusters, dtype=torch.int64, device=device)
    if layout.n_models == 0:
        return chosen
    chunks = layout.tiles(_CHUNK_ROWS)
    n_chunks, trials = len(chunks.model), 1 << n_trials.bit_length()

    def empty(length: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(length, trials, dtype=dtype, device=device)

    points = points.contiguous()
    memory = (
        torch.empty(len(points), dtype=points.dtype, device=device),
        empty(n_chunks, torch.float64),
        empty(n_chunks, torch.int64),
        empty(layout.n_models, torch.int64),
        empty(n_chunks, torch.float64),
        chosen,
    )

    def launch(own: Tensor, first_k: int, last_k: int, draw: bool, weigh: bool) -> None:
        _kmeans_plusplus_kernel[(len(own) - 1,)](
            points,
            *chunks,
            own,
            *memory,
            first_k,
            last_k,
            seed & 0x7FFFFFFFFFFFFFFF,
            n_features,
            n_clusters,
            n_trials,
            DRAW=draw,
            WEIGH=weigh,
            TIE=tie,
            BLOCK_N=min(64, _CLOCKS // trials),
            BLOCK_D=min(16, 1 << (n_features - 1).bit_length()),
            TRIALS=trials,
            num_warps=4,
            maxnreg=_MAX_REGISTERS,
        )

    if int(layout.sizes.max()) <= _ONE_PROGRAM_ROWS:
        launch(chunks.first, 0, n_clusters + 1, True, True)
        return chosen
    # Programs of one model wait for each other between launches.
    each = torch.arange(n_chunks + 1, device=device)
    for k in range(n_clusters + 1):
        launch(each, k, k + 1, True, False)
        if k < n_clusters:
            launch(each, k, k + 1, False, True)
    return chosen


_BACKENDS = Backends(triton=_launch, cpu="seeding:kmeans_plusplus", reference=races.kmeans_plusplus)


@checked
def kmeans_plusplus(
    points: Tensor,
    layout: Layout | Tensor,
    n_clusters: int,
    seed: int,
    *,
    sample_weight: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Greedy k-means++ in every model at once.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64, finite.
    layout : Layout or Tensor
        The rows of each model, at least ``n_clusters``: a layout, or offsets int64 [M + 1].
    n_clusters, seed : int
        Rows of each model, and the seed.
    sample_weight : Tensor, optional
        [N], not negative, in the dtype of the points. The choice is that among rows repeated as often as they weigh, as
        long as the weights of the model are all integers and not very large; else single rows compete by their weights.
    backend : {"auto", "triton", "cpu", "reference"}
        "reference" is torch operations, as is everything with weights.

    Returns
    -------
    Tensor
        int64 [M, n_clusters], rows of ``points``. Where a model has fewer different points than clusters, the
        remaining rows are drawn among those not yet chosen.

    Raises
    ------
    ValueError
        If a model has fewer points than ``n_clusters``.

    References
    ----------
    Arthur & Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import kmeans_plusplus
    >>> points = torch.tensor([[0.0], [0.1], [9.0], [5.0], [5.1], [-4.0]])
    >>> rows = kmeans_plusplus(points, torch.tensor([0, 3, 6]), n_clusters=2, seed=0)
    >>> points[rows, 0].sort().values.round()
    tensor([[ 0.,  9.],
            [-4.,  5.]])
    """
    check_points(points)
    n_trials = 2 + int(math.log(count("n_clusters", n_clusters)))
    # Two points that are each other's nearest leave the same potential, up to rounding: the earlier draw then stands.
    tie = 1e3 * torch.finfo(points.dtype).eps
    layout = layout if isinstance(layout, Layout) else Layout.from_offsets(layout, len(points))
    _check_choice("k-means++", layout, n_clusters, sample_weight)
    if sample_weight is not None:
        check_sample_weight(points, sample_weight)
    return _run(_BACKENDS, backend, sample_weight, points, layout, n_clusters, seed, n_trials, tie)


def _run(operation: Backends[Tensor], backend: str, sample_weight: Tensor | None, *arguments: Any) -> Tensor:
    """An operation of this file; weights are known to torch operations alone, whatever the backend."""
    if sample_weight is None:
        return operation.run(backend, *arguments)
    return operation.run("reference", *arguments, sample_weight)


def _check_choice(chooser: str, layout: Layout, n_rows: int, sample_weight: Tensor | None) -> None:
    """Raise a ValueError if a model has fewer rows, or copies of rows, than are to be chosen."""
    sizes = races.copies_of_models(layout, sample_weight)
    if layout.n_models and int(sizes.min()) < n_rows:
        m = int(sizes.argmin())
        raise ValueError(f"model {m} has {int(sizes[m])} points, but {chooser} is to choose {n_rows} of its rows.")
