"""Activations in memory and on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import torch
from torch import Tensor

from fastdens.io.activation_files import LABELS, read_activations
from fastdens.io.arrays import NpyStream, join_safetensors
from fastdens.io.atomic import atomic_write
from fastdens.kernels.options import check_choice
from fastdens.labels import Labels

# The rows of some examples by layer, and their labels.
Pooled = dict[str, Tensor]


@dataclass(frozen=True)
class Activations:
    """Pooled activations of the same examples at several layers.

    Attributes
    ----------
    features : dict of str to Tensor
        [N, D] for each layer, float32; mapped into memory if they are on disk.
    labels : Tensor, ndarray or None
        int64 [N], as the loader gave them, or None if it gave none; names read from a file are an array of strings.
    pooling : str or None
        "average" or "max" where the names of the files that they were read from say it, else None.
    """

    features: dict[str, Tensor]
    labels: Labels | None
    pooling: str | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order asked for."""
        return tuple(self.features)


@torch.inference_mode(False)
def load(path: str | os.PathLike[str], pooling: str = "average") -> Activations:
    """Activations on disk, mapped into memory.

    Parameters
    ----------
    path : path-like
        A ``.safetensors`` file, or a folder with one ``.npy`` [N, D] a layer, named after it, and ``labels.npy`` [N]
        if there are labels. ``layers.json`` in it, a list of the names, gives their order; without it they come in
        the order of their names, numbers in them counting as numbers. Numbers may be of any dtype and byte order, the
        labels of any kind that :meth:`fastdens.RaggedBatch.from_labels` takes. Hidden files are passed over. The names
        of the paper's files, ``avg_pooling_layer1_acts.npy`` and ``max_pooling_layer1_acts.npy``, are understood: the
        layer is ``layer1``.
    pooling : {"average", "max"}
        Which of these files to read.

    Returns
    -------
    Activations
        Of all layers that are there.

    Raises
    ------
    OSError
        If there is nothing of the kind, or a file cannot be read.
    ValueError
        If a file is damaged or does not hold numbers, the arrays do not have one row per example, or no file is of this
        pooling.

    Examples
    --------
    >>> import numpy as np, fastdens as fd
    >>> from pathlib import Path
    >>> Path("kept").mkdir()
    >>> np.save("kept/layer4.npy", np.zeros((5, 2), dtype="float32"))
    >>> np.save("kept/labels.npy", np.arange(5))
    >>> fd.activations.load("kept").features["layer4"].shape
    torch.Size([5, 2])
    """
    return Activations(*read_activations(Path(path), check_choice("pooling", pooling, ("average", "max"))))


def collect(batches: Iterable[Pooled]) -> Activations:
    """All batches in memory, joined one array at a time."""
    parts: dict[str, list[Tensor]] = {}
    for batch in batches:
        for name, rows in batch.items():
            parts.setdefault(name, []).append(rows)
    # Tensors that a caller in inference mode can use outside of it, too.
    with torch.inference_mode(False):
        arrays = {name: torch.cat(parts.pop(name)) for name in list(parts)}
    labels = arrays.pop(LABELS, None)
    return Activations(arrays, labels)


def write(pieces: Iterable[Pooled], path: Path, layers: Sequence[str], *, overwrite: bool, written: Path) -> None:
    """Write piece after piece to a safetensors file or a folder, which appears when all is written.

    Parameters
    ----------
    written : Path
        A file to make before the name appears, unless something has the name, in a folder for passing files.

    Raises
    ------
    OSError
        If the disk is full.
    """
    names = [*layers, LABELS]
    with atomic_write(path, overwrite=overwrite) as partial:
        try:
            if path.suffix == ".safetensors":
                arrays = written.with_name("arrays")
                arrays.mkdir(exist_ok=True)
                join_safetensors(partial, _stream(pieces, names, arrays))
            else:
                partial.mkdir()
                _stream(pieces, names, partial)
                (partial / "layers.json").write_text(json.dumps(list(layers), indent=1))
            if not path.exists():
                written.touch()
        except OSError as error:
            raise type(error)(
                f"{path} could not be written ({error.strerror}): make room on the disk and call again; the finished "
                f"batches are kept in {written.parent}."
            ) from None


def _stream(pieces: Iterable[Pooled], names: Sequence[str], folder: Path) -> dict[str, Path]:
    """Append every piece to one ``.npy`` file per array; the files, in the order of the names."""
    streams: dict[str, NpyStream] = {}
    files: dict[str, Path] = {}
    with ExitStack() as stack:
        for piece in pieces:
            for name in names:
                if name not in piece:
                    continue
                array = piece[name].numpy()
                if name not in streams:
                    # A name becomes a file name whatever characters are in it.
                    files[name] = folder / f"{quote(name, safe=' ')}.npy"
                    streams[name] = NpyStream(files[name], array.shape[1:], array.dtype)
                    stack.callback(streams[name].close)
                streams[name].append(array)
    return files
