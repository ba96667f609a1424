"""Labels of examples as numbers of classes, and names of the classes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.labels import Labels, encode, encode_as, read_labels

_NAMES = "class_names.txt"


def classes_of(
    labels: Labels, where: str, class_names: Sequence[str] | None, folder: Path | None
) -> tuple[NDArray[np.int64], Sequence[Hashable], tuple[str, ...]]:
    """The class of each example, int64 [N], the label of each class, and its name."""
    codes, distinct = encode(labels, f"labels of {where}")
    if isinstance(class_names, str):
        raise TypeError(f"class_names is {class_names!r}: pass a list of one name for each class.")
    given = _names_in(folder) if class_names is None else tuple(map(str, class_names))
    if given is None:
        return codes.cpu().numpy(), distinct, tuple(map(_name, distinct))
    there_are = f"there are {len(distinct)} classes"
    if isinstance(labels, Tensor) and int(labels.min()) >= 0:
        # Integers from 0 are positions among the names; a file has a name for each.
        last = int(labels.max())
        if last + 1 == len(given) or (last < len(given) and class_names is not None):
            return labels.long().cpu().numpy(), range(len(given)), given
        there_are = f"labels run to {last}"
    elif set(distinct) <= set(given):
        return encode_as(labels, given, f"labels of {where}").cpu().numpy(), given, given
    if len(given) == len(distinct):
        return codes.cpu().numpy(), distinct, given
    if class_names is None and folder is not None:
        raise ValueError(
            f"{folder / _NAMES} has {len(given)} lines, {len(set(given))} of them different, but there are "
            f"{len(distinct)} classes: write one name per line, each once."
        )
    raise ValueError(f"class_names has {len(given)} names, but {there_are}: name each class.")


def _name(label: Hashable) -> str:
    return label.decode(errors="replace") if isinstance(label, bytes) else str(label)


def names_of_outputs(labels: ArrayLike | Tensor, n_examples: int) -> tuple[str, ...]:
    """Numbers for the outputs of a network, up to the largest label."""
    read = read_labels(labels, n_examples, "train_labels", "there are {} images")
    if not isinstance(read, Tensor) or int(read.min()) < 0:
        raise ValueError(
            "train_labels are not integers from 0: pass class_names, the names of the outputs of the network in order."
        )
    return tuple(map(str, range(int(read.max()) + 1)))


def codes_among(labels: Labels, where: str, classes: Sequence[Hashable]) -> NDArray[np.int64]:
    """The class of each test example, int64 [T], or a ValueError that speaks of the training labels."""
    try:
        return encode_as(labels, classes, where).cpu().numpy()
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')} of the training labels: use the same classes for both.") from None


def _names_in(folder: Path | None) -> tuple[str, ...] | None:
    """Lines of ``class_names.txt``, each different, if there is a folder that has one."""
    if folder is None or not (file := folder / _NAMES).exists():
        return None
    try:
        names = tuple(file.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise type(error)(f"{file} cannot be read ({error.strerror}): delete it or make it readable.") from None
    except ValueError:
        raise ValueError(f"{file} is no text in UTF-8: write one name per line.") from None
    if len(set(names)) < len(names):
        raise ValueError(
            f"{file} has {len(names)} lines, {len(set(names))} of them different: write one name per line, each once."
        )
    return names
