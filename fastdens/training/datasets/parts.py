"""The training and test parts of a data set, and a random split for data sets without one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdens.training.datasets.encoded import EncodedImages
from fastdens.training.datasets.streaming import select


class Part(NamedTuple):
    """Images with their labels.

    Attributes
    ----------
    images : Tensor or EncodedImages
        [N, channels, height, width], uint8 or float32 between 0 and 1.
    labels : Tensor
        int64 [N].
    digests : Tensor or None
        int64 [N, 2], of each image, where the images in memory come from files of their own.
    """

    images: Tensor | EncodedImages
    labels: Tensor
    digests: Tensor | None = None

    def select(self, rows: Tensor) -> Part:
        """Some of the images, by row numbers or flags."""
        digests = None if self.digests is None else self.digests[rows]
        return Part(select(self.images, rows), self.labels[rows], digests)


class ImageSet(NamedTuple):
    """A data set before its images are standardized.

    Attributes
    ----------
    train, test : Part
    class_names : tuple of str
    long_tailed : Tensor or None
        bool [classes], where it is known which classes have a long tail of subpopulations.
    """

    train: Part
    test: Part
    class_names: tuple[str, ...]
    long_tailed: Tensor | None = None


def hold_out(name: str, whole: Part, class_names: tuple[str, ...], seed: int) -> ImageSet:
    """Hold out one in six images of each class, at random, and at least one, for testing.

    Parameters
    ----------
    name : str
        Of the data set, for messages.
    whole : Part
    class_names : tuple of str
    seed : int

    Returns
    -------
    ImageSet

    Raises
    ------
    ValueError
        If a class has fewer than two images.
    """
    labels = whole.labels
    rng, is_test = np.random.default_rng(seed), torch.zeros(len(labels), dtype=torch.bool, device="cpu")
    for c, class_name in enumerate(class_names):
        members = np.flatnonzero(labels.numpy() == c)
        if len(members) < 2:
            raise ValueError(
                f"{name}: the class {class_name!r} has {len(members)} images, but training and test need two."
            )
        is_test[rng.permutation(members)[: max(1, round(len(members) / 6))]] = True
    return ImageSet(whole.select(~is_test), whole.select(is_test), class_names)
