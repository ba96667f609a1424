"""How well a score finds the examples, or classes, that are known to be special."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastdens.kernels.optional import require


def roc_auc(score: NDArray[np.float64], positive: NDArray[np.bool_] | None) -> float:
    """Area under the ROC curve: the probability that a positive has the larger score.

    Parameters
    ----------
    score : ndarray
        float64 [N]; those that are NaN are left out.
    positive : ndarray or None
        bool [N], None if nothing is known.

    Returns
    -------
    float
        NaN if nothing is known, or all that have a score are alike.

    Raises
    ------
    ImportError
        If scikit-learn is missing.
    """
    if positive is None:
        return math.nan
    known = ~np.isnan(score)
    positives = positive[known]
    if not 0 < positives.sum() < len(positives):
        return math.nan
    metrics = require("sklearn.metrics", "roc_auc", "analysis")
    return float(metrics.roc_auc_score(positives, score[known]))
