"""Arguments that certificates and attacks check alike."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from fastdens.analysis import certify, pgd_accuracy


def certificates(model, x, labels=None, **options):
    return certify(model, x, 0.5, labels=labels, n0=5, n=10, progress=False, **options)


def attacks(model, x, labels=(0, 1, 0), **options):
    return pgd_accuracy(model, x, labels, 0.1, **options)


@pytest.fixture(params=[certificates, attacks])
def evaluate(request):
    return request.param


@pytest.fixture
def x(rng):
    return rng.normal(size=(3, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"random_state": -1}, "random_state is -1"),
        ({"labels": [0, 1]}, "3 examples"),
        ({"labels": [0, 1, 2]}, "labels run from 0 to 2"),
    ],
)
def test_parameters_out_of_range_are_named(evaluate, x, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(nn.Linear(4, 2), x, **options)


@pytest.mark.parametrize(
    ("model", "output"),
    [
        (nn.Flatten(0), r"shape \[4\] for 1 inputs"),
        (nn.Linear(4, 1), r"shape \[1, 1\]"),
        (nn.Unflatten(1, (2, 2)), r"shape \[1, 2, 2\]"),
        (nn.LSTM(4, 2), "type tuple"),
    ],
)
def test_outputs_that_are_no_logits_are_described(evaluate, x, model, output):
    with pytest.raises(ValueError, match=output):
        evaluate(model, x)


def test_models_and_inputs_of_another_type_are_refused(evaluate, x):
    with pytest.raises(TypeError, match="function"):
        evaluate(lambda inputs: inputs, x)
    with pytest.raises(TypeError, match=r"int64.*x.float\(\)"):
        evaluate(nn.Linear(4, 2), np.zeros((3, 4), np.int64))
    with pytest.raises(ValueError, match="at least one example"):
        evaluate(nn.Linear(4, 2), x[:0])
    x[1, 2] = np.inf
    with pytest.raises(ValueError, match="example 1 of x holds NaN or infinity"):
        evaluate(nn.Linear(4, 2), x)
