"""Classification by the class densities, a measure of the label information in a layer."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_labels, as_numpy


class GenerativeClassification(NamedTuple):
    """Scores of the classifier ``argmax_c log p(x | c)``.

    Attributes
    ----------
    accuracy : float
    precision, recall, f1 : float
        Means over the classes, weighted by their number of examples. The weighted recall equals the accuracy.
    predicted : ndarray
        int64 [N], the predicted class of each example.
    accuracy_standard_error, f1_standard_error : float
        Standard errors over samples of examples, with the densities fixed.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    predicted: NDArray[np.int64]
    accuracy_standard_error: float
    f1_standard_error: float


def generative_classification(log_prob: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> GenerativeClassification:
    """Classify each example by the largest class density.

    The precision of a class that is never predicted is zero. The standard error of the accuracy is binomial; that of F1
    follows from the delta method, F1 being a function of the cells of the confusion matrix.

    Parameters
    ----------
    log_prob : array or Tensor
        [N, M], log-density of each example under every class. A class that is NaN (not fitted) is never predicted.
    labels : array or Tensor
        [N] integers from 0. Classes without examples have no weight.

    Returns
    -------
    GenerativeClassification
        The scores, their standard errors, and the class of each example.

    Raises
    ------
    ValueError
        If the shapes disagree, or an example has no density under any class.

    References
    ----------
    Takahashi et al., Confidence interval for micro-averaged F1 and macro-averaged F1 scores, Applied Intelligence 52,
    2022 (the delta method).

    Examples
    --------
    >>> from fastdens.analysis import generative_classification
    >>> result = generative_classification([[-1.0, -9.0], [-8.0, -2.0], [-3.0, -5.0]], [0, 1, 1])
    >>> result.predicted, round(result.accuracy, 2)
    (array([0, 1, 0]), 0.67)
    """
    values = as_numpy(log_prob)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"log_prob has shape {values.shape}, but it must be [N, M] with at least one example.")
    n_examples, n_classes = values.shape
    labels = as_labels(labels, n_examples, n_classes)
    lost = np.isnan(values).all(1)
    if lost.any():
        raise ValueError(
            f"example {int(lost.argmax())} has no density under any class: its log_prob is NaN; leave it out."
        )
    predicted = np.nanargmax(values, 1).astype(np.int64)
    correct = predicted == labels
    accuracy = float(correct.mean())
    # F1 is computed here, not by scikit-learn, because its standard error needs the same shares of the examples: of a
    # class, predicted as the class, and both.
    true, called, both = (
        np.bincount(labels_of, minlength=n_classes) / n_examples for labels_of in (labels, predicted, labels[correct])
    )
    either = np.where(true + called > 0, true + called, 1.0)
    # Rounding may carry the sums a little beyond one.
    precision = min(1.0, float((true * both / np.where(called > 0, called, 1.0)).sum()))
    f1 = min(1.0, float((true * 2 * both / either).sum()))
    # Delta method: the influence of an example on F1 = sum_c 2 true both / (true + called).
    influence = (2 * both * called / either**2)[labels] - (2 * both * true / either**2)[predicted]
    influence += np.where(correct, (2 * true / either)[labels], 0.0)
    return GenerativeClassification(
        accuracy,
        precision,
        accuracy,
        f1,
        predicted,
        math.sqrt(accuracy * (1 - accuracy) / n_examples),
        float(influence.std() / math.sqrt(n_examples)),
    )
