"""Mean and standard deviation of the log-density of each class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_labels, as_numpy, check_log_prob, own_class


class ClassLogDensity(NamedTuple):
    """Log-density over the examples of each of M classes, in nats.

    Attributes
    ----------
    mean, std : ndarray
        float64 [M], mean and standard deviation.
    size : ndarray
        int64 [M], examples of each class.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    size: NDArray[np.int64]


def class_log_density(log_prob: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> ClassLogDensity:
    """Mean and standard deviation over each class of ``log p(x_i | its class)``.

    Parameters
    ----------
    log_prob : array or Tensor
        [N], log-density of each example under its own class, or [N, M], under every class.
    labels : array or Tensor
        [N] integers from 0.

    Returns
    -------
    ClassLogDensity
        The standard deviation has divisor n - 1. Values are NaN where a class has too few examples.

    Raises
    ------
    ValueError
        If the shapes disagree.

    References
    ----------
    Jamroz & Kurdziel, Neural Representations Reveal Distinct Modes of Class Fitting in Residual Convolutional
    Networks, AAAI 2023.

    Examples
    --------
    >>> from fastdens.analysis import class_log_density
    >>> class_log_density([-1.0, -3.0, -5.0], [0, 0, 1]).mean
    array([-2., -5.])
    """
    values = as_numpy(log_prob).astype(np.float64)
    check_log_prob("log_prob", values)
    labels = as_labels(labels, len(values), values.shape[1] if values.ndim == 2 else None)
    n_classes = values.shape[1] if values.ndim == 2 else int(labels.max(initial=-1)) + 1
    values = own_class(values, labels)
    size = np.bincount(labels, minlength=n_classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(labels, values, n_classes) / size
        squares = np.bincount(labels, (values - mean[labels]) ** 2, n_classes)
        std = np.sqrt(squares / np.maximum(size - 1, 0))
    return ClassLogDensity(mean, std, size)
