"""Checks of arguments and the errors that they raise."""

from __future__ import annotations

import pytest
import torch

import fastdens as fd
from fastdens.errors import check_batch_of, check_integer, check_non_negative, check_positive


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (lambda name, value: check_integer(name, value, 2), (2, 7), (1, True, 2.0, "3", None)),
        (check_non_negative, (0, 0.5), (-1, float("nan"), "1", None)),
        (check_positive, (1, 0.5), (0, -1.0, float("inf"), float("nan"), True, None)),
    ],
)
def test_numbers(check, good, bad):
    for value in good:
        assert check("n", value) == value
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=r"n is .* must be"):
            check("n", value)


def test_batches_of_other_models():
    batch = fd.RaggedBatch.from_list([torch.randn(4, 2), torch.randn(3, 2)])
    assert check_batch_of(batch, 2, 2, torch.device("cpu")) is batch
    with pytest.raises(TypeError, match="make one with"):
        check_batch_of(batch.points, 2, 2, torch.device("cpu"))
    for shape in ((3, 2), (2, 3)):
        with pytest.raises(ValueError, match="pass a batch of the same models"):
            check_batch_of(batch, *shape, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"on cpu and the models are on meta: move it with batch\.to\('meta'\)"):
        check_batch_of(batch, 2, 2, torch.device("meta"))
