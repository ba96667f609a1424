"""pytest-benchmark suite: EM, start and log-probability at every shape, beside peers and the floor.

``python -m benchmarks`` runs it and prints one table; with FASTDENS_BENCH=quick, at the paper's shapes only.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache, partial

import pytest

from benchmarks.floors import em_floor
from benchmarks.peers import fastdens_fit, gmm_gpu_fit, sklearn_fit, tgmm_fit
from benchmarks.problems import SHAPES, clustered_points

QUICK = os.environ.get("FASTDENS_BENCH") == "quick"
CHOSEN = SHAPES[:2] if QUICK else SHAPES
MAX_PEER_BYTES = 2 << 30
shapes = pytest.mark.parametrize("shape", CHOSEN, ids=lambda shape: shape.name)
covariance_types = pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical", "tied"])


@lru_cache(maxsize=1)
def points_of(shape):
    """The points of a shape, made once for the tests that follow each other."""
    return clustered_points(shape)


def timed(benchmark, run, row, who, scale=1.0, warm_up=None):
    """Time ``run``: ours and the floor after a warm-up, peers once; ``scale`` is the share of the models, inverted."""
    benchmark.extra_info.update(row=row, who=who, scale=scale)
    if warm_up:
        warm_up()
    benchmark.pedantic(run, rounds=3 if warm_up else 1)


@shapes
@covariance_types
@pytest.mark.parametrize("who", ["fastdens", "floor", "scikit-learn", "gmm-gpu", "tgmm"])
def test_em(benchmark, shape, covariance_type, who):
    if who in ("floor", "gmm-gpu") and covariance_type != "full":
        pytest.skip(f"{who} is for full covariances")
    points, k, n_iter = points_of(shape), shape.n_components, shape.n_iter
    part = points[: shape.peer_models]
    if who in ("gmm-gpu", "tgmm") and 4 * part.numel() * k > MAX_PEER_BYTES:
        pytest.skip(f"{who} would hold [N, K, D] in memory")
    row = f"EM {covariance_type} {shape.name}"
    if who == "fastdens":
        warm_up = fastdens_fit(points[:2], k, 1, covariance_type, on_error="skip")
        timed(benchmark, fastdens_fit(points, k, n_iter, covariance_type), row, who, warm_up=warm_up)
    elif who == "floor":
        timed(benchmark, em_floor(points, k, n_iter), row, who, warm_up=em_floor(points[:2], k, 1))
    elif who == "gmm-gpu":
        # Its k-means start cannot be turned off: that of a fit of no iterations is taken off its time.
        start = time.perf_counter()
        gmm_gpu_fit(part, k, 0)()
        benchmark.extra_info["start"] = time.perf_counter() - start
        timed(benchmark, gmm_gpu_fit(part, k, n_iter), row, who, len(points) / len(part))
    else:
        run = {"scikit-learn": sklearn_fit, "tgmm": tgmm_fit}[who](part, k, n_iter, covariance_type)
        try:
            timed(benchmark, run, row, who, len(points) / len(part))
        except ValueError as error:
            pytest.skip(f"{who} gave up: {error}")


@shapes
@pytest.mark.parametrize("who", ["fastdens", "scikit-learn"])
def test_start(benchmark, shape, who):
    points, k, row = points_of(shape), shape.n_components, f"start k-means++ {shape.name}"
    if who == "fastdens":
        warm_up = fastdens_fit(points[:2], k, 0, "diag", init_params="kmeans++")
        timed(benchmark, fastdens_fit(points, k, 0, "diag", init_params="kmeans++"), row, who, warm_up=warm_up)
    else:
        part = points[: shape.peer_models]
        run = sklearn_fit(part, k, 0, "diag", init_params="k-means++")
        timed(benchmark, run, row, who, len(points) / len(part))


@shapes
@pytest.mark.parametrize("who", ["fastdens", "scikit-learn"])
def test_log_prob_under_all_models(benchmark, shape, who):
    from sklearn.mixture import GaussianMixture

    points, k, row = points_of(shape), shape.n_components, f"log_prob of 2,000 under all {shape.name}"
    x = points.reshape(-1, shape.n_features)[:2000].contiguous()
    part = points[: min(1000, len(points))]
    gm = fastdens_fit(part, k, 1, "full", on_error="skip")()
    if who == "fastdens":
        run = partial(gm.log_prob, x)
        timed(benchmark, run, row, who, len(points) / len(part), warm_up=run)
        return
    peers = []
    for m in range(min(10, len(part))):
        peer = GaussianMixture(k)
        peer.weights_, peer.means_ = gm.weights_[m].numpy(), gm.means_[m].numpy()
        peer.precisions_cholesky_ = gm.precisions_cholesky_[m].numpy()
        peers.append(peer)
    timed(benchmark, lambda: [peer.score_samples(x.numpy()) for peer in peers], row, who, len(points) / len(peers))
