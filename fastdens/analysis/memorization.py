"""Memorization scores of training examples (Feldman & Zhang 2020)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_numpy

# Networks per block: as many as an unsigned byte can count.
_ROWS = 255


class MemorizationScores(NamedTuple):
    """Memorization score of each of N examples.

    Attributes
    ----------
    score, standard_error : ndarray
        float64 [N].
    n_included, n_left_out : ndarray
        int64 [N], the networks trained with each example and without it.
    """

    score: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    n_included: NDArray[np.int64]
    n_left_out: NDArray[np.int64]


def memorization_scores(correct: ArrayLike | Tensor, included: ArrayLike | Tensor) -> MemorizationScores:
    """``P(correct on i | i in the training set) - P(correct on i | i left out)``, estimated from T networks.

    Each network is trained on its own random subset of the examples. The probabilities are estimated by the shares of
    networks, trained with and without example i, that classify it correctly.

    Parameters
    ----------
    correct : array or Tensor
        [T, N] booleans (or 0 and 1): network t classifies example i correctly.
    included : array or Tensor
        [T, N] booleans (or 0 and 1): example i is in the training set of network t.

    Returns
    -------
    MemorizationScores
        Score and standard error are NaN for an example that is in all training sets or in none.

    Raises
    ------
    ValueError
        If the shapes differ, there is no network, or a value is not 0 or 1.

    Notes
    -----
    The squared standard error is the sum of two variances ``(k + 1)(n - k + 1) / (n (n + 1)(n + 2))``, one for the
    networks trained with i and one for those trained without, k of n being correct. Each is the sample variance
    (divisor n - 1) of the n outcomes with one correct and one wrong outcome added, as in Agresti & Caffo, divided by n.
    Unlike ``p (1 - p) / n`` at the observed share, it is positive even where all networks agree, and its expectation is
    never below the true variance.

    References
    ----------
    Feldman, Does Learning Require Memorization? A Short Tale about a Long Tail, STOC 2020. Feldman & Zhang, What Neural
    Networks Memorize and Why, NeurIPS 2020. Agresti & Caffo, Simple and Effective Confidence Intervals for Proportions
    and Differences of Proportions Result from Adding Two Successes and Two Failures, The American Statistician 54,
    2000.

    Examples
    --------
    >>> from fastdens.analysis import memorization_scores
    >>> included = [[True, False], [False, True], [True, False], [False, True]]  # Networks by examples.
    >>> correct = [[True, True], [False, True], [True, True], [False, True]]
    >>> memorization_scores(correct, included).score
    array([1., 0.])
    """
    correct, included = as_numpy(correct), as_numpy(included)
    if correct.ndim != 2 or correct.shape != included.shape:
        raise ValueError(
            f"correct has shape {correct.shape} and included {included.shape}, but both must be [T, N], networks by "
            "examples."
        )
    n_networks, n_examples = correct.shape
    if n_networks == 0:
        raise ValueError("correct has no rows: pass one for each network, of which there must be at least two.")
    n_correct, n_included, both = np.zeros((3, n_examples), np.int64)
    for start in range(0, n_networks, _ROWS):
        right, inside = _as_bits("correct", correct, start), _as_bits("included", included, start)
        # Bytes are summed several times as fast as wider integers.
        n_correct += right.sum(0, np.uint8)
        n_included += inside.sum(0, np.uint8)
        both += (right & inside).sum(0, np.uint8)
    n_left_out = n_networks - n_included
    with_it, variance_with = _share(both, n_included)
    without, variance_without = _share(n_correct - both, n_left_out)
    return MemorizationScores(with_it - without, np.sqrt(variance_with + variance_without), n_included, n_left_out)


def _as_bits(name: str, matrix: NDArray[Any], start: int) -> NDArray[np.bool_]:
    rows = matrix[start : start + _ROWS]
    bits = rows.astype(bool)
    if rows.dtype != bool and (bad := rows != bits).any():
        t, i = np.argwhere(bad)[0]
        raise ValueError(
            f"{name} is {rows[t, i]} for network {start + t} and example {i}: it must be 0 or 1, or a boolean."
        )
    return bits


def _share(k: NDArray[np.int64], n: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share k of n and the variance of this estimate, NaN for n = 0."""
    size = np.where(n > 0, n, np.nan)
    return k / size, (k + 1) * (size - k + 1) / (size * (size + 1) * (size + 2))
