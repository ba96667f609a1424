"""fd.RaggedBatch: sorting by model, the way back, and its errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fastdens as fd


def test_from_labels_sorts_and_finds_back(rng):
    x, y = rng.normal(size=(50, 3)), rng.integers(0, 6, size=50)
    batch = fd.RaggedBatch.from_labels(x, y, n_classes=8)
    assert batch.n_models == 8 and batch.n_features == 3
    assert batch.sizes.tolist() == np.bincount(y, minlength=8).tolist()
    for m in range(8):
        np.testing.assert_array_equal(batch.points[batch.offsets[m] : batch.offsets[m + 1]], x[y == m])
    np.testing.assert_array_equal(batch.in_caller_order(batch.points), x)
    np.testing.assert_array_equal(batch.in_caller_order(batch.model_of_row), y)


def test_sorted_points_are_not_copied():
    x = torch.zeros(4, 2)
    assert fd.RaggedBatch.from_labels(x, torch.tensor([0, 0, 1, 1])).points.data_ptr() == x.data_ptr()


def test_from_list(rng):
    arrays = [rng.normal(size=(n, 2)) for n in (3, 1, 4)]
    batch = fd.RaggedBatch.from_list(arrays, labels=[7, 8, 9], layer="layer1")
    np.testing.assert_array_equal(batch.points, np.concatenate(arrays))
    assert batch.offsets.tolist() == [0, 3, 4, 8]
    assert batch.describe(1) == "model 1 (class 8, layer 'layer1')"
    assert batch.to(dtype=torch.float32).points.dtype == torch.float32


def test_reads_an_array_that_may_not_be_written():
    x = np.zeros((3, 2))
    x.flags.writeable = False
    assert fd.RaggedBatch.from_list([x]).n_models == 1


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (np.zeros((3, 2)), np.zeros(2, int), ValueError, "one label for each row"),
        (np.zeros((3, 2)), np.array([0, 0.5, 1]), TypeError, "label 0.5 in row 1, but labels are integers"),
        (np.zeros((3, 2)), np.array([0, np.nan, 0]), ValueError, r"missing label \(NaN\) in row 1"),
        (np.zeros(3), np.zeros(3, int), ValueError, r"points are \[N, D\]"),
        (np.zeros((3, 0)), np.zeros(3, int), ValueError, "at least one feature"),
        (np.zeros((0, 2)), np.zeros(0, int), ValueError, "no rows"),
        (np.zeros((3, 2), complex), np.zeros(3, int), TypeError, "complex"),
        (np.full((3, 2), "a"), np.zeros(3, int), TypeError, "array of numbers"),
    ],
)
def test_errors_of_from_labels(x, y, error, message):
    with pytest.raises(error, match=message):
        fd.RaggedBatch.from_labels(x, y)


def test_errors_of_from_list():
    with pytest.raises(ValueError, match="n_classes is 1"):
        fd.RaggedBatch.from_labels(np.zeros((2, 2)), np.array([0, 1]), n_classes=1)
    with pytest.raises(ValueError, match="arrays is empty"):
        fd.RaggedBatch.from_list([])
    with pytest.raises(ValueError, match="array 1 has 3 features"):
        fd.RaggedBatch.from_list([np.zeros((2, 2)), np.zeros((2, 3))])
    with pytest.raises(ValueError, match="but there are 2 arrays: pass one label for each row"):
        fd.RaggedBatch.from_list([np.zeros((2, 2))] * 2, labels=[1])
