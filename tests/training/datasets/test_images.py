"""Images of every source by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastdens.training.datasets import images as module
from fastdens.training.datasets import load_images

pytest.importorskip("torchvision")


def test_glyphs_are_those_of_the_generator(seed, monkeypatch):
    small = {"n_classes": 5, "n_train": 12, "n_test": 4}
    generate = module.glyphs
    asked_for = []

    def generate_few(n_train, **options):
        asked_for.append(n_train)
        return generate(**small, **options)

    monkeypatch.setattr(module, "glyphs", generate_few)
    images = load_images("glyphs100", None, 8, seed, long_tailed=["B", "E"])
    expected = generate(**small, image_size=8, seed=seed, long_tailed=[1, 4])
    assert images.long_tailed.tolist() == [False, True, False, False, True]
    assert images.class_names == tuple("ABCDE") and torch.equal(images.train_labels, expected.labels)
    pixels = torch.cat([images.train, images.test]).double()
    raw = torch.cat([expected.train, expected.test]).double()
    for c in range(3):
        assert float(torch.corrcoef(torch.stack([pixels[:, c].flatten(), raw[:, c].flatten()]))[0, 1]) > 1 - 1e-6
    assert int(load_images("Glyphs100", None, None, seed).long_tailed.sum()) == 1
    assert load_images("glyphs100", None, None, seed, long_tailed=()).train.shape == (60, 3, 32, 32)
    load_images("glyphs100", None, 8, seed, images_per_class=7)
    assert asked_for == [500, 500, 500, 7]
    with pytest.raises(ValueError, match="long_tailed is for anagrams and glyphs100, but the data set is digits"):
        load_images("digits", None, None, seed, long_tailed=[1])
    with pytest.raises(ValueError, match="images_per_class is for glyphs100, but the data set is anagrams"):
        load_images("anagrams", None, None, seed, images_per_class=7)


def test_two_fifths_of_the_anagrams_are_long_tailed_unless_none_is_asked_for(seed):
    images = load_images("anagrams", None, None, seed)
    assert images.train.shape == (3200, 3, 16, 16) and images.test.shape == (800, 3, 16, 16)
    assert len(images.class_names) == 40 and int(images.long_tailed.sum()) == 16
    assert not load_images("Anagrams", None, 8, seed, long_tailed=0.0).long_tailed.any()


@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [
        ("cifar_100", "CIFAR100"),
        ("fashion-mnist", "FashionMNIST"),
        ("digit", "digits"),
        ("glyphs10", "glyphs100"),
        ("anagram", "anagrams"),
    ],
)
def test_misspelt_names(misspelt, nearest):
    with pytest.raises(ValueError, match=f"nearest names are .*'{nearest}'"):
        load_images(misspelt, Path(), None, 0)
