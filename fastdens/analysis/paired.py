"""Two results set side by side: ranks of the same items, groups of the same classes, accuracies of two classifiers."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_numpy, check_confidence
from fastdens.analysis.correlation import Coefficient, Interval, correlate
from fastdens.analysis.split_agreement import split_agreement

_FEWEST = 3
_UNDEFINED = Interval(math.nan, math.nan, math.nan)


class RankAgreement(NamedTuple):
    """Rank correlation of two quantities of the same items.

    Attributes
    ----------
    spearman, kendall : Interval of float
        Spearman's rho and Kendall's tau-b, with 95% intervals; NaN where they are undefined.
    spearman_within : Interval of float
        Mean of rho over the classes of the items; NaN without classes.
    n : int
        Items of which both quantities are known.
    """

    spearman: Interval[float]
    kendall: Interval[float]
    spearman_within: Interval[float]
    n: int


class SplitComparison(NamedTuple):
    """Two splits of the same classes into a sparse group (0) and a dense one (1).

    Attributes
    ----------
    counts : ndarray
        int64 [2, 2], classes by their group in the first split (rows) and in the second (columns).
    rand_index : float
        Adjusted Rand index; NaN where a split has a single group, since there are no groups to compare.
    """

    counts: NDArray[np.int64]
    rand_index: float

    @property
    def comparable(self) -> bool:
        """Whether each of the splits has two groups."""
        return not math.isnan(self.rand_index)


def rank_agreement(
    a: ArrayLike | Tensor, b: ArrayLike | Tensor, labels: ArrayLike | Tensor | None = None, *, random_state: int = 0
) -> RankAgreement:
    """Rank correlation of two quantities of the same items, over all items and within classes.

    Parameters
    ----------
    a, b : array or Tensor
        [N]. An item with NaN in one of them is left out.
    labels : array or Tensor, optional
        [N] integers from 0, the class of each item, where items have classes.
    random_state : int
        Seed of the bootstrap behind the intervals of rho, which draws items within their class.

    Returns
    -------
    RankAgreement
        NaN for fewer than three items, or where all values of ``a`` or of ``b`` are equal.

    Raises
    ------
    ValueError
        If the lengths differ.
    ImportError
        If scipy is missing.

    See Also
    --------
    correlate : The coefficients and their intervals.

    Examples
    --------
    >>> from fastdens.analysis import rank_agreement
    >>> rank_agreement([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]).spearman.value
    0.8
    """
    first, second = as_numpy(a).astype(np.float64), as_numpy(b).astype(np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"a has shape {first.shape} and b {second.shape}, but both must be [N]: pass the same items.")
    known = ~(np.isnan(first) | np.isnan(second))
    n = int(known.sum())
    if n < _FEWEST or min(len(np.unique(values[known])) for values in (first, second)) < 2:
        return RankAgreement(_UNDEFINED, _UNDEFINED, _UNDEFINED, n)
    classes = np.zeros(n, np.int64) if labels is None else as_numpy(labels)[known]
    found = correlate(first[known], second[known], classes, random_state=random_state)
    within = _UNDEFINED if labels is None else _interval(found.spearman_within)
    return RankAgreement(_interval(found.spearman), _interval(found.kendall), within, n)


def _interval(coefficient: Coefficient) -> Interval[float]:
    """The only value of a coefficient, with its interval."""
    return Interval(float(coefficient.value[0]), float(coefficient.low[0]), float(coefficient.high[0]))


def compare_splits(a: ArrayLike | Tensor, b: ArrayLike | Tensor) -> SplitComparison:
    """Compare two splits of the same classes into groups 0 and 1.

    Parameters
    ----------
    a, b : array or Tensor
        [M] integers, 0 or 1; all equal where there is one group.

    Returns
    -------
    SplitComparison
        How many classes are in which group of either, and how far the splits agree.

    Raises
    ------
    ValueError
        If they are not integers from 0 to 1, or the lengths differ.
    ImportError
        If scikit-learn is missing.

    Examples
    --------
    >>> from fastdens.analysis import compare_splits
    >>> compare_splits([0, 0, 1, 1], [0, 1, 1, 1]).counts
    array([[1, 1],
           [0, 2]])
    """
    first, second = as_numpy(a), as_numpy(b)
    agreement = float(split_agreement([first, second])[0, 1])
    for name, groups in (("a", first), ("b", second)):
        if not np.isin(groups, (0, 1)).all():
            raise ValueError(f"{name} has a group {groups.max()}, but groups are 0 and 1: pass two at most.")
    counts = np.zeros((2, 2), np.int64)
    np.add.at(counts, (first, second), 1)
    single = min(len(np.unique(first)), len(np.unique(second))) < 2
    return SplitComparison(counts, math.nan if single else agreement)


def accuracy_difference(
    correct_a: ArrayLike | Tensor, correct_b: ArrayLike | Tensor, *, paired: bool, confidence: float = 0.95
) -> Interval[float]:
    """Accuracy of B less that of A, with a normal interval.

    Parameters
    ----------
    correct_a, correct_b : array or Tensor
        [N] and [T] booleans, whether each example was classified correctly.
    paired : bool
        Whether these are the same examples: errors that both make then cancel.
    confidence : float
        Level of the interval.

    Returns
    -------
    Interval of float
        The difference and the ends of its interval.

    Raises
    ------
    ValueError
        If there are no examples, or they are paired and their numbers differ.

    Examples
    --------
    >>> from fastdens.analysis import accuracy_difference
    >>> round(accuracy_difference([True, False, False, True], [True, True, False, True], paired=True).value, 2)
    0.25
    """
    check_confidence(confidence)
    a, b = as_numpy(correct_a).astype(np.float64), as_numpy(correct_b).astype(np.float64)
    for name, correct in (("correct_a", a), ("correct_b", b)):
        if correct.ndim != 1 or not len(correct):
            raise ValueError(f"{name} has shape {correct.shape}, but it must be [N], at least one example.")
    if paired and a.shape != b.shape:
        raise ValueError(f"correct_a has {len(a)} examples and correct_b {len(b)}: pass the same, or paired=False.")
    difference = float(b.mean() - a.mean())
    variance = (b - a).var() / len(a) if paired else a.var() / len(a) + b.var() / len(b)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance)
    return Interval(difference, difference - reach, difference + reach)
