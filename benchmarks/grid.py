"""EM beside scikit-learn's over a grid of shapes on the CPU: ``python -m benchmarks.grid [--quick]``.

Both fit the same models for the same number of iterations from the same parameters, in turns, on two threads. A ratio
is scikit-learn's shortest time over ours; a point below 1 is timed again before it counts. scikit-learn fits model
after model: where there are many, it is timed on a few, and its time is scaled. Prints every ratio and the ten worst,
writes ``benchmarks/results/grid-cpu.json`` unless it is quick, and exits with 1 if a ratio is below 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import fastdens as fd
from fastdens.bench.cases import Problem
from fastdens.bench.problems import clustered_points

RESULTS = Path(__file__).parent / "results" / "grid-cpu.json"
N_ITER = 10
# Scikit-learn is timed on so many models at most.
PEER_MODELS = 3
# Bounds on a point of the grid: numbers in the points, and multiply-adds of an iteration of all models.
MOST_NUMBERS, MOST_WORK = 1 << 26, 1 << 31
COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
MODELS, POINTS, FEATURES, COMPONENTS = (
    (1, 10, 100, 1000, 10_000),
    (100, 1000, 5000, 20_000),
    (1, 2, 4, 16, 64, 256),
    (1, 4, 16, 64),
)
QUICK = ((1, 100), (100, 1000, 20_000), (1, 16, 64), (1, 4, 64))


class Point(NamedTuple):
    """A point of the grid."""

    n_models: int
    n_points: int
    n_features: int
    n_components: int
    covariance_type: str
    dtype: str


def grid(quick: bool) -> Iterator[Point]:
    """The points whose data and work are within bounds, and whose models have a point for each component."""
    axes = QUICK if quick else (MODELS, POINTS, FEATURES, COMPONENTS)
    for m, n, d, k in itertools.product(*axes):
        for kind, dtype in itertools.product(COVARIANCE_TYPES, ("float32", "float64")):
            work = m * n * k * d * (d if kind in ("full", "tied") else 1)
            if k <= n and m * n * d <= MOST_NUMBERS and work <= (MOST_WORK >> 4 if quick else MOST_WORK):
                yield Point(m, n, d, k, kind, dtype)


def fits(point: Point) -> tuple[Callable[[], object], Callable[[], object], float]:
    """Our fit and scikit-learn's, and by how much the time of the latter is scaled."""
    from sklearn.mixture import GaussianMixture

    m, n, d, k, kind, dtype = point
    few = min(m, PEER_MODELS)
    # Models beyond those that scikit-learn is timed on are like them.
    points = clustered_points(Problem("grid", min(m, 100), n, d, k))[0].to(getattr(torch, dtype))
    points = points[torch.arange(m) % len(points)]
    means = points[:, :k]
    shape = {"full": (m, k, d, d), "tied": (m, d, d), "diag": (m, k, d), "spherical": (m, k)}[kind]
    precisions = torch.ones(()) if kind in ("diag", "spherical") else torch.eye(d)
    start: dict[str, Any] = {
        "weights_init": torch.full((m, k), 1 / k),
        "means_init": means,
        "precisions_init": precisions.expand(shape),
    }
    options: dict[str, Any] = {"covariance_type": kind, "tol": 0, "max_iter": N_ITER, "reg_covar": 1e-3}
    batch = fd.RaggedBatch.from_labels(points.reshape(m * n, d), torch.arange(m).repeat_interleave(n))
    ours = fd.GaussianMixtures(k, **options, **start)
    arrays: list[NDArray[Any]] = [x.numpy() for x in points[:few]]
    of_model = [{name: value[i].numpy().astype(dtype) for name, value in start.items()} for i in range(few)]
    theirs = [GaussianMixture(k, **options, **own) for own in of_model]

    def fit_theirs() -> None:
        for estimator, x in zip(theirs, arrays, strict=True):
            estimator.fit(x)

    return lambda: ours.fit(batch), fit_theirs, m / few


def ratio(point: Point, clock: Callable[[], float]) -> dict[str, Any]:
    """The shortest times of a point, of turns that go on while ours seems the slower."""
    ours, theirs, scale = fits(point)
    ours()
    best, begin = [np.inf, np.inf], clock()
    for turn in range(12):
        for i, run in enumerate((ours, theirs)):
            start = clock()
            run()
            best[i] = min(best[i], clock() - start)
        if best[1] * scale > best[0] and (turn >= 2 or clock() - begin > 2):
            break
    return {**point._asdict(), "fastdens_s": best[0], "sklearn_s": best[1] * scale, "ratio": best[1] * scale / best[0]}


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    shape = f"{row['n_models']:>6} x {row['n_points']:>6} x {row['n_features']:>4}, K = {row['n_components']:>3}"
    times = f"{1e3 * row['fastdens_s']:10.2f} ms {1e3 * row['sklearn_s']:12.2f} ms {row['ratio']:8.2f}"
    return f"{shape} {row['covariance_type']:>9} {row['dtype']} {times}"


def main() -> int:
    """Run the grid; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few points of each axis, in some minutes")
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop after so long, with what is done")
    parser.add_argument(
        "--threads", type=int, default=2, help="with 1, times are of the processor, which a busy machine leaves alone"
    )
    arguments = parser.parse_args()
    threads: int = arguments.threads
    clock = time.process_time if threads == 1 else time.perf_counter
    points = list(grid(arguments.quick))
    # What is done when time runs out is a sample of the whole.
    order = np.random.default_rng(0).permutation(len(points))
    rows: list[dict[str, Any]] = []
    torch.set_num_threads(threads)
    begin = time.monotonic()
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in order:
            if time.monotonic() - begin > arguments.seconds:
                break
            rows.append(ratio(points[i], clock))
            print(line(rows[-1]), flush=True)
    rows.sort(key=lambda row: row["ratio"])
    print(f"\n{len(rows)} of {len(points)} points, {N_ITER} iterations, {threads} threads; the worst ten:")
    print("\n".join(map(line, rows[:10])))
    if not arguments.quick:
        versions = {"torch": torch.__version__, "numpy": np.__version__}
        about = {"threads": threads, "cores": os.cpu_count(), "n_iter": N_ITER, "of": len(points), **versions}
        RESULTS.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    return int(rows[0]["ratio"] < 1)


if __name__ == "__main__":
    sys.exit(main())
