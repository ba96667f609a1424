"""CIFAR-10 and CIFAR-100 of torchvision's classes, whose pickles torchvision would hand to Python's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastdens.io.safe_pickle import PickleError, flat_array, read_pickled_dict
from fastdens.kernels.optional import require

KINDS = ("CIFAR10", "CIFAR100")


class Cifar:
    """The training or test images of CIFAR, read by :func:`fastdens.io.safe_pickle.read_pickle`, which runs nothing.

    Parameters
    ----------
    kind : type
        torchvision's class, which knows the names and the digests of the files.
    root : Path
        Where the folder of the files is.
    train : bool

    Attributes
    ----------
    classes : list of str

    Raises
    ------
    RuntimeError
        If a file is missing or is not the published one.
    PickleError
        If a published file does not hold images and their classes.
    """

    def __init__(self, kind: Any, root: Path, *, train: bool) -> None:
        folder = root / kind.base_folder
        meta = folder / kind.meta["filename"]
        digests = {folder / name: digest for name, digest in kind.train_list + kind.test_list}
        check_integrity = require("torchvision.datasets.utils", kind.__name__, "examples").check_integrity
        for file, digest in {**digests, meta: kind.meta["md5"]}.items():
            if not check_integrity(file, digest):
                raise RuntimeError("Dataset not found or corrupted")
        parts = [_read_part(folder / name) for name, _ in (kind.train_list if train else kind.test_list)]
        self._images = np.concatenate([images for images, _ in parts])
        self._labels = np.concatenate([labels for _, labels in parts])
        self.classes = flat_array(read_pickled_dict(meta)[kind.meta["key"]], f"{kind.meta['key']} of {meta}").tolist()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, item: int) -> tuple[Any, int]:
        image = require("PIL.Image", "CIFAR", "examples").fromarray(self._images[item])
        return image, int(self._labels[item])


def _read_part(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [N, 32, 32, 3], and labels [N] of a file."""
    content = read_pickled_dict(file)
    images = content.get("data")
    labels = flat_array(content.get("fine_labels", content.get("labels")), f"labels of {file}")
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (len(labels), 3072):
        raise PickleError(f"data of {file} is not uint8 [{len(labels)}, 3072]: put the published file there.")
    return np.ascontiguousarray(images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels
