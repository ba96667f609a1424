"""Factor analysers: a hundred models against scikit-learn's FactorAnalysis one by one, and time against dimensions.

``python -m benchmarks.factor_analysers``, on one thread. Both stop when the log-likelihood of a model of N points rises
by less than 0.01, scikit-learn's default; the larger likelihood is the better fit.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

import fastdens as fd

N_POINTS, N_FACTORS, TOL = 500, 8, 1e-2


def of_factors(rng: np.random.Generator, n_features: int) -> NDArray[np.float64]:
    """500 points of eight factors in features of unlike noise."""
    loadings = 0.5 * rng.normal(size=(N_FACTORS, n_features))
    noise = rng.normal(size=(N_POINTS, n_features)) * rng.uniform(0.4, 1.4, n_features)
    return rng.normal(size=(N_POINTS, N_FACTORS)) @ loadings + noise


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def against_scikit_learn(rng: np.random.Generator, n_models: int, n_features: int, repeats: int) -> None:
    """Print the times of both, the least of alternating runs, and how the likelihoods compare."""
    from sklearn.decomposition import FactorAnalysis

    data = [of_factors(rng, n_features) for _ in range(n_models)]
    batch = fd.RaggedBatch.from_list(data)
    own = fd.FactorAnalyserMixtures(n_factors=N_FACTORS, tol=TOL / N_POINTS)
    peers = [FactorAnalysis(N_FACTORS, tol=TOL) for _ in data]

    def fit_peers() -> None:
        for peer, x in zip(peers, data, strict=True):
            peer.fit(x)

    times = np.array([(seconds(lambda: own.fit(batch)), seconds(fit_peers)) for _ in range(repeats)]).min(0)
    gain = (own.score(batch).numpy() - [peer.score(x) for peer, x in zip(peers, data, strict=True)]).mean()
    print(
        f"{n_models} models of {N_POINTS} points, D = {n_features}, Q = {N_FACTORS}: {times[0]:.2f} s, scikit-learn "
        f"{times[1]:.2f} s, ratio {times[1] / times[0]:.1f}; log-density per point better by {gain:.1e}"
    )


def against_dimensions(rng: np.random.Generator, dimensions: list[int], repeats: int) -> None:
    """Print the time of an EM iteration, and its exponent in D."""
    previous = None
    for d in dimensions:
        batch = fd.RaggedBatch.from_list([of_factors(rng, d)])
        fits = [fd.FactorAnalyserMixtures(2, N_FACTORS, tol=0, max_iter=n) for n in (10, 30)]
        times = np.array([[seconds(partial(fit.fit, batch)) for fit in fits] for _ in range(repeats)]).min(0)
        step = (times[1] - times[0]) / 20
        exponent = "" if previous is None else f", exponent {math.log(step / previous[1], d / previous[0]):.2f}"
        print(f"D = {d}: {1e3 * step:.2f} ms an iteration of {N_POINTS} points, K = 2, Q = {N_FACTORS}{exponent}")
        previous = d, step


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    against_dimensions(rng, [256, 512, 1024, 2048, 4096], arguments.repeats)
    against_scikit_learn(rng, arguments.models, arguments.features, arguments.repeats)


if __name__ == "__main__":
    main()
