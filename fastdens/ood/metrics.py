"""How well scores tell examples that are out of distribution from those that are in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis import roc_auc, roc_auc_standard_error
from fastdens.arrays import as_array


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found; examples that are out of distribution are the positive ones.

    Attributes
    ----------
    auroc : float
        Probability that one of them has a larger score than one in distribution; ties count one half.
    auroc_standard_error : float
        By DeLong et al.; NaN for fewer than two examples of a kind.
    false_positive_rate : float
        See :func:`false_positive_rate`.
    true_positive_rate : float
        At which it was taken.
    n_in, n_out : int
        Examples in and out of distribution.
    """

    auroc: float
    auroc_standard_error: float
    false_positive_rate: float
    true_positive_rate: float
    n_in: int
    n_out: int


def evaluate(
    in_distribution: ArrayLike | Tensor, out_of_distribution: ArrayLike | Tensor, *, true_positive_rate: float = 0.95
) -> Evaluation:
    """Area under the ROC curve, and the false positive rate at a true positive rate.

    Parameters
    ----------
    in_distribution, out_of_distribution : array or Tensor
        [N] and [N'], scores, larger for what is out of distribution.
    true_positive_rate : float
        In (0, 1].

    Returns
    -------
    Evaluation
        Both, with the standard error of the area.

    Raises
    ------
    ValueError
        If there are no scores of a kind, one is NaN, or ``true_positive_rate`` is out of range.
    ImportError
        If scikit-learn is missing.

    Examples
    --------
    >>> import fastdens as fd
    >>> fd.ood.evaluate([0.1, 0.2, 0.3], [0.25, 0.4]).auroc
    0.8333333333333334
    """
    inside, outside = _scores(in_distribution, "in_distribution"), _scores(out_of_distribution, "out_of_distribution")
    rate = false_positive_rate(inside, outside, true_positive_rate)
    scores = np.concatenate([inside, outside])
    positive = np.arange(len(scores)) >= len(inside)
    return Evaluation(
        roc_auc(scores, positive),
        roc_auc_standard_error(scores, positive),
        rate,
        float(true_positive_rate),
        len(inside),
        len(outside),
    )


def false_positive_rate(
    in_distribution: ArrayLike | Tensor, out_of_distribution: ArrayLike | Tensor, true_positive_rate: float = 0.95
) -> float:
    """Share of the examples in distribution with a score at or above the largest threshold that finds enough others.

    The threshold is the largest score at or above which at least ``true_positive_rate`` of the examples out of
    distribution lie. Papers that call examples *in* distribution the positive ones report
    ``false_positive_rate(-out_scores, -in_scores)``.

    Parameters
    ----------
    in_distribution, out_of_distribution, true_positive_rate : optional
        As of :func:`evaluate`.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        As of :func:`evaluate`.

    Examples
    --------
    >>> import fastdens as fd
    >>> fd.ood.false_positive_rate([0.1, 0.2, 0.3, 0.4], [0.35, 0.5])
    0.25
    """
    if isinstance(true_positive_rate, bool) or not 0 < true_positive_rate <= 1:
        raise ValueError(f"true_positive_rate is {true_positive_rate!r}, but it must be above 0 and at most 1: 0.95.")
    inside, outside = _scores(in_distribution, "in_distribution"), _scores(out_of_distribution, "out_of_distribution")
    # The share k / n of the k largest scores, for k = 1, ..., n.
    found = np.arange(1, len(outside) + 1) / len(outside)
    threshold = np.sort(outside)[::-1][int((found >= true_positive_rate).argmax())]
    return float((inside >= threshold).mean())


def _scores(values: ArrayLike | Tensor, name: str) -> NDArray[np.float64]:
    scores = as_array(values, name).astype(np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"{name} has shape {scores.shape}, but it must be [N], the scores of at least one example.")
    if (absent := np.isnan(scores)).any():
        raise ValueError(f"{name} is NaN in row {int(absent.argmax())}: leave such examples out.")
    return scores
