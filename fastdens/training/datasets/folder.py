"""Folders of images: one folder for each class, with or without parts, or one folder and lists."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastdens.kernels.optional import require
from fastdens.training.datasets.decoding import decode
from fastdens.training.datasets.parts import ImageSet, hold_out

_PARTS = ("train", "val", "test")

# Files with the names of their classes.
_Listing = list[tuple[Path, str]]


def load_folder(folder: Path, image_size: int | None, seed: int) -> ImageSet:
    """The images of a folder in one of the layouts that :func:`fastdens.training.datasets.load_images` describes.

    Parameters
    ----------
    folder : Path
    image_size : int, optional
        Height and width to which the central square of each image is resized; by default images keep their size.
    seed : int
        Seed of the split, where the folder has none.

    Returns
    -------
    ImageSet
        uint8 images of three channels, classes in alphabetical order.

    Raises
    ------
    FileNotFoundError
        If a folder has no images, or a listed image is missing.
    ValueError
        If training and test images have only some classes in common, or a list is malformed.
    """
    listings = _read_lists(folder) if (folder / "images").is_dir() else _find_parts(folder)
    classes = {part: {name for _, name in listing} for part, listing in listings.items()}
    test = next((part for part in ("test", "val") if classes.get(part)), None)
    unsorted = next((part for part in ("val", "test") if part in listings and not listings[part]), None)
    if test is None and unsorted:
        raise FileNotFoundError(
            f"{folder / unsorted} has no folders of images: put its images in one folder per class as in train."
        )
    if test is None or not classes["train"] & classes[test]:
        pooled = [file for listing in listings.values() for file in listing]
        names = _class_names(pooled)
        (whole,) = decode(str(folder), [_ImageFiles(pooled, names)], image_size)
        return hold_out(str(folder), whole, names, seed)
    if odd := sorted(classes["train"] ^ classes[test]):
        raise ValueError(f"{folder}: the class {odd[0]!r} is in one of train and {test} only: put it in both.")
    names = _class_names(listings["train"])
    files = [_ImageFiles(listings[part], names) for part in ("train", test)]
    train_part, test_part = decode(str(folder), files, image_size)
    return ImageSet(train_part, test_part, names)


class _ImageFiles:
    """A data set of image files, read when an item is asked for."""

    def __init__(self, listing: _Listing, class_names: Iterable[str]) -> None:
        index = {name: c for c, name in enumerate(class_names)}
        self.samples = [(file, index[name]) for file, name in listing]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: int) -> tuple[Any, int]:
        file, label = self.samples[item]
        try:
            # Three channels always: a data set of photographs has some grey ones.
            return _image_folder().pil_loader(file), label
        except FileNotFoundError:
            raise
        except OSError as error:
            raise OSError(f"{file} cannot be read as an image ({error}): replace or remove it.") from None


def _image_folder() -> Any:
    """The module of torchvision's ImageFolder."""
    return require("torchvision.datasets.folder", "a folder of images", "examples")


def _class_names(listing: _Listing) -> tuple[str, ...]:
    return tuple(sorted({name for _, name in listing}))


def _find_parts(folder: Path) -> dict[str, _Listing]:
    """Listings of the folders train, val and test; those of a folder without parts are all "train"."""
    if (folder / "train").is_dir():
        listings = {part: _find_images(folder / part) for part in _PARTS if (folder / part).is_dir()}
    else:
        listings = {"train": _find_images(folder)}
    if not listings["train"]:
        raise FileNotFoundError(
            f"{folder} has no images: put one folder of images a class in its folders train and test, or in itself."
        )
    return listings


def _find_images(folder: Path) -> _Listing:
    """The files that torchvision's ImageFolder finds, in the order of their paths."""
    names = sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not names:
        return []
    index = {name: c for c, name in enumerate(names)}
    found = _image_folder().make_dataset(folder, index, _image_folder().IMG_EXTENSIONS, allow_empty=True)
    listing = sorted((names[c], Path(file)) for file, c in found)
    for name in names:
        if name not in {found_name for found_name, _ in listing}:
            raise FileNotFoundError(
                f"the class {name!r} has no images in {folder / name}: add some or remove the folder."
            )
    return [(file, name) for name, file in listing]


def _read_lists(folder: Path) -> dict[str, _Listing]:
    """Listings of train.csv, val.csv and test.csv, whose files lie in the folder images."""
    listings: dict[str, _Listing] = {}
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
            listings[part] = [(folder / "images" / row["filename"], row["label"]) for row in rows]
        if not listings[part]:
            raise ValueError(f"{file} lists no image: fill or remove it.")
        for image, _ in listings[part]:
            if not image.is_file():
                raise FileNotFoundError(f"{image}, which {file.name} lists, is missing: put it there.")
    return listings
