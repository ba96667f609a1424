"""Digits: sizes, standardization and the split."""

from __future__ import annotations

import pytest
import torch

from fastdens.training.datasets import load_images


def test_digits_are_standardized_whatever_their_size(seed):
    for image_size, shape in ((None, 16), (8, 8)):
        images = load_images("digits", None, image_size, seed)
        assert images.train.shape == (1437, 1, shape, shape) and images.test.shape == (360, 1, shape, shape)
        assert images.train.dtype == torch.float32 and images.long_tailed is None
        assert abs(float(images.train.mean())) < 1e-5 and float(images.train.std()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(images.train, load_images("Digits", None, 8, seed).train)
    assert not torch.equal(images.train, load_images("digits", None, 8, seed + 1).train)


def test_a_fifth_of_each_class_is_for_testing(seed):
    images = load_images("digits", None, None, seed)
    counts, held_out = (torch.bincount(labels) for labels in (images.train_labels, images.test_labels))
    assert ((held_out - (counts + held_out) / 5).abs() < 1).all()
