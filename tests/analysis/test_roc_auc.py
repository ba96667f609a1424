from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastdens.analysis import roc_auc, roc_auc_standard_error


def test_is_the_share_of_pairs_in_order(rng):
    score, positive = rng.integers(0, 5, 40).astype(float), rng.random(40) < 0.3
    positive[:2] = True, False
    pairs = score[positive][:, None] - score[~positive]
    assert roc_auc(score, positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert roc_auc(torch.from_numpy(score), torch.from_numpy(positive)) == roc_auc(score, positive)


def test_unknown_scores_are_left_out():
    assert roc_auc([1.0, math.nan, 0.0, 2.0, math.nan], np.array([True, True, False, False, False])) == 0.5


@pytest.mark.parametrize("positive", [None, np.zeros(3, bool), np.ones(3, bool), np.array([True, False, False])])
def test_is_nan_without_both_kinds(positive):
    assert math.isnan(roc_auc([math.nan, 1.0, 2.0], positive))


def test_lengths_agree():
    with pytest.raises(ValueError, match=r"score has shape \(2,\) and positive \(3,\), but both must be \[N\]"):
        roc_auc([0.0, 1.0], np.ones(3, bool))


def test_the_standard_error_is_the_spread_over_data_sets(rng):
    positive = np.arange(150) < 50
    draws = np.floor(2 * rng.normal(size=(2000, 150)) + 2 * positive)
    expected = np.std([roc_auc(score, positive) for score in draws])
    found = np.mean([roc_auc_standard_error(score, positive) for score in draws])
    assert found == pytest.approx(expected, rel=0.1)


def test_the_standard_error_is_delongs(rng):
    score, positive = np.round(rng.normal(size=30), 1), rng.permutation(30) < 12
    wins = (score[positive][:, None] > score[~positive]) + 0.5 * (score[positive][:, None] == score[~positive])
    expected = np.sqrt(wins.mean(1).var(ddof=1) / 12 + wins.mean(0).var(ddof=1) / 18)
    assert roc_auc_standard_error(score, positive) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(roc_auc_standard_error(score, np.arange(30) < 1))
