"""A small plan of networks, and comparisons of the folders that it fills."""

from __future__ import annotations

import torch

from fastdens.io.state_file import read_state
from fastdens.training import Recipe
from fastdens.training.datasets import load_images
from fastdens.training.runs import subset_runs, train_runs

RECIPE = Recipe(width=4, epochs=1)
NAMES = [f"memorization-{t:04d}" for t in range(3)]


def some_images():
    images = load_images("digits", None, 8, 0)
    return images._replace(train=images.train[:200], train_labels=images.train_labels[:200], test=images.test[:50])


def train_all(folder, n_networks=3, recipe=RECIPE, **options):
    images = some_images()
    runs = subset_runs(n_networks, 200, seed=4)
    train_runs(folder, images, images.train_labels, runs, recipe, device="cpu", **{"progress": False, **options})
    # Sharing a tensor in place would free the memory under a numpy array of it.
    assert not images.train.is_shared() and not images.train_labels.is_shared()


def contents(folder):
    return {path.name: read_state(path, "training run") for path in folder.glob("*.safetensors")}


def assert_same(folder, other):
    one, two = contents(folder), contents(other)
    assert one.keys() == two.keys() and len(one) > 0
    for name, state in one.items():
        assert state.metadata == two[name].metadata
        assert state.tensors.keys() == two[name].tensors.keys()
        for key, value in state.tensors.items():
            assert torch.equal(value, two[name].tensors[key]), (name, key)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())
