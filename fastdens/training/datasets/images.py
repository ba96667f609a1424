"""Images to train on: scikit-learn's digits, glyphs, a torchvision data set, or folders of images."""

from __future__ import annotations

import csv
import inspect
import operator
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdens.kernels.options import suggest
from fastdens.training.datasets.glyphs import glyphs

_OWN = ("digits", "glyphs100")
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
_PARTS = ("train", "val", "test")
_NO_CLASSES = "is not a data set of images and their classes: choose another, or make folders of it"
_LARGEST = 8_000_000_000  # bytes of float32


class Images(NamedTuple):
    """Images float32 [N, channels, height, width], mean 0 and variance 1 in training, and labels int64 [N].

    ``images * std + mean`` are pixels from 0 to 1; both are [1, channels, 1, 1]. ``long_tailed`` bool [classes] says
    which classes have a long tail of subpopulations, where that is known.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor
    long_tailed: Tensor | None = None


def load_images(
    dataset: str,
    root: str | os.PathLike[str] | None,
    image_size: int | None,
    seed: int,
    *,
    long_tailed: float | Iterable[int | str] | None = None,
) -> Images:
    """Images of a data set; nothing is ever downloaded.

    Parameters
    ----------
    dataset : str
        "digits" of scikit-learn; "glyphs100", see :func:`fastdens.training.datasets.glyphs.glyphs`; a classification data
        set of ``torchvision.datasets``, e.g. "CIFAR100", in upper or lower case; or a folder, which is one of

        - ``train`` and ``test`` or ``val``, each with one folder of images a class, e.g. ImageNet;
        - ``images`` and the lists ``train.csv``, ``val.csv`` and ``test.csv`` with columns ``filename`` and ``label``,
          e.g. Mini-ImageNet;
        - one folder of images a class.

        Where training and test images do not have the same classes by design (Mini-ImageNet), or are not told apart,
        one in six images of each class becomes a test image.
    root : path-like or None
        Where the files of a torchvision data set are. An archive there that is whole is unpacked.
    image_size : int, optional
        Height and width: the middle square of an image is resized to it. By default 16 for digits, 32 for glyphs, and
        as they are for all others, if they are of one size.
    seed : int
        Of the glyphs, and of the division into training and test images.
    long_tailed : float or iterable of int or str, optional
        The long-tailed classes of glyphs100, or their share; by default a fifth.

    Raises
    ------
    ValueError
        If there is no such data set, its images are of different sizes and ``image_size`` is None, they are more than
        8 GB, or it does not divide into classes.
    FileNotFoundError
        If its files are missing; the message says which file to put where.
    """
    name = dataset.lower()
    if long_tailed and name != "glyphs100":
        raise ValueError(f"long_tailed is for glyphs100, but the data set is {dataset}: leave it out.")
    tails: Tensor | None = None
    if name == "digits":
        parts, names = _digits(seed, image_size or 16), tuple("0123456789")
    elif name == "glyphs100":
        data = glyphs(long_tailed=0.2 if long_tailed is None else long_tailed, image_size=image_size or 32, seed=seed)
        parts = (data.train, data.true_labels), (data.test, data.test_labels)
        names, tails = data.class_names, data.long_tailed
    elif Path(dataset).is_dir():
        parts, names = _folder(Path(dataset), image_size, seed)
    else:
        parts, names = _torchvision(dataset, Path(root or "."), image_size, seed)
    (train, train_labels), (test, test_labels) = parts
    train, test = (x if x.is_floating_point() else x.float().div_(255) for x in (train, test))
    mean, std = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    return Images(
        train.sub_(mean).div_(std), train_labels, test.sub_(mean).div_(std), test_labels, names, mean, std, tails
    )


# Images, uint8 or float32 between 0 and 1, and labels.
_Part = tuple[Tensor, Tensor]
_Parts = tuple[_Part, _Part]


def _digits(seed: int, image_size: int) -> _Parts:
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise ImportError("digits needs scikit-learn, not installed: pip install 'fastdens[analysis]'.") from None
    data = load_digits()
    images, labels = torch.from_numpy(data.images / 16).float()[:, None], torch.from_numpy(data.target).long()
    if image_size != images.shape[-1]:
        images = F.interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    return (images[train], labels[train]), (images[test], labels[test])


class _ImageFiles(Sequence[tuple[Any, int]]):
    """Images in files, read when asked for, with their labels."""

    def __init__(self, files: Sequence[Path], labels: Sequence[int]) -> None:
        self.files, self.labels = files, labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        from PIL import Image

        try:
            with Image.open(self.files[index]) as image:
                # A data set with grey images among coloured ones has three channels.
                return image.convert("RGB"), self.labels[index]
        except FileNotFoundError:
            raise
        except OSError as error:
            raise OSError(f"{self.files[index]} cannot be read as an image ({error}): replace or remove it.") from None


def _folder(folder: Path, image_size: int | None, seed: int) -> tuple[_Parts, tuple[str, ...]]:
    parts = _listed(folder) if (folder / "images").is_dir() else _found(folder)
    classes = {part: {name for _, name in files} for part, files in parts.items()}
    test = next((part for part in ("test", "val") if classes.get(part)), None)
    unsorted = next((part for part in ("val", "test") if part in parts and not parts[part]), None)
    if test is None and unsorted:
        raise FileNotFoundError(
            f"{folder / unsorted} has no folders of images: put its images in one folder a class as in train."
        )
    if test is None or not classes["train"] & classes[test]:
        pooled = [file for files in parts.values() for file in files]
        names = tuple(sorted({name for _, name in pooled}))
        (everything,) = _read(str(folder), [_labelled(pooled, names)], image_size)
        return _divided(str(folder), everything, names, seed), names
    if odd := sorted(classes["train"] ^ classes[test]):
        raise ValueError(f"{folder}: the class {odd[0]!r} is in one of train and {test} only: put it in both.")
    names = tuple(sorted(classes["train"]))
    train_part, test_part = _read(str(folder), [_labelled(parts[part], names) for part in ("train", test)], image_size)
    return (train_part, test_part), names


_Listing = list[tuple[Path, str]]


def _found(folder: Path) -> dict[str, _Listing]:
    """Image files and their classes by part; those of a folder without parts are all "train"."""
    if (folder / "train").is_dir():
        parts = {part: _class_folders(folder / part) for part in _PARTS if (folder / part).is_dir()}
    else:
        parts = {"train": _class_folders(folder)}
    if not parts["train"]:
        raise FileNotFoundError(
            f"{folder} has no images: put one folder of images a class in its folders train and test, or in itself."
        )
    return parts


def _class_folders(folder: Path) -> _Listing:
    found: _Listing = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = sorted(file for file in place.rglob("*") if file.suffix.lower() in _IMAGE_SUFFIXES)
        if not files:
            raise FileNotFoundError(
                f"the class {place.name!r} has no images in {place}: add some or remove the folder."
            )
        found += [(file, place.name) for file in files]
    return found


def _listed(folder: Path) -> dict[str, _Listing]:
    parts: dict[str, _Listing] = {}
    for part in _PARTS:
        file = folder / f"{part}.csv"
        if not file.is_file():
            if part == "train":
                raise FileNotFoundError(
                    f"{folder} has a folder images but no list of them: put train.csv, val.csv and test.csv with the "
                    "columns filename and label beside it."
                )
            continue
        with file.open(newline="") as stream:
            rows = csv.DictReader(stream)
            if not {"filename", "label"} <= set(rows.fieldnames or ()):
                raise ValueError(f"{file} has the columns {rows.fieldnames}, but it must have filename and label.")
            parts[part] = [(folder / "images" / row["filename"], row["label"]) for row in rows]
        if not parts[part]:
            raise ValueError(f"{file} lists no image: fill or remove it.")
        for image, _ in parts[part]:
            if not image.is_file():
                raise FileNotFoundError(f"{image}, which {file.name} lists, is missing: put it there.")
    return parts


def _labelled(files: _Listing, names: tuple[str, ...]) -> _ImageFiles:
    index = {name: c for c, name in enumerate(names)}
    return _ImageFiles([file for file, _ in files], [index[name] for _, name in files])


def _divided(what: str, everything: _Part, names: tuple[str, ...], seed: int) -> _Parts:
    """One in six images of each class, at random, and at least one, for testing."""
    images, labels = everything
    rng, is_test = np.random.default_rng(seed), torch.zeros(len(labels), dtype=torch.bool)
    for c, name in enumerate(names):
        members = np.flatnonzero(labels.numpy() == c)
        if len(members) < 2:
            raise ValueError(f"{what}: the class {name!r} has {len(members)} images, but training and test need two.")
        is_test[rng.permutation(members)[: max(1, round(len(members) / 6))]] = True
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])


def _torchvision(dataset: str, root: Path, image_size: int | None, seed: int) -> tuple[_Parts, tuple[str, ...]]:
    try:
        from torchvision import datasets
    except ImportError:
        raise ImportError(
            f"the data set {dataset!r} needs torchvision, not installed: pip install 'fastdens[examples]'."
        ) from None
    known = {name.lower(): name for name in (*_OWN, *datasets.__all__)}
    name = known.get(dataset.lower())
    if name is None:
        nearest = re.sub(r"'(.*?)'", lambda found: repr(known[found[1]]), suggest(dataset.lower(), known))
        raise ValueError(
            f"there is no data set {dataset!r} and no folder of that name: the nearest names are {nearest}."
        )
    made = _made(name, getattr(datasets, name), root)
    parts = _read(name, made, image_size)
    n_classes = max(int(labels.max()) for _, labels in parts) + 1
    # ImageNet's classes are lists of synonyms, some of which are those of two classes.
    names = getattr(made[0], "wnids", None) or getattr(made[0], "classes", None) or range(n_classes)
    names = tuple(map(str, names))
    if len(parts) == 1:
        return _divided(name, parts[0], names, seed), names
    return (parts[0], parts[1]), names


def _made(name: str, kind: Any, root: Path) -> list[Any]:
    """The data set's training and test images, or all of them in one where it does not tell them apart."""
    takes = inspect.signature(kind).parameters
    required = {key for key, p in takes.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
    if required == {"root"}:
        if "train" in takes:
            return [_offline(name, kind, root, train=train) for train in (True, False)]
        if "split" not in takes:
            return [_offline(name, kind, root)]
        return [_of_split(name, kind, root, splits) for splits in (("train", "trainval"), ("test", "val"))]
    raise ValueError(f"torchvision's {name} {_NO_CLASSES}.")


def _of_split(name: str, kind: Any, root: Path, splits: Sequence[str]) -> Any:
    for split in splits:
        try:
            return _offline(name, kind, root, split=split)
        except ValueError as error:
            reason = error
    raise ValueError(f"torchvision's {name} has no split of {' or '.join(splits)} ({reason}): make folders of it.")


class _WouldDownload(Exception):
    def __init__(self, file: Path) -> None:
        self.file = file


def _offline(name: str, kind: Any, root: Path, **options: Any) -> Any:
    """The data set made of files that are there; archives among them are checked and unpacked."""
    try:
        return kind(root, **options)
    except (RuntimeError, FileNotFoundError) as error:
        reason: Exception = error
    unpacked = f" (or the folder {kind.base_folder} that it unpacks to)" if hasattr(kind, "base_folder") else ""
    try:
        if "download" in inspect.signature(kind).parameters:
            with _no_download(kind):
                return kind(root, download=True, **options)
    except _WouldDownload as would:
        file = would.file
        if file.is_file():
            raise FileNotFoundError(
                f"{name}'s file {file} is not whole, its checksum is wrong: put that file there again."
            ) from None
        raise FileNotFoundError(f"{name}'s files are missing: put {file.name}{unpacked} in {file.parent}.") from None
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        reason = error
    sentence = " ".join(str(reason).split()).rstrip(".")
    raise FileNotFoundError(f"{name} cannot be made of the files in {root}: {sentence}.") from None


@contextmanager
def _no_download(kind: type) -> Iterator[None]:
    """What torchvision would download raises _WouldDownload, at the seam that it has for other ways to get files."""
    from torchvision.datasets import utils

    def refuse(file: str, _url: str) -> None:
        raise _WouldDownload(Path(file))

    def refuse_drive(file_id: str, root: str, filename: str | None = None, md5: str | None = None) -> None:
        file = Path(root) / (filename or file_id)
        if not utils.check_integrity(file, md5):
            raise _WouldDownload(file)

    google_drive = "download_file_from_google_drive"
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(utils, "_is_remote_location_available", lambda: True))
        stack.enter_context(mock.patch.object(utils, "_download_file_from_remote_location", refuse))
        for module in (utils, sys.modules[kind.__module__]):
            if hasattr(module, google_drive):
                stack.enter_context(mock.patch.object(module, google_drive, refuse_drive))
        yield


