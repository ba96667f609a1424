"""The densities of an analysis beside the estimators that they are."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import fastdens as fd
from fastdens.pipeline.densities import DENSITIES, kept_sweeps
from fastdens.pipeline.options import AnalysisOptions


@pytest.fixture
def batch(rng):
    x = np.concatenate([rng.normal(size=(24, 2)) * 0.05 + rng.normal(size=2) * 9 for _ in range(200)])
    return fd.RaggedBatch.from_labels(x, np.arange(len(x)) // 120)


def test_the_density_of_a_fit_is_that_of_the_estimator_and_its_warning_is_left_to_the_report(batch, recwarn):
    start = {"init": "random", "split_merge": 0.0, "search": 0.0}
    estimator = fd.DirichletProcessMixtures(
        n_sweeps=80, burn_in=64, thin=1, n_chains=3, init_components=6, random_state=5, progress=False, **start
    )
    with pytest.warns(fd.ConvergenceWarning):
        estimator.fit(batch)
    recwarn.clear()
    fit = DENSITIES["dp"](batch, AnalysisOptions(chains=3, sweeps=80, thin=1, seed=5, **start), progress=False)
    assert not recwarn.list
    assert torch.equal(fit.models.score_samples(batch), estimator.score_samples(batch))
    np.testing.assert_array_equal(fit.n_components, estimator.n_components_.double().mean((1, 2)).numpy())
    chains, convergence = fit.chains, estimator.convergence_
    np.testing.assert_array_equal(chains.log_joint, estimator.log_joint_.numpy())
    assert chains.sweeps.tolist() == [[*range(65, 81)]] * 40 and chains.n_sweeps.tolist() == [80] * 40
    np.testing.assert_array_equal(chains.rhat, convergence.rhat.numpy())
    np.testing.assert_array_equal(chains.effective_sample_size, convergence.effective_sample_size.numpy())
    np.testing.assert_array_equal(chains.agree, convergence.converged.numpy())
    limits = (convergence.max_rhat, convergence.min_effective_sample_size)
    assert (chains.max_rhat, chains.min_effective_sample_size) == limits
    assert chains.split_merge.shape == (40, 3, 4) and not chains.split_merge.any()
    assert chains.n_agreeing == int(convergence.converged.sum()) < 40


# With 83 sweeps no round is filled by its draws.
@pytest.mark.parametrize("sweeps", [80, 83])
def test_draws_of_classes_that_went_on_are_those_of_the_sweeps_that_are_told(batch, sweeps):
    start = {"init": "random", "split_merge": 0.05, "search": 0.0}
    options = AnalysisOptions(sweeps=sweeps, chains=3, thin=2, stop="converged", max_sweeps=200, **start)
    chains = DENSITIES["dp"](batch, options, progress=False).chains
    assert (chains.sweeps[:, -1] == chains.n_sweeps).all() and 112 < chains.n_sweeps.max() <= 200
    burn_in = 4 * sweeps // 5
    whole = fd.DirichletProcessMixtures(n_sweeps=200, burn_in=burn_in, thin=1, n_chains=3, progress=False, **start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fd.ConvergenceWarning)
        whole.fit(batch)
    for m, own in enumerate(chains.sweeps):
        expected = whole.log_joint_[m][:, own - burn_in - 1].numpy()
        np.testing.assert_allclose(chains.log_joint[m], expected, rtol=1e-9)
    assert chains.split_merge.shape == (40, 3, 4) and (chains.split_merge[..., ::2] > 0).any()


@pytest.mark.parametrize(("sweeps", "thin"), [(400, 4), (403, 4), (80, 4), (99, 5)])
def test_rounds_are_told_from_the_sweeps_that_were_made(sweeps, thin):
    options = AnalysisOptions(sweeps=sweeps, thin=thin)
    burn_in = 4 * sweeps // 5
    n_draws = (sweeps - burn_in) // thin
    expected = [burn_in + thin * np.arange(1, n_draws + 1)]
    end = sweeps
    for k in range(1, 6):
        expected.append(end + thin * 2**k * np.arange(1, n_draws + 1))
        end += 2**k * (sweeps - burn_in)
    expected = np.stack(expected)
    np.testing.assert_array_equal(kept_sweeps(expected[:, -1], n_draws, options), expected)


def test_gaussian_mixtures_have_as_many_components_as_give_the_least_bic(batch):
    options = AnalysisOptions(density="gmm")
    chosen = DENSITIES["gmm"](batch, options, progress=False)
    k = int(chosen.n_components[0])
    assert k > 1 and chosen.chains is None and (chosen.n_components == k).all()
    bic = float(chosen.models.bic(batch).sum())
    for other in {1, k - 1, min(6, k + 1)} - {k}:
        fit = DENSITIES["gmm"](batch, AnalysisOptions(density="gmm", components=other), progress=False)
        assert (fit.n_components == other).all() and float(fit.models.bic(batch).sum()) > bic
