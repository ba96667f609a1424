"""Corrections of p-values for the number of tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_numpy


def holm(pvalues: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Correct p-values by Holm's step-down method, which controls the family-wise error rate.

    The k-th smallest of L p-values is multiplied by L - k + 1, capped at 1, and raised to the one before it.

    Parameters
    ----------
    pvalues : array or Tensor
        [L]. NaN stays NaN and does not count as a test.

    Returns
    -------
    ndarray
        float64 [L].

    References
    ----------
    Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979.

    Examples
    --------
    >>> from fastdens.analysis import holm
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    values = as_numpy(pvalues, "pvalues").astype(np.float64)
    order = np.argsort(values)
    n_tests = int(np.isfinite(values).sum())
    corrected = np.full(len(values), np.nan)
    raised = np.maximum.accumulate(values[order[:n_tests]] * np.arange(n_tests, 0, -1))
    corrected[order[:n_tests]] = np.minimum(raised, 1)
    return corrected
