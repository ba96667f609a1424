"""Mini-ImageNet as two pickles of arrays: ``train.pickle`` and ``test.pickle``, with the same classes in both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fastdens.io.safe_pickle import flat_array, read_pickled_dict
from fastdens.kernels.optional import require
from fastdens.labels import read_labels
from fastdens.training.datasets.decoding import read_parts
from fastdens.training.datasets.parts import ImageSet

_TRAIN, _TEST = "train.pickle", "test.pickle"


def has_pickles(folder: Path) -> bool:
    """Whether a folder has ``train.pickle``."""
    return (folder / _TRAIN).is_file()


def load_pickles(folder: Path, image_size: int | None, *, allow_pickle: bool) -> ImageSet:
    """The images of a folder with ``train.pickle`` and ``test.pickle``, which are its split.

    Each holds a dict: ``data``, uint8 images [height, width, 3] in an array or a list, and ``labels``, an integer from
    0 for each. They are read by :func:`fastdens.io.safe_pickle.read_pickle`, which runs nothing.

    Parameters
    ----------
    folder : Path
    image_size : int, optional
        Height and width to which the central square of each image is resized; by default images keep their size.
    allow_pickle : bool
        Whether the caller wants pickles to be read.

    Returns
    -------
    ImageSet
        uint8 images of three channels; the classes are called by their numbers.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If ``allow_pickle`` is False, or a file is damaged, holds something else or has a class that the other lacks.
    """
    if not allow_pickle:
        raise ValueError(
            f"{folder / _TRAIN} is a pickle: pass allow_pickle (--allow-pickle on the command line) to read the arrays "
            "in it, which runs nothing."
        )
    parts = [_PickledImages(folder / file) for file in (_TRAIN, _TEST)]
    classes = [set(part.labels.tolist()) for part in parts]
    if odd := sorted(classes[0] ^ classes[1]):
        raise ValueError(
            f"{folder}: the class {odd[0]} is in one of {_TRAIN} and {_TEST} only: put images of each class in both."
        )
    train, test = read_parts(str(folder), parts, image_size)
    return ImageSet(train, test, tuple(map(str, range(max(classes[0]) + 1))))


class _PickledImages:
    """A data set of the images in a pickle, as PIL images."""

    def __init__(self, file: Path) -> None:
        content = read_pickled_dict(file)
        for name in ("data", "labels"):
            if name not in content:
                raise ValueError(f"{file} has no {name!r}, it has {sorted(content)}: write a dict of data and labels.")
        self._file, self._images = file, content["data"]
        if not isinstance(self._images, np.ndarray | list | tuple) or len(self._images) == 0:
            raise ValueError(f"data of {file} is {type(self._images).__name__}: write an array [N, height, width, 3].")
        self.labels = self._read_labels(content["labels"])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, item: int) -> tuple[Any, int]:
        image = self._images[item]
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ValueError(f"image {item} of {self._file} is {found}: write uint8 arrays [height, width, 3].")
        return require("PIL.Image", "a data set of arrays", "examples").fromarray(image), int(self.labels[item])

    def _read_labels(self, labels: Any) -> Tensor:
        place = f"labels of {self._file}"
        try:
            found = read_labels(flat_array(labels, place), len(self), place, "there are {} images")
        except TypeError as error:
            raise ValueError(str(error)) from None
        if not isinstance(found, Tensor) or int(found.min()) < 0:
            raise ValueError(f"{place} are not integers from 0: write the number of the class of each image.")
        return found
