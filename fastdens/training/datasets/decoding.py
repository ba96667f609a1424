"""Image data sets that are read into memory, or left in their files where they are too many for it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fastdens.kernels.optional import require
from fastdens.memory import total_bytes
from fastdens.training.datasets.encoded import NO_CLASSES, EncodedImages, as_pixels, digest_of
from fastdens.training.datasets.files import ImageFiles, files_of
from fastdens.training.datasets.parts import Part

_IMAGES_PER_TASK = 64
# Bytes of a pixel in memory: as it was decoded, and as a standardized float32.
_DECODED, _STANDARDIZED = 1, 4
# The share of the memory that standardized images may take: another copy is made of them for several processes.
_SHARE = 4


class Reading(NamedTuple):
    """How images are read.

    Attributes
    ----------
    stream : bool or None
        Whether they stay in their files; None decides by their number and the memory.
    workers : int or None
        Processes that decode images which stay there.
    folder : Path or None
        Where what one pass over them finds is kept.
    outline : bool
        Leave out that pass: only their number, their size and their labels are asked for.
    progress : bool
    """

    stream: bool | None = None
    workers: int | None = None
    folder: Path | None = None
    outline: bool = False
    progress: bool = False


DEFAULT_READING = Reading()


def read_parts(
    name: str, datasets: Sequence[Any], image_size: int | None, reading: Reading = DEFAULT_READING
) -> list[Part]:
    """Read the images of data sets that yield pairs of a PIL image and a label.

    Parameters
    ----------
    name : str
        For messages.
    datasets : sequence
        Each with ``__len__`` and ``__getitem__``, as torchvision's; usually its training and test images.
    image_size : int, optional
        Height and width to which the central square of each image is resized; by default images keep their size, which
        must then be the same for all.
    reading : Reading

    Returns
    -------
    list of Part
        uint8 images, one part per data set, in memory or in their files.

    Raises
    ------
    ValueError
        If the images are of different sizes, of different modes, without classes, or too many for memory.
    """
    image_type = require("PIL.Image", f"the data set {name}", "examples").Image
    example = datasets[0][0]
    if not (isinstance(example, tuple) and len(example) == 2 and isinstance(example[0], image_type)):
        raise ValueError(f"{name} {NO_CLASSES}.")
    size = as_pixels(example[0], image_size).shape
    parts = [EncodedImages(name, files_of(dataset), image_size, size) for dataset in datasets]
    if _stay_in_files(name, parts, reading):
        return [Part(part, torch.from_numpy(part.dataset.labels)) for part in parts]
    return list(map(_decode, parts))


def _stay_in_files(name: str, parts: Sequence[EncodedImages], reading: Reading) -> bool:
    """Whether to stream images: if asked to, or if they would take too much of the memory."""
    n_pixels, memory = sum(part.shape.numel() for part in parts), total_bytes()
    in_files = all(isinstance(part.dataset, ImageFiles) for part in parts)
    stream = n_pixels * _STANDARDIZED > memory / _SHARE if reading.stream is None else reading.stream
    if stream and in_files:
        return True
    if n_pixels * (_DECODED + _STANDARDIZED) > memory:
        remedy = "let them be streamed (--stream)" if in_files else "make folders of it, from which it is streamed"
        raise ValueError(
            f"{name} has {sum(map(len, parts)):,} images of {' x '.join(map(str, parts[0].size))}, "
            f"{1e-9 * n_pixels * _STANDARDIZED:.1f} GB, but there is memory of {1e-9 * memory:.1f} GB: {remedy}, or "
            "pass a smaller image_size (--image-size)."
        )
    return False


def _decode(encoded: EncodedImages) -> Part:
    images, labels = np.empty(encoded.shape, np.uint8), np.empty(len(encoded), np.int64)
    digests = np.empty((len(encoded), 2), np.int64) if isinstance(encoded.dataset, ImageFiles) else None

    def decode_rows(start: int) -> None:
        for i in range(start, min(start + _IMAGES_PER_TASK, len(encoded))):
            images[i], labels[i] = encoded.read(i)
            if digests is not None:
                digests[i] = digest_of(images[i])

    # Threads rather than processes: PIL decodes without the interpreter's lock, and nothing is copied.
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(decode_rows, range(0, len(encoded), _IMAGES_PER_TASK)):
            pass
    return Part(
        torch.from_numpy(images), torch.from_numpy(labels), None if digests is None else torch.from_numpy(digests)
    )
