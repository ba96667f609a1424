"""Failed models are left out, and results come back among all models and rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fastdens as fd
from fastdens.mixtures.failures import fewer_points_than_components, non_finite, raise_failures, without_points
from fastdens.mixtures.partition import Partition


def test_values_go_back_to_their_models_and_rows(rng):
    y = rng.permutation(np.repeat([0, 1, 3], [5, 2, 4]))
    batch = fd.RaggedBatch.from_labels(torch.arange(11.0)[:, None], y, n_classes=4)
    valid = Partition.of(batch, {2: "is empty", 1: "is small"})
    assert valid.models.tolist() == [0, 3] and list(valid.failures) == [1, 2]
    assert valid.failed.tolist() == [False, True, True, False]
    assert valid.batch.labels == (0, 3) and valid.batch.sizes.tolist() == [5, 4]
    # Each point is its row of the caller.
    assert valid.batch.points[:, 0].long().tolist() == valid.batch.index.tolist()
    assert valid.scatter(torch.tensor([4, 5])).tolist() == [4, 0, 0, 5]
    assert valid.scatter(torch.tensor([[1.0], [2.0]])).isnan().flatten().tolist() == [False, True, True, False]
    rows = valid.scatter_rows(valid.batch.points.T)[0]
    assert rows.isnan().tolist() == (y == 1).tolist()
    assert torch.equal(rows[y != 1], torch.arange(11.0)[y != 1])
    assert (valid.scatter_rows(torch.zeros(9, dtype=torch.int64))[y == 1] == -1).all()
    whole = Partition.of(batch, {})
    assert whole.batch is batch and torch.equal(whole.scatter(batch.sizes), batch.sizes)


def test_reasons_are_sentences(rng):
    points = torch.from_numpy(rng.normal(size=(6, 2)))
    points[4, 0] = torch.inf
    batch = fd.RaggedBatch.from_labels(points, np.repeat([0, 1, 3], [1, 3, 2]), n_classes=4)
    assert set(without_points(batch)) == {2}
    assert fewer_points_than_components(batch, 1)[2].startswith("has 0 points, but 1 component needs at least 1: ")
    assert fewer_points_than_components(batch, 3)[0].startswith("has 1 point, but 3 components need at least 3: ")
    with pytest.raises(
        fd.ModelError, match=r"^model 3 \(class 3\) has NaN or infinity, first in row 4: .*; go on\.$"
    ) as error:
        raise_failures(batch, non_finite(batch), "go on")
    assert set(error.value.failures) == {3}
    raise_failures(batch, {}, "go on")
