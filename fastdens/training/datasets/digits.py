"""scikit-learn's digits: 1,797 grey images of 8 x 8 pixels in 10 classes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from fastdens.kernels.optional import require
from fastdens.training.datasets.parts import ImageSet, Part


def load_digits(image_size: int, seed: int) -> ImageSet:
    """The digits, resized bilinearly, four fifths of each class for training.

    Parameters
    ----------
    image_size : int
        Height and width.
    seed : int
        Seed of the stratified split.

    Returns
    -------
    ImageSet
        float32 images [N, 1, H, W] between 0 and 1.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    """
    data = require("sklearn.datasets", "the data set digits", "analysis").load_digits()
    split = require("sklearn.model_selection", "the data set digits", "analysis").train_test_split
    images, labels = torch.from_numpy(data.images / 16).float()[:, None], torch.from_numpy(data.target).long()
    if image_size != images.shape[-1]:
        images = F.interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)
    train, test = split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    return ImageSet(Part(images[train], labels[train]), Part(images[test], labels[test]), tuple("0123456789"))
