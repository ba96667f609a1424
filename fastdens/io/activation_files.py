"""Activations on disk: a folder of ``.npy`` files, one a layer, or one safetensors file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from torch import Tensor

from fastdens.io.arrays import map_npy, map_safetensors, read_npy
from fastdens.labels import Labels, read_labels

LABELS = "labels"
_ORDER = "layers.json"
# The names of the paper's files of a layer, which say how it was pooled.
_POOLED = re.compile(r"(avg|max)_pooling_(.+)_acts")
_POOLINGS = {"average": "avg", "max": "max"}


class ActivationFiles(NamedTuple):
    """What files of activations hold.

    Attributes
    ----------
    features : dict of str to Tensor
        [N, D] by layer, mapped into memory.
    labels : Tensor, ndarray or None
        [N], None if there are none.
    pooling : str or None
        "average" or "max", None if the files do not say.
    """

    features: dict[str, Tensor]
    labels: Labels | None
    pooling: str | None


def read_activations(path: Path, pooling: str = "average") -> ActivationFiles:
    """Features by layer, and the labels.

    Files that hold no data, such as those whose name begins with a dot, are passed over. So are those of the other
    pooling where files are called as the paper's: ``avg_pooling_layer1_acts.npy``, ``max_pooling_layer1_acts.npy``.

    Raises
    ------
    OSError
        If there is nothing of the kind, or a file cannot be read.
    ValueError
        If a file is damaged or holds something else, the arrays do not have one row per example, or no file is of this
        pooling.
    """
    found_pooling = None
    if path.is_dir():
        arrays, labels, place, found_pooling = _read_folder(path, pooling)
    elif path.suffix.lower() in (".npy", ".npz"):
        raise ValueError(f"{path} is one file: pass the folder with one .npy file per layer and labels.npy.")
    elif path.is_file():
        arrays = dict(map_safetensors(path))
        labels, place = arrays.pop(LABELS, None), f"the labels in {path}"
    else:
        raise _nothing(path)
    if pooling != "average" and found_pooling is None:
        raise ValueError(f"{path} does not say how its activations were pooled: leave pooling out.")
    n_examples = count_examples(arrays, f"in {path}")
    if labels is None:
        return ActivationFiles(arrays, None, found_pooling)
    try:
        return ActivationFiles(arrays, read_labels(labels, n_examples, place), found_pooling)
    except TypeError as error:
        raise ValueError(str(error)) from None


def count_examples(features: Mapping[str, Tensor], place: str) -> int:
    """The number of rows, the same at each layer.

    Raises
    ------
    ValueError
        If a layer is not [N, D], N and D positive, N that of the first layer.
    """
    first = next(iter(features.values()), None)
    n_examples = 0 if first is None or first.ndim == 0 else len(first)
    for name, array in features.items():
        if array.ndim != 2 or len(array) != n_examples or 0 in array.shape:
            raise ValueError(
                f"layer {name!r} {place} has shape {tuple(array.shape)}, but activations are [{n_examples or 'N'}, D], "
                "one row an example as in the first layer."
            )
    return n_examples


def _nothing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"{path} holds no activations: pass a .safetensors file, or a folder with one .npy file per layer."
    )


def _read_folder(folder: Path, pooling: str) -> tuple[dict[str, Tensor], Any, str, str | None]:
    """Arrays by name in their order, the labels, the name of the labels for messages, and the pooling if known."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise type(error)(f"{folder} cannot be read ({error.strerror}): check that you may read it.") from None
    # Systems leave files beside the data: "._layer1.npy", ".DS_Store", "Thumbs.db".
    files = sorted((f for f in entries if f.suffix.lower() == ".npy" and not f.name.startswith(".")), key=_natural)
    if not files:
        raise _nothing(folder)
    pooled = {file: match for file in files if (match := _POOLED.fullmatch(unquote(file.stem)))}
    if pooled and not any(match[1] == _POOLINGS[pooling] for match in pooled.values()):
        raise ValueError(
            f"{folder} has no file {_POOLINGS[pooling]}_pooling_LAYER_acts.npy, only {next(iter(pooled)).name} and the "
            "like: choose the other pooling."
        )
    arrays: dict[str, Tensor] = {}
    labels, place = None, ""
    for file in files:
        match = pooled.get(file)
        name = match[2] if match else unquote(file.stem)
        if pooled and not (match and match[1] == _POOLINGS[pooling]) and name != LABELS:
            continue
        if name == LABELS:
            labels, place = read_npy(file), str(file)
        elif name in arrays:
            raise ValueError(f"{file} has the layer {name!r}, as another file in the folder: keep one of them.")
        else:
            arrays[name] = map_npy(file)
    order = _read_order(folder / _ORDER, arrays)
    return {name: arrays[name] for name in order}, labels, place, pooling if pooled else None


def _read_order(file: Path, arrays: dict[str, Tensor]) -> list[str]:
    """The names that ``layers.json`` lists, or all of them without it."""
    if not file.exists():
        return list(arrays)
    try:
        order = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise type(error)(f"{file} cannot be read ({error.strerror}): delete it or make it readable.") from None
    except (ValueError, RecursionError):
        order = None
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        raise ValueError(f"{file} is no list of the names of layers in JSON: write it again or delete it.")
    if missing := [name for name in order if name not in arrays]:
        raise ValueError(f"{file.parent} lacks the layer {missing[0]!r} that its layers.json names: extract it again.")
    if len(set(order)) < len(order):
        raise ValueError(f"{file} names a layer twice: write it again or delete it.")
    return order


def _natural(file: Path) -> list[Any]:
    # Numbers count as numbers; a name that begins with one comes after an empty text, so that all compare.
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.stem)]
