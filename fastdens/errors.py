"""Errors and warnings of the library, and checks of arguments that raise them."""

from __future__ import annotations

import operator

import torch

from fastdens.batch import RaggedBatch


class ModelError(ValueError):
    """One or more models of a batch cannot be fitted; the message names each.

    Parameters
    ----------
    message : str
        Which models failed and why, in a sentence.
    failures : dict of int to str
        The reason, by the number of the model.

    Attributes
    ----------
    failures : dict of int to str
        Why, for each model that failed.
    """

    def __init__(self, message: str, failures: dict[int, str]) -> None:
        super().__init__(message)
        self.failures = failures


class NotFittedError(ValueError, AttributeError):
    """An estimator is used before ``fit``.

    Parameters
    ----------
    estimator : object
        What is not fitted.
    call : str
        What to call first, such as "fit".
    """

    def __init__(self, estimator: object, call: str) -> None:
        super().__init__(f"this {type(estimator).__name__} is not fitted: call {call} first.")


class ConvergenceWarning(UserWarning):
    """Some models stopped before they converged."""


class ConstantFeatureWarning(UserWarning):
    """Some models have features that do not vary."""


def check_integer(name: str, value: object, minimum: int) -> int:
    """``value`` if it is an integer of at least ``minimum``."""
    try:
        # Arrays and tensors of one integer are integers to Python, too.
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None:
        shown = " ".join(repr(value).split())
        raise TypeError(f"{name} is {shown}, but it must be an integer of at least {minimum}.")
    if number < minimum:
        raise ValueError(f"{name} is {number}, but it must be at least {minimum}.")
    return number


def check_non_negative(name: str, value: object) -> float:
    """``value`` if it is a number of at least zero."""
    if not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{name} is {value!r}, but it must be a number of at least 0.")
    return float(value)


def check_positive(name: str, value: object) -> float:
    """``value`` if it is a finite number greater than zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r}, but it must be a positive number.")
    return float(value)


def check_batch(batch: object) -> RaggedBatch:
    """``batch`` if it is one, else a TypeError that says how to make one."""
    if not isinstance(batch, RaggedBatch):
        raise TypeError(
            f"expected a RaggedBatch, got {type(batch).__name__}: make one with fd.RaggedBatch.from_labels(x, y) or "
            "fd.RaggedBatch.from_list([x0, x1, ...])."
        )
    return batch


def check_batch_of(batch: object, n_models: int, n_features: int, device: torch.device) -> RaggedBatch:
    """``batch`` if it holds points of the fitted models: as many models, as many features, on their device.

    Raises
    ------
    TypeError, ValueError
        If it is no batch, or one of other models.
    """
    checked = check_batch(batch)
    if checked.n_models != n_models or checked.n_features != n_features:
        raise ValueError(
            f"the batch has {checked.n_models} models with D = {checked.n_features}, but {n_models} models with "
            f"D = {n_features} were fitted: pass a batch of the same models (from_labels takes classes)."
        )
    if checked.device != device:
        raise ValueError(
            f"the batch is on {checked.device} and the models are on {device}: move it with batch.to({str(device)!r})."
        )
    return checked