def _read(what: str, sets: Sequence[Any], image_size: int | None) -> list[_Part]:
    """All images uint8 [N, channels, height, width] and labels int64 [N] of each set."""
    from PIL import Image

    example = sets[0][0]
    if not (isinstance(example, tuple) and len(example) == 2 and isinstance(example[0], Image.Image)):
        raise ValueError(f"{what} {_NO_CLASSES}.")
    first = _pixels(example[0], image_size)
    n_images = sum(map(len, sets))
    n_bytes = 4 * n_images * first.size
    if n_bytes > _LARGEST:
        raise ValueError(
            f"{what} has {n_images:,} images of {' x '.join(map(str, first.shape))}, {1e-9 * n_bytes:.1f} GB, but "
            f"images are kept in memory, at most {1e-9 * _LARGEST:.0f} GB: pass a smaller image_size (--image-size) or "
            "extract activations with fastdens.activations.extract and a DataLoader and pass them as --activations."
        )
    return [_read_one(what, dataset, image_size, first.shape) for dataset in sets]


def _read_one(what: str, dataset: Any, image_size: int | None, shape: tuple[int, ...]) -> _Part:
    images, labels = np.empty((len(dataset), *shape), np.uint8), np.empty(len(dataset), np.int64)

    def read(i: int) -> None:
        image, label = dataset[i]
        pixels = _pixels(image, image_size)
        if pixels.shape[1:] != shape[1:]:
            here, there = (" x ".join(map(str, s[1:])) for s in (shape, pixels.shape))
            raise ValueError(
                f"{what} has images of different sizes, {here} and {there} (image {i}): pass image_size, --image-size "
                "on the command line, to resize them."
            )
        if len(pixels) > len(images[i]):
            raise ValueError(f"{what} has grey images and coloured ones (image {i}): make folders of it.")
        try:
            images[i], labels[i] = pixels, operator.index(label)
        except TypeError:
            raise ValueError(f"{what} {_NO_CLASSES}.") from None

    with ThreadPoolExecutor() as pool:
        _run_all(pool, read, len(dataset))
    return torch.from_numpy(images), torch.from_numpy(labels)


def _run_all(pool: ThreadPoolExecutor, call: Callable[[int], None], n: int) -> None:
    """Call for 0 to n - 1, in runs; the error of the first run that has one."""
    step = 64

    def run(start: int) -> None:
        for i in range(start, min(start + step, n)):
            call(i)

    try:
        for _ in pool.map(run, range(0, n, step)):
            pass
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise


def _pixels(image: Any, image_size: int | None) -> np.ndarray:
    """uint8 [channels, height, width] of a PIL image."""
    from PIL import Image, ImageOps

    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
