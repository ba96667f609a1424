"""Arguments of the analysis: arrays or tensors are converted to numpy and checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.arrays import as_array
from fastdens.errors import check_integer
from fastdens.labels import encode, read_labels

# Classes of which most may be empty; from here on they are taken for names.
_MANY = 1 << 20


def as_numpy(x: ArrayLike | Tensor, name: str = "the array") -> NDArray[Any]:
    """Convert an array of numbers of any kind to a numpy array; half precision becomes float32.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastdens.arrays.as_array`.
    """
    array = as_array(x, name)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def as_labels(labels: ArrayLike | Tensor, n_examples: int, n_classes: int | None = None) -> NDArray[np.int64]:
    """Convert labels to classes int64 [N] that count from 0, N being ``n_examples``.

    Integers are the classes themselves. Names, and integers that cannot count from 0 because they are negative or
    huge, are numbered in their order as by :meth:`fastdens.RaggedBatch.from_labels`; if there are to be ``n_classes``,
    each of them must occur.

    Raises
    ------
    TypeError, ValueError
        If they are not N labels of one kind, or integers that are not classes under ``n_classes``.
    """
    found = read_labels(labels, n_examples, "labels")
    if n_examples == 0:
        return np.zeros(0, np.int64)
    if isinstance(found, Tensor):
        low, high = int(found.min()), int(found.max())
        if low >= 0 and high < (max(n_examples, _MANY) if n_classes is None else n_classes):
            return found.cpu().numpy().astype(np.int64)
        if n_classes is not None:
            raise ValueError(
                f"labels run from {low} to {high}, but classes count from 0 and are under the number of classes, "
                f"{n_classes}: renumber."
            )
    codes, classes = encode(found)
    if n_classes is not None and len(classes) != n_classes:
        raise ValueError(
            f"labels are {len(classes)} different names, but there are {n_classes} classes: pass the number of each "
            "class, from 0."
        )
    return codes.cpu().numpy()


def check_log_prob(name: str, log_prob: NDArray[Any]) -> None:
    """Raise a ValueError unless log-densities are [N], under the own class, or [N, M], under every class."""
    if log_prob.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {log_prob.shape}, but it must be [N] or [N, M].")


def own_class(log_prob: NDArray[Any], labels: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Log-density float64 [N] of each example under its own class.

    Parameters
    ----------
    log_prob : ndarray
        [N], under the own class already, or [N, M], under every class.
    labels : array or Tensor
        [N] integers from 0; below M for log-densities [N, M].

    Raises
    ------
    ValueError
        If log-densities are [N, M] and the labels are not N integers from 0 to M - 1.
    """
    values = log_prob.astype(np.float64)
    if values.ndim == 1:
        return values
    return values[np.arange(len(values)), as_labels(labels, *values.shape)]


def check_resampling(confidence: float, n_resamples: int) -> None:
    """Raise a TypeError or ValueError unless ``confidence`` is in (0, 1) and ``n_resamples`` an integer from 1."""
    check_integer("n_resamples", n_resamples, 1)
    check_confidence(confidence)


def check_confidence(confidence: float) -> None:
    """Raise a ValueError unless the level of an interval is a number between 0 and 1."""
    if not isinstance(confidence, int | float | np.floating) or not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}, but it must be a number between 0 and 1: 0.95, say.")


def random_numbers(random_state: int, *stream: int) -> np.random.Generator:
    """A generator of the seed ``random_state``, an integer of at least 0, or of one of its streams."""
    seed = check_integer("random_state", random_state, 0)
    return np.random.default_rng([seed, *stream] if stream else seed)
