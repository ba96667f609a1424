"""Models of one batch that have components of different numbers, as one fit of the largest number."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.memory import MemoryLimit
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.failures import Failures
from fastdens.mixtures.limited_memory import groups_in_memory
from fastdens.mixtures.parts import PartFit, fit_part, join

Estimator = TypeVar("Estimator", bound=BaseMixtures)


def with_components(estimator: Estimator, n_components: int) -> Estimator:
    """A copy of an estimator, fitted or not, with another number of components."""
    other = copy.copy(estimator)
    for name in vars(other).keys() - set(estimator._parameter_names()):
        delattr(other, name)
    vars(other)["n_components"] = n_components
    return other


def fit_own_components(
    estimator: Estimator,
    batch: RaggedBatch,
    n_components: Tensor,
    failures: Failures,
    max_memory: MemoryLimit | None = None,
) -> Estimator:
    """Fit every model with a number of components of its own.

    Parameters
    ----------
    estimator : BaseMixtures
        With a parameter ``n_components``, and tensors ``weights_`` of shape [M, K]; it stays as it is.
    batch : RaggedBatch
        Points of the models to fit.
    n_components : Tensor
        int64 [M], at least 1.
    failures : dict of int to str
        Models to leave out, and why.
    max_memory : int or str, optional
        As of ``fit``.

    Returns
    -------
    BaseMixtures
        A fit of as many components as the model that has most: the others have components of weight zero behind their
        own, which change no density and no responsibility, and are never drawn.

    Raises
    ------
    ModelError
        If a model fails while it is fitted and ``on_error`` is "raise".
    """
    fitted = [m for m in range(batch.n_models) if m not in failures]
    own = n_components.tolist()
    wide = with_components(estimator, max((own[m] for m in fitted), default=1))
    fits = []
    for begin, end in groups_in_memory(wide, batch, max_memory):
        for k in sorted({own[m] for m in fitted if begin <= m < end}):
            models = torch.tensor([m for m in fitted if begin <= m < end and own[m] == k], device=batch.device)
            fits.append(_widened(wide, fit_part(with_components(wide, k), batch, models)))
    if not fits:
        # All models failed: a fit of none gives the shapes.
        fits.append(fit_part(wide, batch, torch.empty(0, dtype=torch.int64, device=batch.device)))
    return join(wide, batch, failures, fits)


def _widened(wide: BaseMixtures, fit: PartFit) -> PartFit:
    """A fit with as many components as ``wide`` has: the first one again, with a weight of zero."""
    tensors = dict(fit.tensors)
    for name, description in wide._expected_tensors(tensors).items():
        axes = description.split()[1:]
        if "K" not in axes:
            continue
        axis, value = axes.index("K"), tensors[name]
        first = value.narrow(axis, 0, 1)
        # Of models that failed it is NaN as their other weights are.
        missing = wide.n_components - value.shape[axis]  # type: ignore[attr-defined]
        more = torch.repeat_interleave(first * 0 if name == "weights_" else first, missing, axis)
        tensors[name] = torch.cat([value, more], axis)
    return fit._replace(tensors=tensors)
