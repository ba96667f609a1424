"""Lists of integers in JSON: which examples to take, and labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastdens.io.arrays import check_file


def read_index_list(path: Path, n_examples: int | None = None) -> NDArray[np.int64]:
    """Indices of examples, which count from 0, each once.

    Parameters
    ----------
    path : Path
        A JSON file with a list of integers.
    n_examples : int, optional
        Number of examples that there are.

    Returns
    -------
    ndarray
        int64 [n], in the order of the file.

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    ValueError
        If it holds anything else, an index twice, or one that is out of range.
    """
    indices = _read_integers(path, "index")
    if n_examples is not None and indices.max() >= n_examples:
        at = int((indices >= n_examples).argmax())
        raise ValueError(
            f"{path} has the index {indices[at]} at position {at}, but there are {n_examples} examples, counted from "
            "0: pass the list of this data set."
        )
    values, first, counts = np.unique(indices, return_index=True, return_counts=True)
    if (counts > 1).any():
        at = int(first[counts > 1].min())
        twice = values[(first == at)][0]
        raise ValueError(f"{path} has the index {twice} at position {at} and again later: list each example once.")
    return indices


def read_label_list(path: Path, n_examples: int | None = None, n_classes: int | None = None) -> NDArray[np.int64]:
    """A label for each example, which count from 0.

    Parameters
    ----------
    path : Path
        A JSON file with a list of integers.
    n_examples, n_classes : int, optional
        Numbers of examples and classes that there are.

    Returns
    -------
    ndarray
        int64 [N].

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    ValueError
        If it holds anything else, another number of labels, or one that is out of range.
    """
    labels = _read_integers(path, "label")
    if n_examples is not None and len(labels) != n_examples:
        raise ValueError(
            f"{path} has {len(labels)} labels, but there are {n_examples} examples: pass the list of this data set."
        )
    if n_classes is not None and labels.max() >= n_classes:
        at = int((labels >= n_classes).argmax())
        raise ValueError(
            f"{path} has the label {labels[at]} at position {at}, but there are {n_classes} classes, counted from 0: "
            "pass the list of this data set."
        )
    return labels


def _read_integers(path: Path, what: str) -> NDArray[np.int64]:
    check_file(path, "a list in JSON")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is no JSON, or it is damaged: write a list of integers.") from None
    if not isinstance(found, list) or not found:
        what_is_there = "an empty list" if found == [] else f"a {type(found).__name__}"
        raise ValueError(f"{path} holds {what_is_there}: write a list of integers, one {what} each.")
    for at, value in enumerate(found):
        if type(value) is not int or not 0 <= value < 1 << 62:
            raise ValueError(f"{path} has no {what} at position {at}: write integers from 0.")
    return np.array(found, np.int64)
