"""Arguments of the analysis: arrays and labels of every kind, half precision included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens import analysis
from fastdens.analysis.arguments import as_labels, as_numpy
from fastdens.convergence import split_rhat


def test_half_precision_is_computed_in_float32(rng):
    x, y = rng.integers(-9, 9, 30) / 4, np.arange(30) % 3
    expected = analysis.class_log_density(x, y).mean
    for given in (torch.from_numpy(x).bfloat16(), torch.from_numpy(x).half(), x.astype(np.float16), x.astype(">f4")):
        assert as_numpy(given).dtype == np.float32 and as_numpy(given).dtype.isnative
        np.testing.assert_allclose(analysis.class_log_density(given, y).mean, expected, rtol=1e-6)


def test_labels_are_classes_or_names_in_their_order():
    y = np.array([2, 0, 1, 2])
    for given in (y, y.astype(">i2"), y * 1.0, torch.from_numpy(y), y * 10**12, y - 5, np.array(["a", "b", "c"])[y]):
        np.testing.assert_array_equal(as_labels(given, 4), y)
    np.testing.assert_array_equal(as_labels(2 * y, 4), 2 * y)
    np.testing.assert_array_equal(as_labels(["u", "v", "u", "w"], 4, 3), [0, 1, 0, 2])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 3], "labels run from 0 to 3, but classes count from 0 and are under the number of classes, 3"),
        ([0, -1, 2, 1], "labels run from -1 to 2"),
        (["u", "v", "u", "v"], "labels are 2 different names, but there are 3 classes"),
        ([0, 1, np.nan, 2], r"labels has a missing label \(NaN\) in row 2"),
        ([0, 1], r"labels has shape \(2,\), but there are 4 examples"),
    ],
)
def test_labels_that_are_no_classes_are_one_sentence(labels, message):
    with pytest.raises(ValueError, match=message):
        as_labels(labels, 4, 3)


def test_draws_come_in_any_byte_order(rng):
    draws = rng.normal(size=(3, 2, 40))
    for given in (draws.astype(">f8"), draws.tolist(), draws[::-1].copy()[::-1]):
        assert torch.equal(split_rhat(given), split_rhat(draws))
