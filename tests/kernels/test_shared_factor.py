"""Mixtures of one factor for all models against the reference, which has the factor once for each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdens.kernels import mixture_log_prob, responsibilities, sufficient_statistics
from fastdens.kernels.layout import Layout
from fastdens.kernels.shared_factor import product, shared_log_prob, shared_responsibilities, shared_scatter


def problem(rng, d, k, dtype, sizes=(7, 0, 1, 20)):
    """Mixtures whose models lie apart, with rows between them that none owns."""
    n, m = sum(sizes) + 5, len(sizes)
    stop = torch.tensor(sizes).cumsum(0) + 3
    layout = Layout.from_ranges(torch.stack([stop - torch.tensor(sizes), stop], 1), n)
    factor = np.triu(rng.normal(size=(d, d)), 1) + np.diag(rng.uniform(0.3, 2, d))
    values = 3 * rng.normal(size=(n, d)), rng.dirichlet(np.ones(k), size=m), 3 * rng.normal(size=(m, k, d)), factor
    return layout, *(torch.from_numpy(value).to(dtype) for value in values)


@pytest.mark.parametrize(("d", "k"), [(1, 1), (3, 4), (17, 2)])
@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("cpu", torch.float64), ("cpu", torch.float32), ("reference", torch.float64), ("triton", torch.float32)],
)
@pytest.mark.parametrize("elements", [1, 1 << 23])
def test_agrees_with_a_factor_for_each_model(rng, monkeypatch, d, k, backend, dtype, elements):
    monkeypatch.setattr("fastdens.kernels.shared_factor._MOST_ELEMENTS", elements)
    layout, points, weights, means, factor = problem(rng, d, k, dtype)
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-3}
    expanded = factor.double().expand(len(means), d, d)
    double = (points.double(), weights.double(), means.double(), expanded)
    options = {"covariance_type": "tied", "backend": "reference"}
    log_prob = shared_log_prob(points, weights, means, factor, backend=backend)
    np.testing.assert_allclose(log_prob, mixture_log_prob(*double, **options), **tolerance)
    own = shared_responsibilities(points, layout, weights, means, factor, backend=backend)
    expected = responsibilities(double[0], layout, *double[1:], **options)
    inside = expected.log_prob_norm != 0
    np.testing.assert_allclose(own.resp[inside], expected.resp[inside], **tolerance)
    np.testing.assert_allclose(own.log_prob_norm[inside], expected.log_prob_norm[inside], **tolerance)
    resp = expected.resp * torch.from_numpy(rng.uniform(0, 3, (len(points), 1)))
    sums = sufficient_statistics(double[0], layout, resp, double[2], backend="reference")
    scatter = shared_scatter(points, layout, resp.to(dtype), sums.means.to(dtype), backend=backend)
    total = sums.scatter.sum((0, 1))
    np.testing.assert_allclose(scatter, total, rtol=tolerance["rtol"], atol=tolerance["rtol"] * float(total.max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_do_not_depend_on_the_number_of_threads(rng, dtype):
    n_threads = torch.get_num_threads()
    for n, d, m in ((7, 17, 17), (333, 257, 257), (3, 129, 5), (1, 1, 1)):
        a, b = (torch.from_numpy(rng.normal(size=shape)).to(dtype) for shape in ((n, d), (d, m)))
        results = []
        for count in (1, 2, 3, 16):
            torch.set_num_threads(count)
            results.append(product(a, b))
        torch.set_num_threads(n_threads)
        assert all(torch.equal(result, results[0]) for result in results)
        np.testing.assert_allclose(results[0], a @ b, atol=1e-4)
