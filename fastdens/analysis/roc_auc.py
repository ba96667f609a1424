"""Area under the ROC curve of examples whose score may be unknown."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.analysis.arguments import as_numpy
from fastdens.kernels.optional import require


def roc_auc_standard_error(score: ArrayLike | Tensor, positive: ArrayLike | Tensor) -> float:
    """Standard error of :func:`roc_auc`, the examples being independent draws.

    Parameters
    ----------
    score : array or Tensor
        [N], none of them NaN.
    positive : array or Tensor
        [N] booleans.

    Returns
    -------
    float
        NaN where there are fewer than two positive or two negative examples.

    References
    ----------
    DeLong, DeLong & Clarke-Pearson, Comparing the areas under two or more correlated receiver operating characteristic
    curves: a nonparametric approach, Biometrics 44, 1988.
    """
    rankdata = require("scipy.stats", "roc_auc_standard_error", "analysis").rankdata
    scores, positives = as_numpy(score, "score"), as_numpy(positive, "positive").astype(bool)
    if min(positives.sum(), (~positives).sum()) < 2:
        return math.nan
    variance = 0.0
    for own in (positives, ~positives):
        # Of each example, the share of the other kind that it surpasses, ties counted by half.
        share = (rankdata(scores)[own] - rankdata(scores[own])) / (~own).sum()
        variance += share.var(ddof=1) / own.sum()
    return math.sqrt(variance)


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
    """
    if positive is None:
        return math.nan
    metrics = require("sklearn.metrics", "roc_auc", "analysis")
    scores, positives = as_numpy(score, "score"), as_numpy(positive, "positive")
    if ((positives != 0) & (positives != 1)).any():
        raise ValueError("positive has values that are not 0 and 1: pass True for the examples to be found.")
    if scores.ndim != 1 or positives.shape != scores.shape:
        raise ValueError(f"score has shape {scores.shape} and positive {positives.shape}, but both must be [N].")
    known = ~np.isnan(scores)
    scores, positives = scores[known], positives[known]
    if not 0 < positives.sum() < len(positives):
        return math.nan
    # The order of the scores alone counts; infinite ones have a place in it.
    return float(metrics.roc_auc_score(positives, np.unique(scores, return_inverse=True)[1]))
