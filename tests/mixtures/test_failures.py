from __future__ import annotations

import numpy as np
import pytest
import torch

import fastdens as fd
from fastdens.distributions.niw import constant_features
from fastdens.mixtures.failures import (
    fewer_points_than_components,
    non_finite,
    out_of_range,
    raise_failures,
    without_variance,
)


@pytest.fixture
def points(rng):
    """Six models of four features: NaN, infinity, squares that overflow, a constant feature, no points, and nothing."""
    parts = [rng.normal(size=(n, 4)) for n in (6, 5, 4, 7, 0, 3)]
    parts[0][3, 1] = np.nan
    parts[1][4, 0] = -np.inf
    parts[2][:2] = 1.5e308
    parts[3][:, 2] = 7
    return parts


@pytest.fixture
def batch(points):
    return fd.RaggedBatch.from_list([torch.from_numpy(part) for part in points])


def test_non_finite_models_are_those_of_numpy(points, batch):
    found = non_finite(batch)
    assert set(found) == {m for m, part in enumerate(points) if not np.isfinite(part).all()} | {2}
    assert "values over 1e+140, first in row 11, whose squares overflow" in found[2]
    # The caller's rows: the fourth of the first model, the fifth of the second.
    assert "first in row 3:" in found[0] and f"first in row {len(points[0]) + 4}:" in found[1]


def test_constant_features_are_those_of_numpy(points, batch):
    found = constant_features(batch.points, batch.layout)
    for m, part in enumerate(points):
        if np.isfinite(part).all():
            assert found[m].tolist() == [len(part) == 0 or np.ptp(column) == 0 for column in part.T]
    # Without a floor one such feature is too many.
    assert set(without_variance(batch, found, 0.0)) == {3, 4} and "feature 2" in without_variance(batch, found, 0.0)[3]
    assert set(without_variance(batch, found, 1e-6)) == {4}


def test_a_feature_that_varies_by_rounding_alone_is_constant(rng):
    """Products of equal rows may differ in their last bits."""
    for dtype in (np.float32, np.float64):
        value = rng.normal(size=5) * 10.0 ** rng.integers(-9, 9, size=5)
        part = (value * (1 + np.finfo(dtype).eps * rng.integers(-1, 2, size=(40, 5)))).astype(dtype)
        part[0, 4] *= dtype(1 + 1e-4)
        batch = fd.RaggedBatch.from_list([torch.from_numpy(part)])
        assert constant_features(batch.points, batch.layout).tolist() == [[True] * 4 + [False]]


@pytest.mark.parametrize("row", [0, 6, 11])
def test_a_row_whose_square_overflows_is_named(rng, row):
    near = torch.from_numpy(rng.normal(size=(12, 3)))
    wild = near.clone()
    wild[row, 1] = -1e20
    batch = fd.RaggedBatch.from_list([near, wild, near + 1e20])
    found = out_of_range(batch, torch.float32)
    assert set(found) == {1} and found[1].startswith(f"has row {12 + row} at a distance of 1e+20 from the others")
    assert not out_of_range(batch, torch.float64)
    wild[row, 1] = 1e200
    assert "leave it out" in out_of_range(fd.RaggedBatch.from_list([near, wild]), torch.float64)[1]


def test_a_model_needs_as_many_points_as_components(points, batch):
    found = fewer_points_than_components(batch, 5)
    assert set(found) == {m for m, part in enumerate(points) if len(part) < 5}
    assert found[5].startswith("has 3 points, but 5 components need at least 5")


def test_an_error_names_five_models_and_holds_them_all(batch):
    failures = {m: "has failed" for m in range(6)}
    with pytest.raises(
        fd.ModelError, match=r"class 0.* has failed; .*class 4.* has failed; and 1 more; try again\.$"
    ) as error:
        raise_failures(batch, failures, "try again")
    assert error.value.failures == failures
    raise_failures(batch, {}, "try again")
