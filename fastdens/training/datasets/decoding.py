"""Image data sets read into memory: PIL images become arrays of equal size."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from fastdens.kernels.optional import require
from fastdens.training.datasets.parts import Part

NO_CLASSES = "is not a data set of images and their classes: choose another, or make folders of it"

_MAX_BYTES = 8_000_000_000  # of float32 images
_IMAGES_PER_TASK = 64


def decode(name: str, datasets: Sequence[Any], image_size: int | None) -> list[Part]:
    """Read all images of data sets that yield pairs of a PIL image and a label.

    Parameters
    ----------
    name : str
        For messages.
    datasets : sequence
        Each with ``__len__`` and ``__getitem__``, as torchvision's; usually its training and test images.
    image_size : int, optional
        Height and width to which the central square of each image is resized; by default images keep their size, which
        must then be the same for all.

    Returns
    -------
    list of Part
        uint8 images, one part per data set.

    Raises
    ------
    ValueError
        If the images are of different sizes, of different modes, without classes, or too many for memory.
    """
    image_type = require("PIL.Image", f"the data set {name}", "examples").Image
    example = datasets[0][0]
    if not (isinstance(example, tuple) and len(example) == 2 and isinstance(example[0], image_type)):
        raise ValueError(f"{name} {NO_CLASSES}.")
    first = _pixels(example[0], image_size)
    n_images = sum(map(len, datasets))
    n_bytes = 4 * n_images * first.size
    if n_bytes > _MAX_BYTES:
        raise ValueError(
            f"{name} has {n_images:,} images of {' x '.join(map(str, first.shape))}, {1e-9 * n_bytes:.1f} GB, but "
            f"images are kept in memory, at most {1e-9 * _MAX_BYTES:.0f} GB: pass a smaller image_size (--image-size) "
            "or extract activations with fastdens.activations.extract and a DataLoader and pass them as --activations."
        )
    return [_decode_part(name, dataset, image_size, first.shape) for dataset in datasets]


def _decode_part(name: str, dataset: Any, image_size: int | None, shape: tuple[int, ...]) -> Part:
    images, labels = np.empty((len(dataset), *shape), np.uint8), np.empty(len(dataset), np.int64)

    def decode_rows(start: int) -> None:
        for i in range(start, min(start + _IMAGES_PER_TASK, len(dataset))):
            image, label = dataset[i]
            pixels = _pixels(image, image_size)
            if pixels.shape[1:] != shape[1:]:
                here, there = (" x ".join(map(str, s[1:])) for s in (shape, pixels.shape))
                raise ValueError(
                    f"{name} has images of different sizes, {here} and {there} (image {i}): pass image_size, "
                    "--image-size on the command line, to resize them."
                )
            if len(pixels) > len(images[i]):
                raise ValueError(f"{name} has grey images and coloured ones (image {i}): make folders of it.")
            try:
                images[i], labels[i] = pixels, operator.index(label)
            except TypeError:
                raise ValueError(f"{name} {NO_CLASSES}.") from None

    # Threads rather than a DataLoader: PIL decodes without the interpreter's lock, and errors stay one sentence.
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(decode_rows, range(0, len(dataset), _IMAGES_PER_TASK)):
            pass
    return Part(torch.from_numpy(images), torch.from_numpy(labels))


def _pixels(image: Any, image_size: int | None) -> np.ndarray:
    """uint8 [channels, height, width] of a PIL image."""
    from PIL import Image, ImageOps

    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
