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


def test_the_standard_error_is_the_spread_over_samples(rng):
    n_samples, n_found, n_others = 400, 12, 25
    positive = np.arange(n_found + n_others) < n_found
    scores = rng.normal(size=(n_samples, len(positive))).round(1) + positive
    areas = [roc_auc(score, positive) for score in scores]
    errors = [roc_auc_standard_error(score, positive) for score in scores]
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.15)


def test_the_standard_error_is_that_of_placements_and_nan_where_there_is_one_of_a_kind(rng):
    score, positive = rng.integers(0, 5, 40).astype(float), rng.random(40) < 0.3
    positive[:4] = True, True, False, False
    pairs = score[positive][:, None] - score[~positive]
    wins = (pairs > 0) + 0.5 * (pairs == 0)
    expected = wins.mean(1).var(ddof=1) / len(wins) + wins.mean(0).var(ddof=1) / wins.shape[1]
    assert roc_auc_standard_error(score, positive) == pytest.approx(math.sqrt(expected))
    assert math.isnan(roc_auc_standard_error([1.0, 2.0, 3.0], np.array([True, False, False])))
    assert math.isnan(roc_auc_standard_error([1.0, 2.0], None))
