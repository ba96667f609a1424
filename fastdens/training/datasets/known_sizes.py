"""Sizes of well-known data sets, so that work on them can be planned without their files."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch

from fastdens.training.datasets.images import Images


class DataSetSize(NamedTuple):
    """Numbers of training images, test images and classes, and the channels and the height of an image."""

    train: int
    test: int
    classes: int
    channels: int
    image_size: int


# By name in small letters, without any other character.
SIZES = {
    "cifar10": DataSetSize(50_000, 10_000, 10, 3, 32),
    "cifar100": DataSetSize(50_000, 10_000, 100, 3, 32),
    "fashionmnist": DataSetSize(60_000, 10_000, 10, 1, 28),
    "glyphs100": DataSetSize(50_000, 10_000, 100, 3, 32),
    "miniimagenet": DataSetSize(50_000, 10_000, 100, 3, 84),
    "mnist": DataSetSize(60_000, 10_000, 10, 1, 28),
}


def outline_images(dataset: str, image_size: int | None = None) -> Images | None:
    """Images of a well-known data set without their pixels: tensors on the device "meta", classes of equal size.

    Parameters
    ----------
    dataset : str
        Its name, such as "CIFAR100" or "Mini-ImageNet".
    image_size : int, optional
        Height and width that the images would be resized to.

    Returns
    -------
    Images or None
        None for a data set whose size is not known here.
    """
    size = SIZES.get(re.sub(r"[^a-z0-9]", "", dataset.lower()))
    if size is None:
        return None
    height = image_size or size.image_size
    train, test = (
        torch.empty(n, size.channels, height, height, device="meta", dtype=torch.float32)
        for n in (size.train, size.test)
    )
    train_labels, test_labels = (torch.arange(n, device="cpu") % size.classes for n in (size.train, size.test))
    mean = torch.zeros(1, size.channels, 1, 1, device="cpu", dtype=torch.float32)
    names = tuple(str(c) for c in range(size.classes))
    return Images(train, train_labels, test, test_labels, names, mean, torch.ones_like(mean))
