"""Bins of equal size against numpy's, and the shares of classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens.analysis.density_bins import density_bins


@pytest.mark.parametrize(("n", "n_bins"), [(1, 1), (10, 10), (103, 7), (60, 5), (11, 10)])
def test_bins_are_those_of_array_split(rng, n, n_bins):
    values = rng.normal(size=n)
    found = density_bins(torch.from_numpy(values), n_bins)
    assert found.dtype == np.int64
    for b, members in enumerate(np.array_split(np.argsort(values), n_bins)):
        assert set(np.flatnonzero(found == b)) == set(members)


def test_bins_hold_the_same_share_of_each_class(rng):
    labels = rng.choice([0, 1, 2, 6], 500, p=[0.5, 0.3, 0.17, 0.03])
    # Classes lie apart: without labels, bins would hold one class each.
    values = rng.normal(size=500) + 100 * labels
    found = density_bins(values, 8, labels)
    assert np.ptp(np.bincount(found, minlength=8)) <= 1
    for c in (0, 1, 2, 6):
        own = labels == c
        assert np.ptp(np.bincount(found[own], minlength=8)) <= 1
        assert (np.diff(found[own][np.argsort(values[own])]) >= 0).all()
    assert np.ptp(np.bincount(density_bins(values, 8)[labels == 0], minlength=8)) > 1


def test_ties_keep_the_order_of_examples():
    assert density_bins([1.0, 0.0, 0.0, 0.0, 0.0, -np.inf], 3).tolist() == [2, 0, 1, 1, 2, 0]
    assert density_bins(np.zeros(7), 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert density_bins(np.zeros(6), 2, [1, 0, 1, 0, 1, 0]).tolist() == [0, 0, 1, 0, 1, 1]


def test_errors():
    with pytest.raises(ValueError, match="n_bins is 4, but there are 3 examples"):
        density_bins(np.zeros(3), 4)
    with pytest.raises(ValueError, match="n_bins is 0"):
        density_bins(np.zeros(3), 0)
    with pytest.raises(ValueError, match="example 1 is NaN"):
        density_bins([0.0, np.nan, 1.0], 2)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        density_bins(np.zeros((2, 3)), 2)
    with pytest.raises(ValueError, match="labels"):
        density_bins(np.zeros(3), 2, [0, 1])
