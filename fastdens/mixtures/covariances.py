"""The kinds of covariances of Gaussian mixtures: their shapes, their parameters, and what may shrink them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastdens.inference.shrinkage import METHODS
from fastdens.kernels.options import COVARIANCE_TYPES as OF_EACH_MODEL
from fastdens.kernels.options import check_choice

TIED_ACROSS_MODELS = "tied_across_models"
COVARIANCE_TYPES = (*OF_EACH_MODEL, TIED_ACROSS_MODELS)

# Of covariances_ and, for those that can be shrunk, of shrinkage_, as check_tensors takes them.
AXES = {"full": "M K D D", "tied": "M D D", "diag": "M K D", "spherical": "M K", TIED_ACROSS_MODELS: "D D"}
SHRINKAGE_AXES = {"full": "M K", "tied": "M", TIED_ACROSS_MODELS: ""}


def covariance_shape(covariance_type: str, n_models: int, n_components: int, n_features: int) -> tuple[int, ...]:
    """The shape of ``covariances_``."""
    lengths = {"M": n_models, "K": n_components, "D": n_features}
    return tuple(lengths[axis] for axis in AXES[covariance_type].split())


def n_parameters(covariance_type: str, n_models: int, n_components: Tensor, n_features: int) -> Tensor:
    """Free parameters of the covariances of models of K components, float64 [M].

    Of a matrix that models share, each has the M-th part.
    """
    k, matrix = n_components, n_features * (n_features + 1) / 2
    return {
        "full": k * matrix,
        "tied": torch.full_like(k, matrix),
        "diag": k * n_features,
        "spherical": k,
        TIED_ACROSS_MODELS: torch.full_like(k, matrix / max(n_models, 1)),
    }[covariance_type]


def check_shrinkage(name: str, value: Any) -> None:
    """None, a number from 0 to 1, or the name of a method that chooses one."""
    if isinstance(value, str):
        check_choice(name, value, METHODS)
    elif value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
        raise ValueError(f"{name} is {value!r}, but it must be None, a number from 0 to 1, 'ledoit_wolf' or 'oas'.")


def check_can_shrink(shrinkage: str | float | None, covariance_type: str) -> None:
    """Raise a ValueError if covariances of this kind have no off-diagonal elements to shrink."""
    if shrinkage is not None and covariance_type not in SHRINKAGE_AXES:
        raise ValueError(
            f"shrinkage is {shrinkage!r}, which is for matrices, but covariance_type is {covariance_type!r}: choose "
            f"{', '.join(map(repr, SHRINKAGE_AXES))}, or leave shrinkage out."
        )


def check_can_stream(shrinkage: str | float | None, covariance_type: str) -> None:
    """Raise a ValueError if averages of a stream do not give such covariances."""
    if shrinkage is not None:
        raise ValueError(f"shrinkage is {shrinkage!r}, which streams do not have: leave it out, or call fit(batch).")
    check_each_by_itself(covariance_type)


def check_each_by_itself(covariance_type: str) -> None:
    """Raise a ValueError if models depend on each other, so that some of them are no part of a fit of all."""
    if covariance_type == TIED_ACROSS_MODELS:
        raise ValueError(
            f"covariance_type is {covariance_type!r}, whose models are fitted all together and at once: call "
            "estimator.fit(batch) in one process."
        )
