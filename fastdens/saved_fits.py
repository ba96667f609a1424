"""Fits read from files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdens.class_layer import ClassLayerModels
from fastdens.io.state_file import read_state
from fastdens.mixtures.dirichlet_process import DirichletProcessMixtures
from fastdens.mixtures.factor_analysers import FactorAnalyserMixtures
from fastdens.mixtures.gaussian import GaussianMixtures
from fastdens.mixtures.variational import VariationalDirichletProcessMixtures
from fastdens.reduction import UncentredSVD

# Each has from_state(tensors, metadata, where), and get_state and save.
_ESTIMATORS: dict[str, Any] = {
    estimator.__name__: estimator
    for estimator in (
        DirichletProcessMixtures,
        FactorAnalyserMixtures,
        GaussianMixtures,
        UncentredSVD,
        VariationalDirichletProcessMixtures,
    )
}


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Any:
    """A fit that ``save`` of an estimator, a projection or :class:`~fastdens.ClassLayerModels` wrote.

    It gives the same densities and coordinates, bit for bit. Later versions read the files of earlier ones.

    Parameters
    ----------
    path : path-like
        A file that ``save`` wrote.
    device : torch.device or str
        Where its tensors go.

    Returns
    -------
    object
        Of the class that was saved, such as :class:`~fastdens.GaussianMixtures`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, not a fit of this library, or of a newer version of it.
    ImportError
        If safetensors is missing.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> batch = fd.RaggedBatch.from_labels(torch.randn(100, 2), torch.arange(100) % 2)
    >>> fd.GaussianMixtures(2, max_iter=1, tol=0).fit(batch).save("fit.safetensors")
    >>> fd.load("fit.safetensors")
    GaussianMixtures(n_components=2, covariance_type='full')
    """
    tensors, metadata = read_state(path, "fit")
    return fit_of_state({name: tensor.to(device) for name, tensor in tensors.items()}, metadata, str(Path(path)))


def fit_of_state(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], where: str) -> Any:
    """The fit of a state that ``get_state`` returned; ``where`` names the state in messages.

    Raises
    ------
    ValueError
        If it is not the state of a fit of this library.
    """
    name = metadata.get("estimator")
    if name == ClassLayerModels.__name__:
        return ClassLayerModels.from_state(tensors, metadata, where, fit_of_state)
    if not isinstance(name, str) or name not in _ESTIMATORS:
        raise ValueError(f"{where} is a saved {name}, which this fastdens does not know: upgrade fastdens.")
    return _ESTIMATORS[name].from_state(tensors, metadata, where)
