"""Folders of images: one folder for each class, with or without parts, or one folder and lists."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path

from fastdens.training.datasets.decoding import DEFAULT_READING, Reading, read_parts
from fastdens.training.datasets.files import ImageFiles, image_folder
from fastdens.training.datasets.parts import ImageSet, hold_out

_PARTS = ("train", "val", "test")

# Files with the names of their classes.
_Listing = list[tuple[str, str]]


def load_folder(folder: Path, image_size: int | None, seed: int, reading: Reading = DEFAULT_READING) -> ImageSet:
    """The images of a folder in one of the layouts that :func:`fastdens.training.datasets.load_images` describes.

    Parameters
    ----------
    folder : Path
    image_size : int, optional
        Height and width to which the central square of each image is resized; by default images keep their size.
    seed : int
        Seed of the split, where the folder has none.
    reading : Reading
        Whether the images are held in memory.

    Returns
    -------
    ImageSet
        uint8 images of three channels, classes in alphabetical order.

    Raises
    ------
    FileNotFoundError
        If a folder has no images, or a listed image is missing.
    ValueError
        If training and test images have only some classes in common, or a list is malformed or names a file outside
        the folder of images.
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
        (whole,) = read_parts(str(folder), [_labelled(folder, pooled, names)], image_size, reading)
        return hold_out(str(folder), whole, names, seed)
    if odd := sorted(classes["train"] ^ classes[test]):
        raise ValueError(f"{folder}: the class {odd[0]!r} is in one of train and {test} only: put it in both.")
    names = _class_names(listings["train"])
    files = [_labelled(folder, listings[part], names) for part in ("train", test)]
    train_part, test_part = read_parts(str(folder), files, image_size, reading)
    return ImageSet(train_part, test_part, names)


def _labelled(folder: Path, listing: _Listing, class_names: Iterable[str]) -> ImageFiles:
    index = {name: c for c, name in enumerate(class_names)}
    return ImageFiles(str(folder), ((file, index[name]) for file, name in listing))


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
    listing: _Listing = []
    for name in names:
        found = image_folder().make_dataset(folder, {name: 0}, image_folder().IMG_EXTENSIONS, allow_empty=True)
        if not found:
            raise FileNotFoundError(
                f"the class {name!r} has no images in {folder / name}: add some or remove the folder."
            )
        listing += ((str(file), name) for file in sorted(Path(file) for file, _ in found))
    return listing


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
        listings[part] = _read_list(file)
        if not listings[part]:
            raise ValueError(f"{file} lists no image: fill or remove it.")
        for image, _ in listings[part]:
            # A name may have folders in it, but leads nowhere else.
            if not Path(os.path.normpath(image)).is_relative_to(os.path.normpath(folder / "images")):
                raise ValueError(
                    f"{file} lists {image!r}, which is not in {folder / 'images'}: list files of that folder."
                )
            if not Path(image).is_file():
                raise FileNotFoundError(f"{image!r}, which {file.name} lists, is missing: put it there.")
    return listings


def _read_list(file: Path) -> _Listing:
    """The files and labels of a list."""
    try:
        with file.open(newline="") as stream:
            rows = csv.DictReader(stream)
            if not {"filename", "label"} <= set(rows.fieldnames or ()):
                raise ValueError(f"{file} has the columns {rows.fieldnames}, but it must have filename and label.")
            found = [(row["filename"], row["label"]) for row in rows]
    except (csv.Error, UnicodeError) as error:
        raise ValueError(f"{file} is no list of filename,label ({error}): write it again.") from None
    for name, label in found:
        if not name or label is None:
            raise ValueError(f"{file} has a line without a filename or a label: write both in each line.")
    return [(str(file.parent / "images" / name), label) for name, label in found]
