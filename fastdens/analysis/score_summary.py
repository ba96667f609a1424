"""What memorization scores say without the examples that they are of."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_labels, as_numpy
from fastdens.errors import check_integer

MEMORIZED = 0.25
"""Feldman & Zhang call an example memorized whose score is above this."""


class ScoreSummary(NamedTuple):
    """Numbers about the scores that are known.

    Attributes
    ----------
    n : int
        Examples with a finite score; the other numbers are of these.
    mean : float
        NaN if there are none.
    memorized : float
        Share of the scores above 0.25.
    n_one, n_zero, n_negative : int
        Scores that equal 1, that equal 0, and that are below 0.
    highest_from, lowest_to : float
        The lowest of the ``n_top`` highest scores, and the highest of as many lowest; NaN for fewer scores.
    n_classes_high, n_classes_low : int or None
        Classes with at least ``n_examples`` examples of a score of at least ``high``, and of at most ``low``; None
        without labels.
    class_mean : ndarray or None
        float64 [M], mean score of each class, NaN for one without scores; None without labels.
    """

    n: int
    mean: float
    memorized: float
    n_one: int
    n_zero: int
    n_negative: int
    highest_from: float
    lowest_to: float
    n_classes_high: int | None
    n_classes_low: int | None
    class_mean: NDArray[np.float64] | None


def summarize_scores(
    scores: ArrayLike | Tensor,
    labels: ArrayLike | Tensor | None = None,
    *,
    n_top: int = 1000,
    high: float = 0.7,
    low: float = 0.015,
    n_examples: int = 100,
) -> ScoreSummary:
    """Summarize memorization scores, and the subsets that the published code would choose by them.

    Parameters
    ----------
    scores : array or Tensor
        [N]; NaN where a score is unknown.
    labels : array or Tensor, optional
        [N] integers from 0.
    n_top : int
        Examples of all classes in a subset by rank.
    high, low : float
        Scores from which, and up to which, an example is in a subset by score.
    n_examples : int
        Examples that a class must have in it.

    Returns
    -------
    ScoreSummary
        Counts, shares and means of the scores that are finite.

    Raises
    ------
    TypeError, ValueError
        If the shapes disagree, or ``n_top`` or ``n_examples`` is no integer of at least 1.

    References
    ----------
    Feldman & Zhang, What Neural Networks Memorize and Why, NeurIPS 2020. Jamroz & Kurdziel, AAAI 2023.

    Examples
    --------
    >>> from fastdens.analysis import summarize_scores
    >>> summary = summarize_scores([0.0, 0.2, 0.6, 1.0])
    >>> summary.n, summary.mean, summary.memorized
    (4, 0.45, 0.5)
    """
    check_integer("n_top", n_top, 1)
    check_integer("n_examples", n_examples, 1)
    values = as_numpy(scores).astype(np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores has shape {values.shape}, but it must be [N]: pass one score for each example.")
    known = np.isfinite(values)
    finite = np.sort(values[known])
    enough = len(finite) >= n_top
    n_classes_high = n_classes_low = class_mean = None
    if labels is not None:
        classes = as_labels(labels, len(values))
        n_classes_high, n_classes_low = (
            int((np.bincount(classes[known & chosen]) >= n_examples).sum())
            for chosen in (values >= high, values <= low)
        )
        n_classes = int(classes.max(initial=-1)) + 1
        with np.errstate(invalid="ignore"):
            total, size = (np.bincount(classes[known], weights, n_classes) for weights in (values[known], None))
            class_mean = total / size
    return ScoreSummary(
        len(finite),
        float(finite.mean()) if len(finite) else math.nan,
        float((finite > MEMORIZED).mean()) if len(finite) else math.nan,
        int((finite == 1).sum()),
        int((finite == 0).sum()),
        int((finite < 0).sum()),
        float(finite[-n_top]) if enough else math.nan,
        float(finite[n_top - 1]) if enough else math.nan,
        n_classes_high,
        n_classes_low,
        class_mean,
    )
