"""The densities of an analysis beside the estimators that they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fastdens as fd
from fastdens.convergence import rhat_threshold
from fastdens.pipeline.densities import DENSITIES
from fastdens.pipeline.options import AnalysisOptions


@pytest.fixture
def batch(rng):
    x = np.concatenate([rng.normal(size=(24, 2)) * 0.05 + rng.normal(size=2) * 9 for _ in range(200)])
    return fd.RaggedBatch.from_labels(x, np.arange(len(x)) // 120)


def test_the_density_of_a_fit_is_that_of_the_estimator_and_its_warning_is_left_to_the_report(batch, recwarn):
    estimator = fd.DirichletProcessMixtures(
        n_sweeps=80, burn_in=64, thin=4, n_chains=3, init_components=6, random_state=5, progress=False
    )
    with pytest.warns(fd.ConvergenceWarning):
        estimator.fit(batch)
    recwarn.clear()
    fit = DENSITIES["dp"](batch, AnalysisOptions(chains=3, sweeps=80, seed=5), progress=False)
    assert not recwarn.list
    assert torch.equal(fit.models.score_samples(batch), estimator.score_samples(batch))
    np.testing.assert_array_equal(fit.n_components, estimator.n_components_.double().mean((1, 2)).numpy())
    np.testing.assert_array_equal(fit.chains.log_joint, estimator.log_joint_.numpy())
    assert fit.chains.sweeps.tolist() == [68, 72, 76, 80]
    assert fit.chains.n_agreeing == int((estimator.rhat_ <= rhat_threshold(3, 4)).sum()) < 40


def test_gaussian_mixtures_have_as_many_components_as_give_the_least_bic(batch):
    options = AnalysisOptions(density="gmm")
    chosen = DENSITIES["gmm"](batch, options, progress=False)
    k = int(chosen.n_components[0])
    assert k > 1 and chosen.chains is None and (chosen.n_components == k).all()
    bic = float(chosen.models.bic(batch).sum())
    for other in {1, k - 1, min(6, k + 1)} - {k}:
        fit = DENSITIES["gmm"](batch, AnalysisOptions(density="gmm", components=other), progress=False)
        assert (fit.n_components == other).all() and float(fit.models.bic(batch).sum()) > bic
