"""Arguments of the analysis: arrays or tensors are converted to numpy and checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.errors import check_integer


def as_numpy(x: ArrayLike | Tensor) -> NDArray[Any]:
    """Convert an array, or a tensor on any device, to a numpy array; half precision becomes float32."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        return (x.float() if x.is_floating_point() and x.element_size() < 4 else x).numpy()
    if isinstance(x, list | tuple) and any(isinstance(part, Tensor) for part in x):
        x = [as_numpy(part) for part in x]
    array = np.asarray(x)
    # The bfloat16 of ml_dtypes is no floating-point type to numpy, but has the name of one.
    half = array.dtype.itemsize < 4 and "float" in array.dtype.name
    return array.astype(np.float32) if half else array


def as_labels(labels: ArrayLike | Tensor, n_examples: int, n_classes: int | None = None) -> NDArray[np.int64]:
    """Convert labels to int64 [N], N being ``n_examples``.

    Raises
    ------
    ValueError
        If they are not N integers from 0, or not below ``n_classes``.
    """
    array = as_numpy(labels)
    if array.shape != (n_examples,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"labels are {array.dtype} of shape {array.shape}, but there are {n_examples} examples: pass one "
            "integer for each."
        )
    if n_examples and (array.min() < 0 or (n_classes is not None and array.max() >= n_classes)):
        bound = "" if n_classes is None else f" and are under the number of classes, {n_classes}"
        raise ValueError(f"labels run from {array.min()} to {array.max()}, but classes count from 0{bound}: renumber.")
    return array.astype(np.int64)


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
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, but it must be between 0 and 1: 0.95, say.")
