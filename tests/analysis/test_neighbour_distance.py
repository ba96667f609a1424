"""Distances to nearest neighbours, against scikit-learn's and those of all pairs."""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from fastdens.analysis.neighbour_distance import neighbour_distance


def of_all_pairs(points, k):
    distance = cdist(points.astype(np.float64), points.astype(np.float64))
    np.fill_diagonal(distance, np.inf)
    return np.sort(distance, 1)[:, :k].mean(1)


@pytest.mark.parametrize(("dtype", "shift"), [(np.float64, 0.0), (np.float64, 1e6), (np.float32, 1e4)])
@pytest.mark.parametrize("d", [1, 3, 33])
def test_agrees_with_scikit_learn(rng, dtype, shift, d):
    points = (rng.normal(size=(300, d)) + shift).astype(dtype)
    labels = rng.choice([0, 1, 4], 300, p=[0.6, 0.3, 0.1])
    found = neighbour_distance(points, labels, k=7)
    assert found.dtype == np.float64
    for c in (0, 1, 4):
        own = points[labels == c].astype(np.float64)
        expected = NearestNeighbors(n_neighbors=7, algorithm="kd_tree").fit(own).kneighbors()[0].mean(1)
        np.testing.assert_allclose(found[labels == c], expected, rtol=1e-10)
    everywhere = (
        NearestNeighbors(n_neighbors=7, algorithm="kd_tree").fit(points.astype(np.float64)).kneighbors()[0].mean(1)
    )
    of_tensors = neighbour_distance(torch.from_numpy(points), torch.from_numpy(labels), 7, within_class=False)
    np.testing.assert_allclose(of_tensors, everywhere, rtol=1e-10)


def test_duplicates_count_and_the_point_itself_does_not(rng):
    points = rng.normal(size=(60, 4))
    points[20:23] = points[20]
    # More copies than the search keeps: it may not return the point itself.
    points[30:] = points[30]
    found = neighbour_distance(points, np.zeros(60, int), k=2)
    np.testing.assert_allclose(found, of_all_pairs(points, 2), rtol=1e-10)
    assert (found[20:23] == 0).all() and (found[30:] == 0).all() and (found[:20] > 0).all()
    assert (neighbour_distance(points[:30], np.zeros(30, int), k=3)[20:23] > 0).all()


def test_far_outliers_and_extreme_units(rng, monkeypatch):
    monkeypatch.setattr(import_module("fastdens.analysis.neighbour_distance"), "_MAX_ELEMENTS", 1000)
    points = rng.normal(size=(80, 5))
    points[3] = 1e6
    labels = np.zeros(80, int)
    for unit in (1e-30, 1.0, 1e30):
        np.testing.assert_allclose(neighbour_distance(unit * points, labels), unit * of_all_pairs(points, 10), 1e-10)


def test_tight_clusters_far_apart(rng):
    # Enough points that faiss takes distances from a matrix product, where float32 sees no difference within clusters.
    points = 1e-4 * rng.normal(size=(2400, 64))
    points[1000:] += 1
    found = neighbour_distance(points, np.zeros(2400, int), k=5)
    np.testing.assert_allclose(found, of_all_pairs(points, 5), rtol=1e-10)


def test_smallest_classes_and_errors(rng, monkeypatch):
    points, labels = rng.normal(size=(7, 2)), np.array([0, 0, 0, 0, 2, 2, 2])
    apart = np.linalg.norm(points[0] - points[1])
    np.testing.assert_allclose(neighbour_distance(points[:2], [0, 0], k=1), [apart, apart], rtol=1e-14)
    with pytest.raises(ValueError, match="class 2 has 3 examples, but 3 neighbours of each need at least 4"):
        neighbour_distance(points, labels, k=3)
    with pytest.raises(ValueError, match="there are 7 points, but 7 neighbours"):
        neighbour_distance(points, labels, k=7, within_class=False)
    with pytest.raises(ValueError, match="k is 0"):
        neighbour_distance(points, labels, k=0)
    with pytest.raises(ValueError, match="labels"):
        neighbour_distance(points, labels[:3], k=1)
    points[4, 1] = np.nan
    with pytest.raises(ValueError, match="point 4 holds NaN"):
        neighbour_distance(points, labels, k=2)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"fastdens\[cpu\]"):
        neighbour_distance(points, labels, k=2)
