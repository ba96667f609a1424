"""Metrics against scikit-learn's and pytorch-ood's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_ood.metrics import OODMetrics
from sklearn.metrics import roc_auc_score, roc_curve

import fastdens as fd


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n_in", "n_out"), [(200, 100), (7, 20), (1, 1), (30, 3)])
def test_metrics_are_those_of_others(rng, n_in, n_out, ties):
    inside, outside = rng.normal(size=n_in), rng.normal(size=n_out) + 1
    if ties:
        inside, outside = inside.round(), outside.round()
    scores, positive = np.concatenate([inside, outside]), np.repeat([False, True], [n_in, n_out])
    theirs = OODMetrics().update(torch.from_numpy(scores), torch.from_numpy(-positive.astype(int))).compute()
    for rate in (0.95, 0.5, 1.0):
        found = fd.ood.evaluate(inside, outside, true_positive_rate=rate)
        fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
        assert found.false_positive_rate == pytest.approx(fpr[(tpr >= rate).argmax()])
        assert found.auroc == pytest.approx(roc_auc_score(positive, scores))
        if rate == 0.95:
            assert found.false_positive_rate == pytest.approx(theirs["FPR95TPR"])
            assert found.auroc == pytest.approx(theirs["AUROC"])
        swapped = fd.ood.false_positive_rate(-outside, -inside, rate)
        fpr, tpr, _ = roc_curve(~positive, -scores, drop_intermediate=False)
        assert swapped == pytest.approx(fpr[(tpr >= rate).argmax()])
    assert (found.n_in, found.n_out) == (n_in, n_out)


def test_infinite_scores_have_a_place():
    found = fd.ood.evaluate([0.0, 1.0, -np.inf], [np.inf, 2.0])
    assert (found.auroc, found.false_positive_rate) == (1.0, 0.0)


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="out_of_distribution is NaN in row 1"):
        fd.ood.evaluate([0.0], [1.0, float("nan")])
    with pytest.raises(ValueError, match="in_distribution has shape"):
        fd.ood.evaluate([], [1.0])
    with pytest.raises(ValueError, match="true_positive_rate is 95"):
        fd.ood.evaluate([0.0], [1.0], true_positive_rate=95)
