"""Activations in memory and on disk."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import torch
from torch import Tensor

from fastdens.io.arrays import NpyStream, join_safetensors, map_npy, map_safetensors
from fastdens.io.atomic import atomic_write

LABELS = "labels"

Pooled = Iterator[dict[str, np.ndarray]]
Advance = Callable[..., None]


@dataclass(frozen=True)
class Activations:
    """Pooled activations of the same examples at several layers.

    Attributes
    ----------
    features : dict of str to Tensor
        [N, D] for each layer, float32; mapped into memory if they are on disk.
    labels : Tensor or None
        int64 [N], as the loader gave them, or None if it gave none.
    """

    features: dict[str, Tensor]
    labels: Tensor | None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order asked for."""
        return tuple(self.features)


@torch.inference_mode(False)
def load(path: str | os.PathLike[str]) -> Activations:
    """Activations on disk, mapped into memory.

    Parameters
    ----------
    path : path-like
        A ``.safetensors`` file, or a folder with one ``.npy`` [N, D] a layer, named after it, and ``labels.npy`` [N]
        if there are labels. ``layers.json`` in it, a list of the names, gives their order; without it they come in
        the order of their names, numbers in them counting as numbers.

    Raises
    ------
    FileNotFoundError
        If there is nothing of the kind.
    ValueError
        If a file is damaged, or the arrays do not have one row per example.
    """
    path = Path(path)
    if path.is_file():
        arrays = map_safetensors(path)
    elif path.is_dir() and any(path.glob("*.npy")):
        arrays = {unquote(file.stem): map_npy(file) for file in sorted(path.glob("*.npy"), key=_natural)}
    else:
        raise FileNotFoundError(
            f"{path} holds no activations: pass a .safetensors file, or a folder with one .npy file per layer."
        )
    labels = arrays.pop(LABELS, None)
    if (path / "layers.json").is_file():
        order = json.loads((path / "layers.json").read_text())
        missing = [name for name in order if name not in arrays]
        if missing:
            raise ValueError(f"{path} lacks the layer {missing[0]!r} that its layers.json names: extract it again.")
        arrays = {name: arrays[name] for name in order}
    n_examples = len(next(iter(arrays.values()))) if arrays else 0
    for name, array in arrays.items():
        if array.ndim != 2 or len(array) != n_examples:
            raise ValueError(
                f"layer {name!r} in {path} has shape {tuple(array.shape)}, but activations are [{n_examples}, D], one "
                "row an example as in the first layer."
            )
    if labels is not None and (labels.shape != (n_examples,) or labels.is_floating_point()):
        raise ValueError(
            f"the labels in {path} are {labels.dtype} of shape {tuple(labels.shape)}, but there are {n_examples} "
            "examples: give one integer for each."
        )
    return Activations(arrays, labels)


def _natural(file: Path) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.stem)]


def collect(batches: Pooled, advance: Advance) -> Activations:
    """All batches in memory, joined one array at a time."""
    parts: dict[str, list[Tensor]] = {}
    for batch in batches:
        for name, rows in batch.items():
            parts.setdefault(name, []).append(torch.from_numpy(rows))
        advance()
    # Tensors that a caller in inference mode can use outside of it, too.
    with torch.inference_mode(False):
        arrays = {name: torch.cat(parts.pop(name)) for name in list(parts)}
    labels = arrays.pop(LABELS, None)
    return Activations(arrays, labels)


def write(batches: Pooled, path: Path, layers: Sequence[str], advance: Advance, *, overwrite: bool) -> Activations:
    """Write batch after batch to a safetensors file or a folder, which appears when all is written; map it."""
    with atomic_write(path, overwrite=overwrite) as partial:
        if path.suffix == ".safetensors":
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".", suffix=".partial") as folder:
                join_safetensors(partial, _stream(batches, Path(folder), advance))
        else:
            partial.mkdir()
            _stream(batches, partial, advance)
            (partial / "layers.json").write_text(json.dumps(list(layers), indent=1))
    return load(path)


def _stream(batches: Pooled, folder: Path, advance: Advance) -> dict[str, Path]:
    """Append every batch to one ``.npy`` file per array; the files."""
    streams: dict[str, NpyStream] = {}
    files: dict[str, Path] = {}
    with ExitStack() as stack:
        for batch in batches:
            for name, rows in batch.items():
                if name not in streams:
                    # A name becomes a file name whatever characters are in it.
                    files[name] = folder / f"{quote(name, safe=' ')}.npy"
                    streams[name] = NpyStream(files[name], rows.shape[1:], rows.dtype)
                    stack.callback(streams[name].close)
                streams[name].append(rows)
            advance()
    return files
