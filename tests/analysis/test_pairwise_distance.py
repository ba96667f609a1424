"""Mean distance between pairs against scipy, a delete-one jackknife, and Gaussians in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

import fastdens as fd
from fastdens.analysis import pairwise_distance
from fastdens.analysis.pairwise_distance import mean_pairwise_distance


@pytest.mark.parametrize(("dtype", "shift"), [(np.float64, 0.0), (np.float64, 1e4), (np.float32, 1e4)])
@pytest.mark.parametrize("d", [1, 7])
def test_value_is_that_of_scipy_and_error_that_of_leaving_one_out(rng, dtype, shift, d):
    classes = [(rng.normal(size=(n, d)) + shift).astype(dtype) for n in (3, 2, 150, 20)]
    found = mean_pairwise_distance(fd.RaggedBatch.from_list(classes))
    exact = [pdist(x.astype(np.float64)).mean() for x in classes]
    np.testing.assert_allclose(found.value, exact, rtol=1e-12)
    for m in (0, 3):
        n = len(classes[m])
        left_out = np.array([pdist(np.delete(classes[m], i, 0).astype(np.float64)).mean() for i in range(n)])
        expected = math.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
        assert found.standard_error[m] == pytest.approx(expected, rel=1e-9)
    assert torch.isnan(found.standard_error).tolist() == [False, True, False, False]


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_blocks_add_up(rng, monkeypatch, rows):
    batch = fd.RaggedBatch.from_labels(rng.normal(size=(150, 3)), rng.integers(0, 3, 150))
    whole = mean_pairwise_distance(batch)
    monkeypatch.setattr(pairwise_distance, "_ROWS", rows)
    blocks = mean_pairwise_distance(batch)
    np.testing.assert_allclose(blocks, whole, rtol=1e-11)


def test_gaussians_and_the_spread_of_repeated_samples(rng):
    n_samples, n, d = 1000, 40, 3
    scale = rng.uniform(0.1, 10)
    batch = fd.RaggedBatch.from_list(list(scale * rng.normal(size=(n_samples, n, d))))
    value, standard_error = (part.numpy() for part in mean_pairwise_distance(batch))
    # x - y is N(0, 2 s^2 I), its length s sqrt(2) times a chi of D degrees of freedom.
    exact = 2 * scale * math.gamma((d + 1) / 2) / math.gamma(d / 2)
    assert abs(value.mean() - exact) < 5 * value.std() / math.sqrt(n_samples)
    ratio = math.sqrt((standard_error**2).mean()) / value.std(ddof=1)
    assert 0.9 < ratio < 1.15
    covered = np.abs(value - exact) < 1.96 * standard_error
    assert 0.9 < covered.mean() < 0.98


def test_small_and_broken_classes(rng):
    classes = [rng.normal(size=(n, 2)) for n in (30, 1, 2, 30, 30)]
    classes[3][4, 1] = np.nan
    alone = mean_pairwise_distance(fd.RaggedBatch.from_list([classes[4]]))
    batch = fd.RaggedBatch.from_list([*classes[:4], classes[4], classes[0][:0]])
    found = mean_pairwise_distance(batch)
    assert found.value.dtype == found.standard_error.dtype == torch.float64
    assert torch.isfinite(found.value).tolist() == [True, False, True, False, True, False]
    assert torch.isfinite(found.standard_error).tolist() == [True, False, False, False, True, False]
    assert found.value[4] == alone.value[0] and found.standard_error[4] == alone.standard_error[0]
    same = mean_pairwise_distance(fd.RaggedBatch.from_list([torch.full((9, 3), 1e4)]))
    assert same.value.tolist() == same.standard_error.tolist() == [0.0]
    with pytest.raises(TypeError, match="expected a RaggedBatch"):
        mean_pairwise_distance(classes)
    weighted = fd.RaggedBatch.from_list(classes).weighted(torch.ones(sum(map(len, classes))))
    with pytest.raises(ValueError, match="the points have weights"):
        mean_pairwise_distance(weighted)
