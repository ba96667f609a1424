"""Files of images with their classes: millions of paths in little memory, each image read when it is asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdens.kernels.optional import require
from fastdens.training.datasets.image_formats import read_image


class ImageFiles:
    """A data set of image files: pairs of a PIL image in RGB and a label.

    The paths lie in one string: a list of millions of them would take gigabytes, and again as much in every process
    that reads images, because counting references to a shared object copies its memory.

    Parameters
    ----------
    root : str
        Folder above all files.
    files : iterable of (str, int)
        Paths and labels.
    """

    def __init__(self, root: str, files: Iterable[tuple[str, int]]) -> None:
        self._root = root
        names, ends, labels = bytearray(), [0], []
        for path, label in files:
            names += os.fsencode(os.path.relpath(path, root))
            ends.append(len(names))
            labels.append(label)
        self._names = bytes(names)
        self._ends = np.array(ends, np.int64)
        self.labels: NDArray[np.int64] = np.array(labels, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: int) -> tuple[Any, int]:
        return read_image(self.place(item)), int(self.labels[item])

    def place(self, item: int) -> str:
        """The path of an image."""
        return os.path.join(self._root, os.fsdecode(self._names[self._ends[item] : self._ends[item + 1]]))

    def listing(self) -> str:
        """A digest of the paths below the root, the labels, and the sizes and times of the files."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self._names + self._ends.tobytes() + self.labels.tobytes())
        for i in range(len(self)):
            status = os.stat(self.place(i))
            digest.update(b"%d %d " % (status.st_size, status.st_mtime_ns))
        return digest.hexdigest()


def files_of(dataset: Any) -> Any:
    """The files of a data set of torchvision that is made of folders; another data set is returned as it is."""
    samples: Sequence[tuple[str, int]] | None = getattr(dataset, "samples", None)
    return dataset if samples is None else ImageFiles(str(Path(dataset.root)), samples)


def image_folder() -> Any:
    """The module of torchvision's ImageFolder."""
    return require("torchvision.datasets.folder", "a folder of images", "examples")
