"""Area under the ROC curve of examples whose score may be unknown."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_numpy
from fastdens.kernels.optional import require


def roc_auc(score: ArrayLike | Tensor, positive: ArrayLike | Tensor | None) -> float:
    """Probability that a positive example has a larger score than a negative one; ties count one half.

    Parameters
    ----------
    score : array or Tensor
        [N]. Examples whose score is NaN are left out.
    positive : array or Tensor or None
        [N] booleans; None where nothing is known of the examples.

    Returns
    -------
    float
        NaN where ``positive`` is None, or the examples left are all positive or all negative.

    Raises
    ------
    ValueError
        If the lengths differ.
    ImportError
        If scikit-learn is missing.

    References
    ----------
    Hanley & McNeil, The meaning and use of the area under a receiver operating characteristic (ROC) curve, Radiology
    143, 1982.

    Examples
    --------
    >>> from fastdens.analysis import roc_auc
    >>> roc_auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
    0.75
    """
    if positive is None:
        return math.nan
    metrics = require("sklearn.metrics", "roc_auc", "analysis")
    scores, positives = _known(score, positive)
    if not 0 < positives.sum() < len(positives):
        return math.nan
    # The order of the scores alone counts; infinite ones have a place in it.
    return float(metrics.roc_auc_score(positives, np.unique(scores, return_inverse=True)[1]))


def roc_auc_standard_error(score: ArrayLike | Tensor, positive: ArrayLike | Tensor | None) -> float:
    """Standard error of :func:`roc_auc`, by the variance of the placements of DeLong et al.

    The placement of a positive example is the share of the negative ones with a smaller score, that of a negative
    example the share of the positive ones with a larger score.

    Parameters
    ----------
    score, positive : array or Tensor
        As of :func:`roc_auc`.

    Returns
    -------
    float
        NaN where ``positive`` is None, or fewer than two of the examples left are positive or negative.

    Raises
    ------
    ValueError
        If the lengths differ.

    References
    ----------
    DeLong, DeLong & Clarke-Pearson, Comparing the areas under two or more correlated receiver operating characteristic
    curves, Biometrics 44, 1988.

    Examples
    --------
    >>> from fastdens.analysis import roc_auc_standard_error
    >>> round(roc_auc_standard_error([0.1, 0.4, 0.35, 0.8], [False, False, True, True]), 3)
    0.354
    """
    if positive is None:
        return math.nan
    scores, positives = _known(score, positive)
    ranks = np.unique(scores, return_inverse=True)[1]
    found, others = np.sort(ranks[positives == 1]), np.sort(ranks[positives == 0])
    if min(len(found), len(others)) < 2:
        return math.nan
    of_found, of_others = _share_below(found, others), _share_below(others, found)
    return math.sqrt(of_found.var(ddof=1) / len(found) + of_others.var(ddof=1) / len(others))


def _known(score: ArrayLike | Tensor, positive: ArrayLike | Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """The scores that are known, and whether their examples are positive."""
    scores, positives = as_numpy(score, "score"), as_numpy(positive, "positive")
    if ((positives != 0) & (positives != 1)).any():
        raise ValueError("positive has values that are not 0 and 1: pass True for the examples to be found.")
    if scores.ndim != 1 or positives.shape != scores.shape:
        raise ValueError(f"score has shape {scores.shape} and positive {positives.shape}, but both must be [N].")
    known = ~np.isnan(scores)
    return scores[known], positives[known]


def _share_below(values: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each value, the share of the others, sorted, that are smaller; ties count one half."""
    sides = (np.searchsorted(others, values, side="left"), np.searchsorted(others, values, side="right"))
    return (sides[0] + sides[1]) / (2 * len(others))
