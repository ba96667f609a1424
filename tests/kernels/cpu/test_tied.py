"""Components that share a factor: distances against scipy, scatter against sums written out, however far they lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from fastdens import kernels

TOLERANCE = {np.float32: 1e-4, np.float64: 1e-10}


def tied_problem(rng, n, d, k, separation, dtype):
    """Points about all but the last of k means, ``separation`` standard deviations apart, and their covariance."""
    root = rng.normal(size=(d, d)) + 2 * np.eye(d)
    means = separation * rng.normal(size=(k, d)) @ root.T
    points = means[rng.integers(k - 1, size=n)] + rng.normal(size=(n, d)) @ root.T
    return points.astype(dtype), means.astype(dtype), root @ root.T


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("separation", [0.5, 30, 1e4, 1e9])
@pytest.mark.parametrize(("n", "d", "k"), [(300, 5, 3), (70, 33, 2), (1, 1, 4)])
def test_distances_are_those_of_scipy(rng, n, d, k, separation, dtype):
    points, means, covariance = tied_problem(rng, n, d, k, separation, dtype)
    # A mean that an absurd row has drawn to itself leaves the distances from the others alone.
    means[-1] += dtype(1e12)
    factor = np.linalg.inv(np.linalg.cholesky(covariance)).T.astype(dtype)
    weights = torch.full((1, k), 1 / k, dtype=torch.from_numpy(points).dtype)
    weights[0, -1] /= 2
    log_prob = kernels.mixture_log_prob(
        torch.from_numpy(points),
        weights,
        torch.from_numpy(means)[None],
        torch.from_numpy(factor)[None],
        covariance_type="tied",
    )
    double = factor.astype(float)
    distance = cdist(points.astype(float), means.astype(float), "mahalanobis", VI=double @ double.T)
    joint = np.log(weights.numpy().astype(float)) - 0.5 * distance**2 + np.log(np.diag(double)).sum()
    want = np.logaddexp.reduce(joint, 1) - 0.5 * d * np.log(2 * np.pi)
    assert (np.abs(log_prob[:, 0].numpy() - want) < TOLERANCE[dtype] * np.maximum(np.abs(want), 1)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("separation", [0.5, 300])
@pytest.mark.parametrize(("n", "d", "k"), [(1500, 5, 3), (600, 17, 2), (40, 2, 30), (1, 1, 2)])
def test_scatter_is_the_sum_written_out(rng, n, d, k, separation, dtype):
    points, means, _ = tied_problem(rng, n, d, k, separation, dtype)
    resp = rng.dirichlet(np.full(k, 0.3), size=n).astype(dtype)
    # Rows of any sum, and of none.
    resp *= rng.uniform(0, 2, size=(n, 1)).astype(dtype)
    resp[n // 2] = 0
    _, found, scatter = kernels.sufficient_statistics(
        torch.from_numpy(points),
        torch.tensor([0, n]),
        torch.from_numpy(resp),
        torch.from_numpy(means)[None],
        covariance_type="tied",
    )
    z = points.astype(float)[:, None] - found[0].numpy().astype(float)
    want = np.einsum("nk,nki,nkj->ij", resp.astype(float), z, z)
    assert np.abs(scatter[0].numpy() - want).max() <= TOLERANCE[dtype] * np.abs(want).max()
    assert torch.equal(scatter, scatter.mT)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_threads_that_share_a_model_change_no_bit(rng, covariance_type):
    points, means, covariance = tied_problem(rng, 3000, 20, 7, 1, np.float32)
    factor = torch.linalg.inv(torch.linalg.cholesky(torch.from_numpy(covariance))).mT.float()
    factors = factor[None] if covariance_type == "tied" else factor.expand(1, 7, 20, 20)
    threads, results = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            results.append(
                kernels.em_statistics(
                    torch.from_numpy(points),
                    torch.tensor([0, 3000]),
                    torch.full((1, 7), 1 / 7),
                    torch.from_numpy(means)[None],
                    factors,
                    covariance_type=covariance_type,
                )
            )
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
