"""The number of components of each model: criteria by scikit-learn, planted numbers, folds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.special
import torch
from sklearn.mixture import GaussianMixture

import fastdens as fd
from fastdens.model_choice import folds
from tests.mixtures.problems import clusters


def planted(rng, numbers, n=240, d=2):
    """One model for each number of far clusters."""
    centres = 40.0 * np.stack([np.arange(8), np.arange(8) % 3], 1)[:, :d]
    x = [centres[np.arange(n) % k] + rng.normal(size=(n, d)) for k in numbers]
    y = np.repeat(np.arange(len(numbers)), n)
    order = rng.permutation(len(y))
    return fd.RaggedBatch.from_labels(np.concatenate(x)[order], y[order])


@pytest.mark.parametrize("criterion", fd.model_choice.CRITERIA)
@pytest.mark.parametrize("covariance_type", ["full", "spherical"])
def test_planted_numbers_are_found(rng, criterion, covariance_type):
    numbers = [1, 3, 2, 5]
    estimator = fd.GaussianMixtures(covariance_type=covariance_type, n_init=4, reg_covar=1e-2)
    choice = fd.select_components(planted(rng, numbers), range(1, 8), criterion, estimator=estimator)
    # A component too many may gain a little by chance, at most so much; one too few loses a lot.
    losses = -240 * choice.values if criterion == "held_out" else choice.values
    chance = 40.0 if criterion == "held_out" else 15.0
    for m, k in enumerate(numbers):
        assert losses[m, k - 1] < losses[m].min() + chance
        assert (losses[m, : k - 1] > losses[m, k - 1] + 200).all()
        assert choice.best[m] == 1 + int(losses[m].argmin())
    assert choice.n_components.tolist() == list(range(1, 8))
    assert choice.criterion == criterion and choice.values.shape == (4, 7)
    assert torch.equal((choice.estimator.weights_ > 0).sum(1), choice.best)
    assert (choice.standard_errors is None) == (criterion != "held_out")
    assert not hasattr(estimator, "weights_") and estimator.n_components == 1


def scikit_learns(fit, m, k):
    """The model as scikit-learn's."""
    gm = GaussianMixture(k, covariance_type=fit.covariance_type)
    gm.weights_, gm.means_ = fit.weights_[m].numpy(), fit.means_[m].numpy()
    gm.precisions_cholesky_ = fit.precisions_cholesky_[m].numpy()
    return gm


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical", "tied"])
def test_criteria_are_those_of_scikit_learn_for_the_same_parameters(rng, covariance_type):
    sizes = (30, 47)
    x = [clusters(rng, n, 3) for n in sizes]
    batch, other = (fd.RaggedBatch.from_list(own) for own in (x, [clusters(rng, n, 3) for n in (12, 1)]))
    options = {"covariance_type": covariance_type, "max_iter": 4, "tol": 0, "random_state": 3}
    found = {
        criterion: fd.select_components(
            batch,
            [4, 1, 2, 2],
            criterion,
            estimator=fd.GaussianMixtures(**options),
            held_out=other if criterion == "held_out" else None,
        )
        for criterion in fd.model_choice.CRITERIA
    }
    assert found["bic"].n_components.tolist() == [1, 2, 4]
    for r, k in enumerate([1, 2, 4]):
        fit = fd.GaussianMixtures(k, **options).fit(batch)
        for m in range(2):
            gm, own = scikit_learns(fit, m, k), x[m].numpy()
            np.testing.assert_allclose(found["bic"].values[m, r], gm.bic(own), rtol=1e-10)
            entropy = scipy.special.entr(gm.predict_proba(own)).sum()
            np.testing.assert_allclose(found["icl"].values[m, r], gm.bic(own) + 2 * entropy, rtol=1e-10)
            scores = gm.score_samples(other.part(m, m + 1).points.numpy())
            np.testing.assert_allclose(found["held_out"].values[m, r], scores.mean(), rtol=1e-10)
            error = scores.std(ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else np.nan
            np.testing.assert_allclose(found["held_out"].standard_errors[m, r], error, rtol=1e-8)
    for m in range(2):
        assert found["bic"].best[m] == [1, 2, 4][int(found["bic"].values[m].argmin())]
        assert found["held_out"].best[m] == [1, 2, 4][int(found["held_out"].values[m].argmax())]


def test_cross_validation_is_that_of_each_class_alone(rng):
    """Left out and fitted by hand; neither other classes nor their rows in between matter."""
    x, y = clusters(rng, 90, 2), rng.integers(0, 3, 90)
    batch = fd.RaggedBatch.from_labels(x, y)
    gm = fd.GaussianMixtures(random_state=5, max_iter=3, tol=0)
    choice = fd.select_components(batch, [1, 2], "held_out", estimator=gm, n_folds=3)
    fold = batch.in_caller_order(folds(batch, 3, 5)).numpy()
    for c in range(3):
        own = x[torch.from_numpy(y == c)]
        of_class = fd.RaggedBatch.from_list([own])
        assert folds(of_class, 3, 5).tolist() == fold[y == c].tolist()
        assert np.ptp(np.bincount(fold[y == c], minlength=3)) <= 1
        for r, k in enumerate([1, 2]):
            scores = torch.empty(len(own), dtype=torch.float64)
            for f in range(3):
                out = torch.from_numpy(fold[y == c] == f)
                fit = fd.GaussianMixtures(k, random_state=5, max_iter=3, tol=0)
                fit = fit.fit(fd.RaggedBatch.from_list([own[~out]]))
                scores[out] = fit.log_prob(own[out])[:, 0]
            torch.testing.assert_close(choice.values[c, r], scores.mean(), rtol=1e-10, atol=0)
            torch.testing.assert_close(choice.standard_errors[c, r], scores.std() / len(own) ** 0.5, rtol=1e-8, atol=0)
    assert not torch.equal(folds(batch, 3, 5), folds(batch, 3, 6))


def test_classes_that_are_too_small_for_some_numbers_or_for_all(rng):
    x = [clusters(rng, 40, 2), clusters(rng, 2, 2), clusters(rng, 30, 2), clusters(rng, 0, 2)]
    x[2][7, 1] = torch.inf
    batch = fd.RaggedBatch.from_list(x, labels=["ant", "bee", "cat", "dog"])
    skip = fd.GaussianMixtures(on_error="skip")
    for criterion in fd.model_choice.CRITERIA:
        choice = fd.select_components(batch, range(1, 5), criterion, estimator=skip)
        assert choice.values[0].isfinite().all() and choice.values[2:].isnan().all()
        possible = 1 if criterion == "held_out" else 2
        assert choice.values[1].isnan().tolist() == [k > possible for k in range(1, 5)]
        assert choice.best[2:].tolist() == [0, 0] and 1 <= choice.best[1] <= possible
        fit = choice.estimator
        assert fit.failed_.tolist() == [False, False, True, True] and fit.classes_ == batch.classes
        assert "has NaN or infinity, first in row 49" in fit.failures_[2] and "has 0 points" in fit.failures_[3]
        assert fit.log_prob(x[0])[:, :2].isfinite().all()
        with pytest.raises(fd.ModelError, match=r"model 2 \(class 'cat'\) .*; model 3 \(class 'dog'\) .* leave those"):
            fd.select_components(batch, range(1, 5), criterion)
    held_out = fd.RaggedBatch.from_list([x[0], x[0][:0], x[0], x[0]], labels=batch.classes)
    choice = fd.select_components(batch, [1], "held_out", estimator=skip, held_out=held_out)
    assert choice.best.tolist() == [1, 0, 0, 0] and choice.estimator.failures_[1].startswith("in held_out has")


def test_what_is_no_range_no_criterion_no_estimator(rng):
    batch = fd.RaggedBatch.from_list([clusters(rng, 20, 2)])
    with pytest.raises(TypeError, match=r"n_components is 3: pass the numbers to choose from"):
        fd.select_components(batch, 3)
    with pytest.raises(ValueError, match="n_components is empty"):
        fd.select_components(batch, [])
    with pytest.raises(ValueError, match="n_components is 0, but it must be at least 1"):
        fd.select_components(batch, range(3))
    with pytest.raises(ValueError, match="did you mean 'bic'"):
        fd.select_components(batch, criterion="bix")
    with pytest.raises(TypeError, match="has no n_components to choose"):
        fd.select_components(batch, estimator=fd.DirichletProcessMixtures())
    with pytest.raises(ValueError, match="estimator has means_init, which fits one number"):
        fd.select_components(batch, estimator=fd.GaussianMixtures(2, means_init=torch.zeros(1, 2, 2)))
    with pytest.raises(ValueError, match="models are not chosen one by one: pass another covariance_type"):
        fd.select_components(batch, estimator=fd.GaussianMixtures(covariance_type="tied_across_models"))
    with pytest.raises(ValueError, match="criterion is 'bic': pass criterion='held_out'"):
        fd.select_components(batch, held_out=batch)
    with pytest.raises(ValueError, match="n_folds is 1, but it must be at least 2"):
        fd.select_components(batch, criterion="held_out", n_folds=1)


def test_who_calls_is_warned_once_of_chosen_fits(rng):
    batch = fd.RaggedBatch.from_list([clusters(rng, 60, 2)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fd.select_components(batch, [2, 3], estimator=fd.GaussianMixtures(max_iter=1, tol=1e-12))
    (warning,) = caught
    assert warning.category is fd.ConvergenceWarning and warning.filename == __file__


def test_factor_analysers_have_a_number_of_components_too(rng):
    batch = planted(rng, [1, 3], n=90)
    choice = fd.select_components(batch, [1, 2, 3], estimator=fd.FactorAnalyserMixtures(n_init=3))
    assert choice.best.tolist() == [1, 3] and choice.estimator.sample(300)[1].amax(1).tolist() == [0, 2]
    for k, m in ((1, 0), (3, 1)):
        alone = fd.FactorAnalyserMixtures(k, n_init=3).fit(batch)
        torch.testing.assert_close(choice.estimator.bic(batch)[m], alone.bic(batch)[m])
        torch.testing.assert_close(choice.estimator.score(batch)[m], alone.score(batch)[m])


@pytest.mark.parametrize("criterion", ["bic", "icl", "held_out"])
def test_weights_count_as_repeated_rows_and_none_as_absent_ones(rng, criterion):
    x, y = clusters(rng, 60, 2), np.arange(60) % 2
    weights = rng.integers(0, 3, 60)
    rows = np.repeat(np.arange(60), weights)
    weighted, repeated = fd.RaggedBatch.from_labels(x, y), fd.RaggedBatch.from_labels(x[rows], y[rows])
    start = {"estimator": fd.GaussianMixtures(max_iter=0, reg_covar=1.0), "criterion": criterion}
    if criterion == "held_out":
        other = clusters(rng, 40, 2), np.arange(40) % 2
        of_other = rng.integers(1, 3, 40)
        again = np.repeat(np.arange(40), of_other)
        mean = fd.select_components(
            weighted, [1], held_out=fd.RaggedBatch.from_labels(*other).weighted(of_other), **start
        )
        expected = fd.select_components(
            weighted, [1], held_out=fd.RaggedBatch.from_labels(*(own[again] for own in other)), **start
        )
        torch.testing.assert_close(mean.values, expected.values, rtol=1e-10, atol=0)
        # Weights that are the same for all leave the error as it is.
        even = fd.RaggedBatch.from_labels(*other)
        errors = [
            fd.select_components(weighted, [1], held_out=even.weighted(w), **start).standard_errors
            for w in (None, np.full(40, 3.0))
        ]
        torch.testing.assert_close(*errors, rtol=1e-10, atol=0)
        return
    start["estimator"] = fd.GaussianMixtures(random_state=1, init_params="kmeans++", max_iter=200, tol=1e-13)
    found = fd.select_components(weighted, [1], sample_weight=weights, **start)
    expected = fd.select_components(repeated, [1], **start)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-10, atol=0)
    torch.testing.assert_close(found.estimator.means_, expected.estimator.means_, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="the batch has weights: pass one of them"):
        fd.select_components(weighted.weighted(weights), sample_weight=weights)


def test_a_batch_on_disk_has_the_choice_of_one_in_memory(rng, tmp_path):
    x, y = clusters(rng, 90, 2), rng.integers(0, 3, 90)
    np.save(tmp_path / "x.npy", x)
    on_disk, in_memory = (
        fd.RaggedBatch.from_files(tmp_path / "x.npy", y, max_memory="64GiB"),
        fd.RaggedBatch.from_labels(x, y),
    )
    for criterion in fd.model_choice.CRITERIA:
        found, expected = (fd.select_components(batch, [1, 2, 3], criterion) for batch in (on_disk, in_memory))
        torch.testing.assert_close(found.values, expected.values, rtol=1e-10, atol=0)
        assert torch.equal(found.best, expected.best)
        torch.testing.assert_close(found.estimator.means_, expected.estimator.means_, rtol=1e-10, atol=1e-12)
