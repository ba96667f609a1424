"""Fits read from files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from fastdens.io.state_file import read_state
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.dirichlet_process import DirichletProcessMixtures
from fastdens.mixtures.gaussian import GaussianMixtures
from fastdens.mixtures.variational import VariationalDirichletProcessMixtures

_ESTIMATORS: dict[str, type[BaseMixtures]] = {
    estimator.__name__: estimator
    for estimator in (GaussianMixtures, DirichletProcessMixtures, VariationalDirichletProcessMixtures)
}


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Any:
    """A fit that an estimator's ``save`` wrote; it gives the same densities, bit for bit.

    Parameters
    ----------
    path : path-like
    device : torch.device or str
        Where its tensors go.

    Returns
    -------
    GaussianMixtures, DirichletProcessMixtures or VariationalDirichletProcessMixtures
        Of the class that was saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or not a fit of this library.
    ImportError
        If safetensors is missing.
    """
    tensors, metadata = read_state(path, "fit")
    name = metadata.get("estimator")
    if not isinstance(name, str) or name not in _ESTIMATORS:
        raise ValueError(f"{Path(path)} is a saved {name}, which this fastdens does not know: upgrade fastdens.")
    estimator = _ESTIMATORS[name]
    return estimator.from_state({key: tensor.to(device) for key, tensor in tensors.items()}, metadata, str(Path(path)))
