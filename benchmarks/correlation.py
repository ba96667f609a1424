"""Time of the intervals of `fastdens.analysis.correlate` beside scipy's: ``python -m benchmarks.correlation``.

A score with many zeros is correlated with the log-densities of four layers, over all examples and within the classes.
``correlate`` takes 1,000 resamples for Spearman's rho and a closed form for Kendall's tau. The alternative is
`scipy.stats.bootstrap` of ``spearmanr`` and of ``kendalltau``, over all examples and class by class. Its cost is
proportional to the number of resamples: it is timed on a few resamples of one layer, and scaled.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fastdens.analysis import correlate

ROOT = Path(__file__).parents[1]
N_LAYERS, N_RESAMPLES = 4, 1000
# Examples, and the classes that they fall into.
SIZES = {2_000: 20, 20_000: 100}
Array = NDArray[np.float64]


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """The shortest time of some repeats."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return min(times)


def scipy_seconds(statistic: Callable[[Array, Array], float], groups: list[tuple[Array, Array]], timed: int) -> float:
    """Seconds of bootstrap intervals for all layers, scaled from one layer and ``timed`` resamples."""

    def bootstrap() -> None:
        for pair in groups:
            stats.bootstrap(
                pair, statistic, n_resamples=timed, paired=True, vectorized=False, method="percentile", rng=0
            )

    return seconds(bootstrap, 1) / timed * N_RESAMPLES * N_LAYERS


def time_both(n_examples: int, n_classes: int, timed: int, repeats: int) -> dict[str, Any]:
    rng = np.random.default_rng(n_examples)
    labels = np.arange(n_examples) % n_classes
    scores = np.where(rng.random(n_examples) < 0.4, 0.0, rng.random(n_examples).round(3))
    layers = {f"layer {k}": rng.normal(size=n_examples) - k * scores for k in range(N_LAYERS)}
    density = layers["layer 1"]
    whole = [(scores, density)]
    by_class = [(scores[labels == c], density[labels == c]) for c in range(n_classes)]

    def spearman(x: Array, y: Array) -> float:
        return float(stats.spearmanr(x, y).statistic)

    def kendall(x: Array, y: Array) -> float:
        return float(stats.kendalltau(x, y).statistic)

    found = {
        "fastdens": seconds(lambda: correlate(scores, layers, labels, n_resamples=N_RESAMPLES), repeats),
        "fastdens, Kendall's tau": seconds(lambda: correlate(scores, layers, labels, n_resamples=1), repeats),
    }
    for name, statistic in (("Spearman", spearman), ("Kendall", kendall)):
        found[f"scipy, {name}, all examples"] = scipy_seconds(statistic, whole, timed)
        found[f"scipy, {name}, within classes"] = scipy_seconds(statistic, by_class, timed)
    found["scipy"] = sum(value for name, value in found.items() if name.startswith("scipy"))
    return {"examples": n_examples, "classes": n_classes, "layers": N_LAYERS, "seconds": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/correlation.json")
    parser.add_argument("--timed", type=int, default=10, help="resamples on which scipy is timed")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    results = []
    for n_examples, n_classes in SIZES.items():
        result = time_both(n_examples, n_classes, options.timed, options.repeats)
        results.append(result)
        print(f"{n_examples:,} examples, {n_classes} classes, {N_LAYERS} layers, {N_RESAMPLES:,} resamples")
        for name, value in result["seconds"].items():
            print(f"  {name:34}{value:10.2f} s", flush=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    content = {"machine": machine, "resamples": N_RESAMPLES, "timed": options.timed, "results": results}
    options.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
