"""Detectors read from files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from fastdens.io.state_file import read_state
from fastdens.ood.base import DETECTOR, SavedDetector
from fastdens.ood.layered import DETECTORS, LayeredDetector

_SAVED: dict[str, type[SavedDetector]] = {**DETECTORS, LayeredDetector.__name__: LayeredDetector}


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Any:
    """A fitted detector that its ``save`` wrote; it gives the same scores, bit for bit.

    Parameters
    ----------
    path : path-like
        A file that ``save`` wrote.
    device : torch.device or str
        Where its tensors go.

    Returns
    -------
    Detector or LayeredDetector
        Of the class that was saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or not a detector of this library.
    ImportError
        If safetensors is missing.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> fd.ood.NearestNeighbours(k=3).fit(torch.randn(50, 4)).save("detector.safetensors")
    >>> fd.ood.load("detector.safetensors").score(torch.zeros(2, 4)).shape
    torch.Size([2])
    """
    tensors, metadata = read_state(path, DETECTOR)
    name = metadata.get("detector")
    if not isinstance(name, str) or name not in _SAVED:
        raise ValueError(f"{Path(path)} is a saved {name}, which this fastdens does not know: upgrade fastdens.")
    return _SAVED[name].from_state({key: t.to(device) for key, t in tensors.items()}, metadata, str(Path(path)))
