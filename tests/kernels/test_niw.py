"""Posteriors of clusters against the update of one point after the other, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdens.kernels import niw_posterior

from tests.problems import CPU, GPU, INTERPRETER, REFERENCE


def one_by_one(x, m0, s0, kappa0):
    """kappa, m and S after each point in turn (Murphy 2007, eqs. 250 to 253 for n = 1)."""
    kappa, mean, scale = kappa0, m0.copy(), np.diag(s0)
    for row in x:
        scale = scale + kappa / (kappa + 1) * np.outer(row - mean, row - mean)
        mean = (kappa * mean + row) / (kappa + 1)
        kappa += 1
    return mean, scale


@pytest.mark.parametrize(("sizes", "d", "k"), [([1], 1, 1), ([9, 1, 30], 3, 4), ([40, 7], 17, 3)])
@pytest.mark.parametrize(("backend", "device"), [CPU, REFERENCE, INTERPRETER, GPU])
def test_is_the_update_of_one_point_after_the_other(rng, backend, device, sizes, d, k):
    points = rng.normal(size=(sum(sizes), d)) + 100
    labels = rng.integers(0, k, size=len(points))
    m0, s0 = rng.normal(size=(len(sizes), d)) + 100, rng.uniform(0.5, 2, size=(len(sizes), d))
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    tensors = [torch.from_numpy(a).to(device) for a in (points, labels, m0, s0)]
    x, z, prior_mean, prior_scale = tensors
    got = niw_posterior(x, offsets.to(device), z, k, prior_mean, prior_scale, 0.3, backend=backend)
    for m, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        for c in range(k):
            own = points[start:stop][labels[start:stop] == c]
            mean, scale = one_by_one(own, m0[m], s0[m], 0.3)
            assert int(got.counts[m, c]) == len(own)
            np.testing.assert_allclose(got.mean[m, c].cpu(), mean, rtol=1e-12)
            factor = got.precisions_cholesky[m, c].cpu().numpy()
            np.testing.assert_allclose(factor @ factor.T @ scale, np.eye(d), atol=1e-9)
            assert np.array_equal(factor, np.triu(factor))
            assert float(got.log_det[m, c]) == pytest.approx(np.linalg.slogdet(scale)[1], abs=1e-9)


def test_rows_that_no_model_owns(rng):
    prior = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="leave out some points"):
        niw_posterior(torch.zeros(5, 2), torch.tensor([0, 4]), torch.zeros(5).long(), 1, prior, prior + 1, 0.1)
