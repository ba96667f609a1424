"""Mean and spread of log-density by class, against numpy class by class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens.analysis import class_log_density


def test_against_numpy_with_a_class_of_one_and_a_class_of_none(rng):
    labels = np.array([2] * 30 + [0] * 5 + [1])
    log_prob = rng.normal(size=(len(labels), 4)) + 1e6
    own = log_prob[np.arange(len(labels)), labels]
    for given in (log_prob, torch.from_numpy(log_prob)):
        found = class_log_density(given, labels)
        for c in (0, 2):
            assert found.mean[c] == pytest.approx(own[labels == c].mean())
            assert found.std[c] == pytest.approx(own[labels == c].std(ddof=1))
        assert found.size.tolist() == [5, 1, 30, 0]
        assert np.isnan(found.std[1]) and np.isnan(found.mean[3])
    np.testing.assert_array_equal(class_log_density(own, labels).mean, found.mean[:3])


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="one label for each row"):
        class_log_density(np.zeros(3), np.zeros(2, int))
    with pytest.raises(ValueError, match="number of classes, 2"):
        class_log_density(np.zeros((3, 2)), np.array([0, 1, 2]))
