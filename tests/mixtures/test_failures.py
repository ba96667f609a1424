from __future__ import annotations

import numpy as np
import pytest
import torch

import fastdens as fd
from fastdens.mixtures.failures import constant_features, fewer_points_than_components, non_finite, raise_failures


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
    found = constant_features(batch)
    assert set(found) == {m for m, part in enumerate(points) if len(part) == 0 or (np.ptp(part, 0) == 0).any()}
    assert "feature 2" in found[3]


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
