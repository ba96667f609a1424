"""Initial parameters of Gaussian mixtures that are given as arrays."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.arrays import as_tensor
from fastdens.batch import RaggedBatch
from fastdens.mixtures.covariances import TIED_ACROSS_MODELS

_DEMANDS = {
    "weights_init": "finite, not negative and sum to 1",
    "means_init": "finite",
    "precisions_init": "finite, symmetric and positive definite",
}


def check_initial_parameters(
    given: Mapping[str, ArrayLike | Tensor | None],
    shapes: Mapping[str, tuple[int, ...]],
    batch: RaggedBatch,
    dtype: torch.dtype,
    covariance_type: str,
) -> dict[str, Tensor]:
    """Those of the initial weights, means and precisions that are given, on the device of the batch.

    Parameters
    ----------
    given : mapping
        ``weights_init``, ``means_init`` and ``precisions_init``, each an array or None.
    shapes : mapping
        The shape of each for this batch, the axis of models first.
    batch : RaggedBatch
        Points of the models to fit.
    dtype : torch.dtype
    covariance_type : str

    Returns
    -------
    dict
        ``weights``, ``means`` and ``precisions``, without those that are None.

    Raises
    ------
    TypeError, ValueError
        If one has another shape, or is no such parameter of some model.
    """
    initial = {}
    for name, shape in shapes.items():
        value = given[name]
        if value is None:
            continue
        tensor = as_tensor(value, name).detach().to(batch.device, dtype)
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but this batch needs {shape}.")
        # One matrix that all models share is checked as that of a single one.
        shared = name == "precisions_init" and covariance_type == TIED_ACROSS_MODELS
        owned = tensor[None] if shared else tensor
        bad = ~torch.isfinite(owned).flatten(1).all(1)
        if name == "weights_init":
            bad |= (tensor < 0).any(1) | ((tensor.sum(1) - 1).abs() > 1e-4)
        elif name == "precisions_init":
            bad |= ~_are_precisions(owned, covariance_type)
        if bool(bad.any()):
            of_model = "" if shared else f" of {batch.describe(int(bad.nonzero()[0]))}"
            raise ValueError(f"{name}{of_model} must be {_DEMANDS[name]}.")
        initial[name.removesuffix("_init")] = tensor
    return initial


def _are_precisions(tensor: Tensor, covariance_type: str) -> Tensor:
    """Whether all precisions of a model are positive (definite), bool [M]."""
    if covariance_type in ("diag", "spherical"):
        return (tensor > 0).flatten(1).all(1)
    # As torch.isclose has it, of finite numbers.
    asymmetry, largest = (tensor - tensor.mT).abs_(), tensor.abs().mul_(1e-4).add_(1e-6)
    symmetric = (asymmetry <= largest).flatten(1).all(1)
    lost: Tensor = torch.linalg.cholesky_ex(tensor).info
    return symmetric & lost.reshape(len(tensor), -1).eq(0).all(1)
