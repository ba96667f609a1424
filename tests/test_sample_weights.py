"""Weights of points: how they are read, and that a batch carries them wherever its points go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fastdens as fd


@pytest.fixture
def shuffled(tmp_path):
    """Points of five classes, of which one is empty, in no order, with weights; the batch and the same on disk."""
    rng = np.random.default_rng(3)
    x, y, weight = rng.normal(size=(60, 2)), rng.choice([0, 1, 3, 4], 60), rng.random(60)
    np.save(tmp_path / "x.npy", x)
    batch = fd.RaggedBatch.from_labels(x, y, n_classes=5)
    on_disk = fd.RaggedBatch.from_files(tmp_path / "x.npy", y, n_classes=5, max_memory="64GiB")
    return x, y, weight, batch, on_disk


@pytest.mark.parametrize("place", [3, 4])
def test_points_keep_their_weights(shuffled, place):
    x, y, weight, *batches = shuffled
    batch = batches[place - 3].weighted(weight)
    models = torch.tensor([1, 2, 4])
    for moved in (
        batch.load(),
        batch.part(1, 4),
        batch.select(models).load(),
        batch.to(dtype=torch.float32),
        batch.load().without_zero_weights(),
    ):
        rows = moved.index.numpy()
        np.testing.assert_array_equal(moved.weights, weight[rows])
        np.testing.assert_allclose(moved.points, x[rows], rtol=1e-6)
    sums = [weight[y == label].sum() for label in range(5)]
    np.testing.assert_allclose(batch.total_weights, sums, rtol=1e-12)


def test_points_without_weight_leave_a_batch(shuffled):
    x, y, _, batch, _ = shuffled
    weight = np.where(np.arange(60) % 3, 2.0, 0.0)
    left = batch.weighted(weight).without_zero_weights()
    kept = weight > 0
    again = fd.RaggedBatch.from_labels(x[kept], y[kept], n_classes=5)
    assert torch.equal(left.points, again.points) and torch.equal(left.offsets, again.offsets)


@pytest.mark.parametrize(
    "weights",
    [np.array([1, 2, 0]), [True, True, False], torch.tensor([1.0, 2.0, 0.0]).half(), (0.5, 1, 2)],
    ids=["integers", "booleans", "half", "tuple"],
)
def test_weights_of_every_kind(weights):
    batch = fd.RaggedBatch.from_labels([[1.0], [2.0], [3.0]], [1, 0, 1]).weighted(weights)
    assert batch.weights.dtype == torch.float64
    assert batch.weights.tolist() == [float(weights[i]) for i in (1, 0, 2)]


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0, 2.0], ValueError, r"shape \(2,\), but the batch has 3 points"),
        ([[1.0], [2.0], [3.0]], ValueError, r"shape \(3, 1\)"),
        (2.0, ValueError, r"shape \(\)"),
        ([1.0, -1.0, 0.0], ValueError, "-1.0 in row 1"),
        ([1.0, 1.0, float("nan")], ValueError, "nan in row 2"),
        ([float("inf"), 1.0, 1.0], ValueError, "inf in row 0"),
        (["a", "b", "c"], TypeError, "sample_weight"),
        ([1j, 1, 1], TypeError, "sample_weight"),
    ],
)
def test_what_are_no_weights(weights, error, message):
    batch = fd.RaggedBatch.from_labels([[1.0], [2.0], [3.0]], [1, 0, 1])
    with pytest.raises(error, match=message):
        batch.weighted(weights)


def test_a_part_of_a_batch_is_not_weighed():
    batch = fd.RaggedBatch.from_labels([[1.0], [2.0], [3.0]], [0, 0, 1]).part(1, 2)
    with pytest.raises(ValueError, match="weigh the whole batch"):
        batch.weighted([1.0])
