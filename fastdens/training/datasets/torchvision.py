"""Classification data sets of torchvision, from files that are already there: nothing is ever downloaded."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fastdens.kernels.optional import require
from fastdens.kernels.options import suggest
from fastdens.training.datasets.cifar import KINDS, Cifar
from fastdens.training.datasets.decoding import DEFAULT_READING, Reading, read_parts
from fastdens.training.datasets.encoded import NO_CLASSES
from fastdens.training.datasets.parts import ImageSet, hold_out
from fastdens.training.datasets.unpacking import first_sentence, unpack

_OTHER_DATA_SETS = ("anagrams", "digits", "glyphs100")
# torchvision unpickles a file that it finds beside the data, by Python's own reader.
UNPICKLED = ("LSUN", "LSUNClass")
"""Data sets that are refused, since torchvision would run what a file of theirs holds."""


class Resources(NamedTuple):
    """The files that a data set is published as, and the folder below the root that torchvision expects them in."""

    files: tuple[str, ...]
    folder: str = ""


_MNIST = Resources(
    tuple(f"{part}-{content}-ubyte.gz" for part in ("train", "t10k") for content in ("images-idx3", "labels-idx1"))
)

# Under the name of the data set, or that of the data set and its part, where each part has files of its own.
RESOURCES = {
    "CIFAR10": Resources(("cifar-10-python.tar.gz",)),
    "CIFAR100": Resources(("cifar-100-python.tar.gz",)),
    "CLEVRClassification": Resources(("CLEVR_v1.0.zip",), "clevr"),
    "Country211": Resources(("country211.tgz",)),
    "DTD": Resources(("dtd-r1.0.1.tar.gz",), "dtd"),
    "EuroSAT": Resources(("EuroSAT.zip",), "eurosat"),
    "FGVCAircraft": Resources(("fgvc-aircraft-2013b.tar.gz",)),
    "Flowers102": Resources(("102flowers.tgz", "imagelabels.mat", "setid.mat"), "flowers-102"),
    "Food101": Resources(("food-101.tar.gz",)),
    "GTSRB train": Resources(("GTSRB-Training_fixed.zip",), "gtsrb"),
    "GTSRB test": Resources(("GTSRB_Final_Test_Images.zip", "GTSRB_Final_Test_GT.zip"), "gtsrb"),
    "Imagenette": Resources(("imagenette2.tgz",)),
    "OxfordIIITPet": Resources(("images.tar.gz", "annotations.tar.gz"), "oxford-iiit-pet"),
    "RenderedSST2": Resources(("rendered-sst2.tgz",)),
    "SEMEION": Resources(("semeion.data",)),
    "STL10": Resources(("stl10_binary.tar.gz",)),
    "SUN397": Resources(("SUN397.tar.gz",)),
    "USPS train": Resources(("usps.bz2",)),
    "USPS test": Resources(("usps.t.bz2",)),
    **{name: _MNIST._replace(folder=f"{name}/raw") for name in ("MNIST", "FashionMNIST", "KMNIST")},
    **{f"SVHN {part}": Resources((f"{part}_32x32.mat",)) for part in ("train", "test")},
    **{
        f"PCAM {part}": Resources(tuple(f"camelyonpatch_level_2_split_{part}_{x}.h5.gz" for x in "xy"), "pcam")
        for part in ("train", "test")
    },
}


def load_torchvision(
    dataset: str, root: Path, image_size: int | None, seed: int, reading: Reading = DEFAULT_READING
) -> ImageSet:
    """The training and test images of a class of ``torchvision.datasets``.

    Parameters
    ----------
    dataset : str
        The name of the class, in upper or lower case.
    root : Path
        Where its files are. Archives there are unpacked.
    image_size : int, optional
        Height and width to which the central square of each image is resized; by default images keep their size.
    seed : int
        Seed of the split, where the data set has none.
    reading : Reading
        Whether the images are held in memory; those that torchvision holds are.

    Returns
    -------
    ImageSet
        uint8 images.

    Raises
    ------
    ValueError
        If there is no such data set, it is not one of images and their classes, or torchvision would unpickle a file
        of it.
    FileNotFoundError
        If its files are missing or damaged; the message says which file to put where.
    OSError
        If an archive would leave its folder, or unpacks to far more than it is long.
    ImportError
        If torchvision is not installed.
    """
    datasets = require("torchvision.datasets", f"the data set {dataset!r}", "examples")
    known = {name.lower(): name for name in (*_OTHER_DATA_SETS, *datasets.__all__)}
    name = known.get(dataset.lower())
    if name is None:
        nearest = re.sub(r"'(.*?)'", lambda match: repr(known[match[1]]), suggest(dataset.lower(), known))
        raise ValueError(
            f"there is no data set {dataset!r} and no folder of that name: the nearest names are {nearest}."
        )
    if name in UNPICKLED:
        raise ValueError(
            f"torchvision unpickles a file beside the data of {name}, which could run anything: make folders of its "
            "images."
        )
    made = _make_parts(name, getattr(datasets, name), root)
    parts = read_parts(name, made, image_size, reading)
    n_classes = max(int(part.labels.max()) for part in parts) + 1
    # ImageNet's classes are lists of synonyms, and two of the lists are equal: its WordNet names are not.
    class_names = getattr(made[0], "wnids", None) or getattr(made[0], "classes", None) or range(n_classes)
    class_names = tuple(map(str, class_names))
    if len(parts) == 1:
        return hold_out(name, parts[0], class_names, seed)
    train, test = parts
    return ImageSet(train, test, class_names)


def _make_parts(name: str, kind: Any, root: Path) -> list[Any]:
    """The data set's training and test images, or all of them in one where it does not separate them."""
    parameters = inspect.signature(kind).parameters
    required = {key for key, p in parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
    if required != {"root"}:
        raise ValueError(f"torchvision's {name} {NO_CLASSES}.")
    if "train" in parameters:
        return [_make(name, kind, root, part, train=part == "train") for part in ("train", "test")]
    if "split" not in parameters:
        return [_make(name, kind, root, "")]
    return [_make_split(name, kind, root, splits) for splits in (("train", "trainval"), ("test", "val"))]


def _make_split(name: str, kind: Any, root: Path, splits: Sequence[str]) -> Any:
    for split in splits:
        try:
            return _make(name, kind, root, split, split=split)
        except ValueError as error:
            reason = error
    raise ValueError(f"torchvision's {name} has no split of {' or '.join(splits)} ({reason}): make folders of it.")


def _make(name: str, kind: Any, root: Path, part: str, **options: Any) -> Any:
    """The data set made of the files in ``root``, of whose archives torchvision reads only the contents."""
    make = partial(Cifar, kind) if name in KINDS else kind
    try:
        return make(root, **options)
    except (RuntimeError, FileNotFoundError) as error:
        reason: Exception = error
    resources = RESOURCES.get(f"{name} {part}") or RESOURCES.get(name)
    if resources is None:
        raise FileNotFoundError(
            f"{name} cannot be made of the files in {root} ({first_sentence(reason)}): put the files there that "
            f"torchvision.datasets.{name} reads."
        ) from None
    files = [root / resources.folder / file for file in resources.files]
    for file in files:
        if not file.is_file():
            unpacked = f" (or the folder {kind.base_folder} that it unpacks to)" if hasattr(kind, "base_folder") else ""
            raise FileNotFoundError(
                f"{name}'s files are missing: put {file.name}{unpacked} in {file.parent}."
            ) from None
    for file in files:
        unpack(name, file)
    try:
        return make(root, **options)
    except (RuntimeError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"{name} cannot be made of {', '.join(resources.files)} in {files[0].parent} ({first_sentence(error)}): "
            "put the published files there again."
        ) from None
