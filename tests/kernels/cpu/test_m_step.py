"""Responsibilities that are mostly zero: numpy's means and variances of groups of points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdens.kernels import em_steps

from fastdens import kernels
from tests.problems import TOLERANCE, relative_error

GROUPS = 9


def separate_groups(rng, n, d, dtype):
    """Groups so far apart that a point belongs to one of them alone, which is returned beside them and the means."""
    means = 40.0 * rng.normal(size=(GROUPS, d)) / np.sqrt(d) + 100.0 * np.arange(GROUPS)[:, None]
    group = rng.integers(GROUPS - 1, size=n)
    points = means[group] + rng.normal(size=(n, d))
    return torch.from_numpy(points).to(dtype), torch.from_numpy(means).to(dtype)[None], group


def check_groups(points, group, means, variances, tolerance):
    for k in np.unique(group):
        own = points.double().numpy()[group == k]
        np.testing.assert_allclose(means[0, k].double(), own.mean(0), rtol=tolerance)
        np.testing.assert_allclose(variances[0, k].double(), own.var(0), rtol=0, atol=tolerance * (1 + own.var()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d"), [(1, 16), (300, 5), (300, 17), (70, 131)])
def test_statistics_of_groups(rng, n, d, dtype):
    points, centres, group = separate_groups(rng, n, d, dtype)
    lost = torch.full((2, d), torch.inf, dtype=dtype)
    resp = torch.from_numpy(np.eye(GROUPS)[group]).to(dtype)
    # Rows that belong to no component add nothing, be they infinite.
    sums = kernels.sufficient_statistics(
        torch.cat([points, lost]),
        torch.tensor([0, n + 2]),
        torch.cat([resp, resp.new_zeros(2, GROUPS)]),
        centres,
        covariance_type="diag",
        backend="cpu",
    )
    assert relative_error(sums.nk[0], torch.bincount(torch.from_numpy(group), minlength=GROUPS)) < TOLERANCE[dtype]
    check_groups(points, group, sums.means, sums.scatter / sums.nk[..., None], TOLERANCE[dtype])
    # The last component has no point and stays where it was.
    assert torch.equal(sums.means[0, -1], centres[0, -1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d"), [(300, 17), (70, 131)])
def test_step_of_groups(rng, n, d, dtype):
    points, means, group = separate_groups(rng, n, d, dtype)
    weights, factors = torch.full((1, GROUPS), 1 / GROUPS, dtype=dtype), torch.ones(1, GROUPS, d, dtype=dtype)
    steps = em_steps(
        points,
        torch.tensor([0, n]),
        weights,
        means,
        factors,
        torch.full((1,), -torch.inf, dtype=torch.float64),
        n_steps=1,
        tol=0.0,
        reg_covar=0.0,
        covariance_type="diag",
        backend="cpu",
    )
    check_groups(points, group, steps.means, steps.covariances, TOLERANCE[dtype])
