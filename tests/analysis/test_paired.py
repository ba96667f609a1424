"""Two results side by side: coefficients are scipy's, groups are counted by hand, paired errors cancel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import adjusted_rand_score

from fastdens.analysis import accuracy_difference, compare_splits, rank_agreement


def test_coefficients_are_those_of_scipy(rng):
    a = rng.normal(size=300)
    b = np.round(a + rng.normal(size=300), 1)
    labels = rng.integers(4, size=300)
    b[:10] = np.nan
    found = rank_agreement(torch.from_numpy(a), b, labels)
    assert found.n == 290
    assert found.spearman.value == pytest.approx(spearmanr(a[10:], b[10:])[0], abs=1e-12)
    assert found.kendall.value == pytest.approx(kendalltau(a[10:], b[10:])[0], abs=1e-12)
    within = [spearmanr(a[10:][labels[10:] == c], b[10:][labels[10:] == c])[0] for c in range(4)]
    assert found.spearman_within.value == pytest.approx(np.mean(within), abs=1e-12)
    for interval in (found.spearman, found.kendall, found.spearman_within):
        assert -1 <= interval.low < interval.value < interval.high <= 1


def test_intervals_hold_the_coefficient_of_the_population(rng):
    # Of two Gaussians that correlate at r, Spearman's rho is 6 / pi arcsin(r / 2).
    expected = 6 / math.pi * math.asin(0.3)
    held = 0
    for seed in range(40):
        a = rng.normal(size=60)
        b = 0.6 * a + 0.8 * rng.normal(size=60)
        low, high = rank_agreement(a, b, random_state=seed).spearman[1:]
        held += low < expected < high
    assert held >= 33


@pytest.mark.parametrize("a", [[], [1.0], [1.0, 2.0], [3.0, 3.0, 3.0, 3.0], [np.nan, np.nan, 1.0, 2.0]])
def test_what_cannot_be_ordered_has_no_coefficient(a):
    found = rank_agreement(a, np.arange(len(a), dtype=float))
    assert math.isnan(found.spearman.value) and math.isnan(found.kendall.low)
    assert math.isnan(rank_agreement(np.arange(len(a), dtype=float), a).spearman.high)


def test_items_are_the_same():
    with pytest.raises(ValueError, match=r"^a has shape \(3,\) and b \(4,\)"):
        rank_agreement(np.zeros(3), np.zeros(4))


def test_splits_are_counted(rng):
    a, b = rng.integers(2, size=(2, 50))
    found = compare_splits(a, torch.from_numpy(b))
    assert found.counts.tolist() == [[int(((a == i) & (b == j)).sum()) for j in (0, 1)] for i in (0, 1)]
    assert found.rand_index == pytest.approx(adjusted_rand_score(a, b)) and found.comparable


@pytest.mark.parametrize("other", [np.zeros(6, int), np.ones(6, int), np.arange(6) % 2])
def test_one_group_is_not_compared(other):
    for pair in ((np.zeros(6, int), other), (other, np.zeros(6, int))):
        found = compare_splits(*pair)
        assert math.isnan(found.rand_index) and not found.comparable and found.counts.sum() == 6


def test_groups_are_two_at_most():
    with pytest.raises(ValueError, match="has a group 2, but groups are 0 and 1"):
        compare_splits([0, 1, 2], [0, 1, 1])


def test_errors_that_both_make_cancel(rng):
    a = rng.random(2_000) < 0.8
    b = np.where(rng.random(2_000) < 0.02, ~a, a)
    paired, apart = (accuracy_difference(a, b, paired=paired) for paired in (True, False))
    assert paired.value == apart.value == pytest.approx(b.mean() - a.mean())
    assert paired.high - paired.low == pytest.approx(2 * 1.959964 * np.std(b.astype(float) - a) / math.sqrt(2_000))
    assert paired.high - paired.low < 0.5 * (apart.high - apart.low)
    assert accuracy_difference([True], [False], paired=True) == (-1, -1, -1)
    with pytest.raises(ValueError, match="has 2 examples and correct_b 1"):
        accuracy_difference([True, False], [True], paired=True)
