"""Classification by the class densities: how much of the label a layer holds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis._arrays import as_labels, as_numpy


class GenerativeClassification(NamedTuple):
    """Scores of ``argmax_c log p(x | c)``; precision, recall and F1 are weighted by the size of each class."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    predicted: NDArray[np.int64]


def generative_classification(log_prob: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> GenerativeClassification:
    """Classify each example by the class density that is largest at it.

    Parameters
    ----------
    log_prob : array or Tensor
        [N, M], log-density of each example under every class. A class of NaN (not fitted) is never predicted.
    labels : array or Tensor
        [N] integers from 0.

    Raises
    ------
    ValueError
        If the shapes disagree, or an example has no density under any class.
    """
    from sklearn.metrics import precision_recall_fscore_support

    values = as_numpy(log_prob)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"log_prob has shape {values.shape}, but it must be [N, M] with at least one example.")
    labels = as_labels(labels, len(values), values.shape[1])
    lost = np.isnan(values).all(1)
    if lost.any():
        raise ValueError(
            f"example {int(lost.argmax())} has no density under any class: its log_prob is NaN; leave it out."
        )
    predicted = np.nanargmax(values, 1).astype(np.int64)
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted, average="weighted", zero_division=0)
    return GenerativeClassification(
        float((predicted == labels).mean()), float(precision), float(recall), float(f1), predicted
    )
