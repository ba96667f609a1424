"""Images to train on: scikit-learn's digits, a torchvision data set, or folders of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdens.names import nearest_names


class Images(NamedTuple):
    """Images float32 [N, channels, height, width], mean 0 and variance 1 in training, and labels int64 [N]."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]


def load_images(dataset: str, root: Path, image_size: int | None, seed: int) -> Images:
    """Images of a data set.

    Parameters
    ----------
    dataset : str
        "digits"; the name of a class in ``torchvision.datasets`` that takes ``train=``, e.g. "CIFAR10"; or a folder
        with ``train`` and ``test`` (or ``val``), each with one folder of images a class.
    root : Path
        Where the files of a torchvision data set are; nothing is downloaded.
    image_size : int, optional
        Height and width to resize to; by default 16 for digits, 32 for folders, and as they are for torchvision.
    seed : int
        Of the division of digits into training and test images.

    Raises
    ------
    ValueError
        If there is no such data set.
    FileNotFoundError
        If its files are missing.
    """
    if dataset == "digits":
        parts, names = _digits(seed), tuple("0123456789")
        image_size = image_size or 16
    elif Path(dataset).is_dir():
        parts, names = _folders(Path(dataset), image_size or 32)
    else:
        parts, names = _torchvision(dataset, root)
    (train, train_labels), (test, test_labels) = parts
    mean, std = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    train, test = (train - mean) / std, (test - mean) / std
    if image_size is not None and train.shape[-2:] != (image_size, image_size):
        train, test = (
            F.interpolate(x, size=(image_size, image_size), mode="bilinear", antialias=True) for x in (train, test)
        )
    return Images(train, train_labels, test, test_labels, names)


_Part = tuple[Tensor, Tensor]


def _digits(seed: int) -> tuple[_Part, _Part]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images, labels = torch.from_numpy(data.images / 16).float()[:, None], torch.from_numpy(data.target).long()
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    return (images[train], labels[train]), (images[test], labels[test])


def _folders(folder: Path, image_size: int) -> tuple[tuple[_Part, _Part], tuple[str, ...]]:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    test = "test" if (folder / "test").is_dir() else "val"
    for part in ("train", test):
        if not (folder / part).is_dir():
            raise FileNotFoundError(f"{folder} has no folder {part!r}: put one folder of images a class in it.")
    resize = v2.Compose([v2.ToImage(), v2.Resize((image_size, image_size)), v2.ToDtype(torch.float32, scale=True)])
    train_set, test_set = ImageFolder(folder / "train", resize), ImageFolder(folder / test, resize)
    if train_set.classes != test_set.classes:
        odd = sorted(set(train_set.classes) ^ set(test_set.classes))
        raise ValueError(f"{folder}: the class {odd[0]!r} is in one of train and {test} only: put it in both.")
    return (_stacked(train_set), _stacked(test_set)), tuple(train_set.classes)


def _torchvision(name: str, root: Path) -> tuple[tuple[_Part, _Part], tuple[str, ...]]:
    from torchvision import datasets
    from torchvision.transforms import v2

    if not hasattr(datasets, name):
        known = ["digits", *datasets.__all__]
        raise ValueError(
            f"there is no data set {name!r} and no folder of that name: the nearest names are "
            f"{nearest_names(name, known)}."
        )
    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    make: Any = getattr(datasets, name)
    try:
        train_set, test_set = (make(root, train=train, download=False, transform=to_tensor) for train in (True, False))
    except TypeError as error:
        raise ValueError(f"torchvision's {name} cannot be made with train= ({error}): make folders of it.") from None
    except RuntimeError as error:
        raise FileNotFoundError(
            f"the files of {name} are not in {root} ({error}): put them there as torchvision does, or pass --data-root."
        ) from None
    parts = _stacked(train_set), _stacked(test_set)
    n_classes = int(parts[0][1].max()) + 1
    return parts, tuple(map(str, getattr(train_set, "classes", range(n_classes))))


def _stacked(dataset: Any) -> _Part:
    images, labels = zip(*dataset, strict=True)
    return torch.stack(images), torch.tensor(labels, dtype=torch.int64)
