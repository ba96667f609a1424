"""The recipe: its defaults are valid, and other values are checked."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from fastdens.training import Recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 1}, "batch_size is 1, but training needs 2 or more"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"dtype": "half"}, "dtype is 'half'"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"augmentation": "mixup"}, "augmentation is 'mixup'"),
        ({"stem": "cifar"}, "stem is 'cifar'"),
    ],
)
def test_wrong_recipes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**options)


def test_a_recipe_is_a_value():
    assert Recipe() == Recipe(network="resnet18") != Recipe(epochs=3)
    with pytest.raises(FrozenInstanceError):
        Recipe().epochs = 3
