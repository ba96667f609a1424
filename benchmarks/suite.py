"""pytest-benchmark suite: EM, start and log-probability at every shape, beside peers and the floor.

``python -m benchmarks`` runs it and prints one table; a quick set by default, everything with FASTDENS_BENCH=full.
"""

from __future__ import annotations

import os

import pytest

from benchmarks.floors import em_floor
from benchmarks.peers import fastdens_fit, gmm_gpu_fit, sklearn_fit, tgmm_fit
from benchmarks.problems import SHAPES, clustered_points

FULL = os.environ.get("FASTDENS_BENCH") == "full"
CHOSEN = SHAPES if FULL else SHAPES[:2]
shapes = pytest.mark.parametrize("shape", CHOSEN, ids=lambda shape: shape.name)
covariance_types = pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical", "tied"])


def timed(benchmark, run, row, who, scale=1.0, rounds=3):
    """Time ``run``; ``scale`` is the share of the models that a peer was given, inverted."""
    benchmark.extra_info.update(row=row, who=who, scale=scale)
    benchmark.pedantic(run, rounds=rounds, warmup_rounds=1 if who in ("fastdens", "floor") else 0)


@shapes
@covariance_types
@pytest.mark.parametrize("who", ["fastdens", "floor", "scikit-learn", "gmm-gpu", "tgmm"])
def test_em(benchmark, shape, covariance_type, who):
    if who in ("floor", "gmm-gpu") and covariance_type != "full":
        pytest.skip(f"{who} is for full covariances")
    points, k, n_iter = clustered_points(shape), shape.n_components, shape.n_iter
    row = f"EM {covariance_type} {shape.name}"
    if who == "fastdens":
        timed(benchmark, fastdens_fit(points, k, n_iter, covariance_type), row, who)
    elif who == "floor":
        timed(benchmark, em_floor(points, k, n_iter), row, who)
    else:
        part = points[: shape.peer_models]
        scale = len(points) / len(part)
        if who == "gmm-gpu":
            run = gmm_gpu_fit(part, k, n_iter)
        else:
            run = {"scikit-learn": sklearn_fit, "tgmm": tgmm_fit}[who](part, k, n_iter, covariance_type)
        timed(benchmark, run, row, who, scale, rounds=1)


@shapes
@pytest.mark.parametrize("who", ["fastdens", "scikit-learn"])
def test_start(benchmark, shape, who):
    points, k, row = clustered_points(shape), shape.n_components, f"start k-means++ {shape.name}"
    if who == "fastdens":
        run = fastdens_fit(points, k, 0, "diag", init_params="kmeans++")
        timed(benchmark, run, row, who)
    else:
        part = points[: shape.peer_models]
        run = sklearn_fit(part, k, 0, "diag", init_params="k-means++")
        timed(benchmark, run, row, who, len(points) / len(part), rounds=1)


@shapes
@pytest.mark.parametrize("who", ["fastdens", "scikit-learn"])
def test_log_prob_under_all_models(benchmark, shape, who):
    from sklearn.mixture import GaussianMixture

    points, k, row = clustered_points(shape), shape.n_components, f"log_prob of 2,000 under all {shape.name}"
    x = points.reshape(-1, shape.n_features)[:2000].contiguous()
    part = points[: min(1000, len(points))]
    gm = fastdens_fit(part, k, 1, "full", on_error="skip")()
    if who == "fastdens":
        timed(benchmark, lambda: gm.log_prob(x), row, who, len(points) / len(part))
        return
    peers = []
    for m in range(min(10, len(part))):
        peer = GaussianMixture(k)
        peer.weights_, peer.means_ = gm.weights_[m].numpy(), gm.means_[m].numpy()
        peer.precisions_cholesky_ = gm.precisions_cholesky_[m].numpy()
        peers.append(peer)
    timed(benchmark, lambda: [peer.score_samples(x.numpy()) for peer in peers], row, who, len(points) / len(peers))
