"""Subsets of the most memorized, the least memorized and random examples: of each class, or of all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_labels, as_numpy, random_numbers
from fastdens.errors import check_integer


class Subsets(NamedTuple):
    """Indices of the most and the least memorized examples, and of others at random.

    Each array is int64 [classes * size], class after class, or int64 [size], of all classes together.

    Attributes
    ----------
    most : ndarray
        By descending score.
    least : ndarray
        By ascending score.
    random : ndarray
        Shuffled, within each class if there are ``size`` examples of each.
    """

    most: NDArray[np.int64]
    least: NDArray[np.int64]
    random: NDArray[np.int64]


def memorization_subsets(
    scores: ArrayLike | Tensor, labels: ArrayLike | Tensor, size: int, *, random_state: int = 0
) -> Subsets:
    """Select ``size`` examples of every class with the highest scores, with the lowest scores, and at random.

    Equal scores (many are zero) are ordered at random. Examples whose score is not finite are in no subset. Subsets may
    share examples; the most and the least memorized ones do so in a class of fewer than twice ``size`` examples.

    Parameters
    ----------
    scores : array or Tensor
        [N], memorization score of each example.
    labels : array or Tensor
        [N] integers from 0.
    size : int
        Examples of each class in each subset, at least 1.
    random_state : int
        Seed. The selection in a class depends on it and on that class alone.

    Returns
    -------
    Subsets
        Indices of the examples, class after class.

    Raises
    ------
    TypeError, ValueError
        If the shapes disagree, or a class has fewer than ``size`` examples with a finite score.

    References
    ----------
    Feldman & Zhang, What Neural Networks Memorize and Why, NeurIPS 2020 (the scores). Jamroz & Kurdziel, AAAI 2023.

    Examples
    --------
    >>> from fastdens.analysis import memorization_subsets
    >>> scores, labels = [0.9, 0.1, 0.5, 0.2, 0.8, 0.3], [0, 0, 0, 1, 1, 1]
    >>> subsets = memorization_subsets(scores, labels, size=1)
    >>> subsets.most, subsets.least
    (array([0, 4]), array([1, 3]))
    """
    values = _checked(scores, size, random_state)
    labels = as_labels(labels, len(values))
    finite = np.isfinite(values)
    parts = []
    for c in np.unique(labels):
        members = np.flatnonzero((labels == c) & finite)
        if len(members) < size:
            raise ValueError(
                f"class {c} has {len(members)} example{'s' * (len(members) != 1)} with a finite score, but size is "
                f"{size}: lower size or leave the class out."
            )
        rng = random_numbers(random_state, c)
        rising = _by_rising_score(values, members, rng)
        parts.append(Subsets(rising[::-1][:size], rising[:size], rng.permutation(members)[:size]))
    return Subsets(*map(np.concatenate, zip(*parts, strict=True)))


def global_subsets(scores: ArrayLike | Tensor, size: int, *, random_state: int = 0) -> Subsets:
    """Select the ``size`` examples of all classes with the highest scores, those with the lowest, and others at random.

    Equal scores are ordered at random. Examples whose score is not finite are in no subset. No two subsets share one.

    Parameters
    ----------
    scores : array or Tensor
        [N], memorization score of each example.
    size : int
        Examples in each subset, at least 1.
    random_state : int
        Seed.

    Returns
    -------
    Subsets
        Indices of the examples, ``size`` in each subset.

    Raises
    ------
    TypeError, ValueError
        If fewer than three times ``size`` examples have a finite score.

    References
    ----------
    Jamroz & Kurdziel, AAAI 2023 (the published code).

    Examples
    --------
    >>> from fastdens.analysis import global_subsets
    >>> subsets = global_subsets([0.9, 0.1, 0.5, 0.2, 0.8, 0.3], size=2)
    >>> subsets.most, subsets.least, subsets.random.shape
    (array([0, 4]), array([1, 3]), (2,))
    """
    values = _checked(scores, size, random_state)
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite) < 3 * size:
        raise ValueError(
            f"{len(finite)} examples have a finite score, but three subsets of {size} need {3 * size}: lower size."
        )
    rng = random_numbers(random_state)
    rising = _by_rising_score(values, finite, rng)
    return Subsets(rising[::-1][:size].copy(), rising[:size], rng.permutation(rising[size:-size])[:size])


def threshold_subsets(
    scores: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    size: int,
    *,
    low: float,
    high: float,
    random_state: int = 0,
) -> Subsets:
    """Select ``size`` examples at random of each class with a score of at least ``high``, of at most ``low``, and any.

    A class that has fewer such examples is not in that subset, which may be empty. Examples whose score is not finite
    are in no subset. Subsets may share examples with ``random``.

    Parameters
    ----------
    scores : array or Tensor
        [N], memorization score of each example.
    labels : array or Tensor
        [N] integers from 0.
    size : int
        Examples of each class in each subset, at least 1.
    low, high : float
        Scores up to which, and from which, an example is in a subset.
    random_state : int
        Seed. The selection in a class depends on it and on that class alone.

    Returns
    -------
    Subsets
        Each is shuffled within each class.

    Raises
    ------
    TypeError, ValueError
        If the shapes disagree.

    References
    ----------
    Jamroz & Kurdziel, AAAI 2023 (the published code).

    Examples
    --------
    >>> from fastdens.analysis import threshold_subsets
    >>> scores, labels = [0.9, 0.1, 0.5, 0.2, 0.8, 0.0], [0, 0, 0, 1, 1, 1]
    >>> subsets = threshold_subsets(scores, labels, size=1, low=0.15, high=0.7)
    >>> subsets.most, subsets.least
    (array([0, 4]), array([1, 5]))
    """
    values = _checked(scores, size, random_state)
    labels = as_labels(labels, len(values))
    parts: list[list[NDArray[np.int64]]] = [[], [], []]
    for c in np.unique(labels):
        rng = random_numbers(random_state, c)
        for part, chosen in zip(parts, (values >= high, values <= low, np.isfinite(values)), strict=True):
            members = rng.permutation(np.flatnonzero((labels == c) & chosen & np.isfinite(values)))
            if len(members) >= size:
                part.append(members[:size])
    nothing = np.zeros(0, np.int64)
    return Subsets(*(np.concatenate([nothing, *part]) for part in parts))


def _by_rising_score(
    values: NDArray[np.float64], members: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """The members sorted by their scores, equal ones in random order."""
    shuffled = rng.permutation(members)
    # A stable sort leaves equal scores in the order of the shuffle.
    return shuffled[np.argsort(values[shuffled], kind="stable")]


def _checked(scores: ArrayLike | Tensor, size: int, random_state: int) -> NDArray[np.float64]:
    """The scores as float64 [N]."""
    check_integer("size", size, 1)
    check_integer("random_state", random_state, 0)
    values = as_numpy(scores).astype(np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"scores has shape {values.shape}, but it must be [N] with at least one example.")
    return values
