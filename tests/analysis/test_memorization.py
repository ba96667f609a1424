"""Memorization scores, against a 1-nearest-neighbour classifier, whose scores are known exactly."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, hypergeom

from fastdens.analysis.memorization import memorization_scores


def nearest_neighbour_is_right(points, labels, included):
    """[T, N], whether the nearest included point of each point, itself if it is included, has its label."""
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    nearest = np.where(included[:, None], distance, np.inf).argmin(-1)
    return labels[nearest] == labels


def score_of_nearest_neighbour(points, labels, size):
    """1 - P(nearest of a random subset of ``size`` of the others has the label), [N].

    The nearest is the neighbour of rank r if none of the r before it is in the subset and it is.
    """
    n_others = len(points) - 1
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    neighbours = np.argsort(distance, 1)[:, 1:]
    rank = np.arange(n_others)
    none_before = hypergeom.pmf(0, n_others, size, rank)
    chance = none_before * size / (n_others - rank)
    return 1 - ((labels[neighbours] == labels[:, None]) * chance).sum(1)


@pytest.mark.parametrize("size", [1, 4, 7])
def test_all_subsets_of_a_size_give_the_exact_score(rng, size):
    points, labels = rng.normal(size=(8, 2)), rng.integers(0, 3, 8)
    included = np.zeros((len(list(combinations(range(8), size))), 8), bool)
    for row, subset in zip(included, combinations(range(8), size), strict=True):
        row[list(subset)] = True
    correct = nearest_neighbour_is_right(points, labels, included)
    for a, b in (
        (correct, included),
        (torch.from_numpy(correct), included.astype(np.int32)),
        (correct * 1.0, included),
    ):
        found = memorization_scores(a, b)
        np.testing.assert_allclose(found.score, score_of_nearest_neighbour(points, labels, size), atol=1e-12)
        assert (found.n_included == included.sum(0)).all()
        assert (found.n_included + found.n_left_out == len(included)).all()


def test_random_subsets_estimate_the_score(rng):
    n_networks, n_examples, size = 1000, 50, 30
    labels = rng.integers(0, 3, n_examples)
    points = rng.normal(size=(n_examples, 2)) + 1.5 * labels[:, None]
    included = rng.permuted(np.arange(n_examples) < np.full((n_networks, 1), size), axis=1)
    found = memorization_scores(nearest_neighbour_is_right(points, labels, included), included)
    score = score_of_nearest_neighbour(points, labels, size)
    # Included, it is always right; left out, a binomial number of times.
    n_right = np.rint((1 - found.score) * found.n_left_out).astype(int)
    chances = [
        binomtest(k, n, p).pvalue for k, n, p in zip(n_right, found.n_left_out, 1 - score.clip(0, 1), strict=True)
    ]
    assert min(chances) > 1e-6 / n_examples
    assert (np.abs(found.score - score) < 2 * found.standard_error).mean() > 0.8


def test_against_the_definition_over_several_blocks(rng):
    correct, included = rng.random((700, 5)) < 0.6, rng.random((700, 5)) < [0, 1, 0.5, 0.01, 0.99]
    found = memorization_scores(correct, included)
    assert np.isnan(found.score[:2]).all() and np.isnan(found.standard_error[:2]).all()
    for i in range(2, 5):
        arms = correct[included[:, i], i], correct[~included[:, i], i]
        assert found.score[i] == pytest.approx(arms[0].mean() - arms[1].mean())
        padded = [np.append(arm, [0, 1]).var(ddof=1) / len(arm) for arm in arms]
        assert found.standard_error[i] == pytest.approx(np.sqrt(sum(padded)))


@pytest.mark.parametrize(("n_included", "n_left_out"), [(1, 1), (5, 2), (14, 6), (280, 120)])
def test_the_standard_error_is_neither_zero_nor_too_small(n_included, n_left_out):
    """All outcomes of two binomial numbers: the mean squared error is the variance or more, and two of them cover."""
    k, m = (grid.ravel() for grid in np.meshgrid(np.arange(n_included + 1), np.arange(n_left_out + 1)))
    included = np.repeat(np.arange(n_included + n_left_out) < n_included, len(k)).reshape(-1, len(k))
    row = np.arange(n_included + n_left_out)[:, None]
    found = memorization_scores((row < k) | ((row >= n_included) & (row - n_included < m)), included)
    assert found.standard_error.min() > 0
    for p in (0.0, 0.03, 0.3, 0.5, 0.9, 0.97, 1.0):
        for q in (0.0, 0.03, 0.3, 0.5, 0.9, 0.97, 1.0):
            chance = binom.pmf(k, n_included, p) * binom.pmf(m, n_left_out, q)
            variance = p * (1 - p) / n_included + q * (1 - q) / n_left_out
            assert chance @ found.score == pytest.approx(p - q, abs=1e-9)
            assert chance @ found.standard_error**2 >= variance
            # 95.4 % of a normal; the plug-in error covers under 1 % at n = 6, q = 0.97, p = 1.
            assert chance @ (np.abs(found.score - (p - q)) <= 2 * found.standard_error + 1e-12) > 0.89
    # It is not much too large either, once there are networks enough: at one half, by a share of 1 / n.
    if n_left_out > 100:
        chance = binom.pmf(k, n_included, 0.5) * binom.pmf(m, n_left_out, 0.5)
        assert chance @ found.standard_error**2 == pytest.approx(0.25 / n_included + 0.25 / n_left_out, rel=0.02)


def test_errors_say_where():
    ones = np.ones((4, 3), bool)
    with pytest.raises(ValueError, match=r"shape \(4, 3\) and included \(3, 4\)"):
        memorization_scores(ones, ones.T)
    with pytest.raises(ValueError, match=r"\[T, N\]"):
        memorization_scores(ones[0], ones[0])
    with pytest.raises(ValueError, match="no rows"):
        memorization_scores(ones[:0], ones[:0])
    late = np.ones((300, 3))
    late[290, 1] = np.nan
    with pytest.raises(ValueError, match="included is nan for network 290 and example 1: it must be 0 or 1"):
        memorization_scores(np.ones((300, 3), bool), late)
    with pytest.raises(ValueError, match="correct is 2 for network 0 and example 0"):
        memorization_scores(2 * ones.astype(int), ones)
