"""Fits in view: a bar of models, and the bits of the fit that shows none."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch

import fastdens as fd

SHORT = {"max_iter": 2, "tol": 1e-12}
ESTIMATORS = {
    "gaussian": lambda **options: fd.GaussianMixtures(2, **SHORT, **options),
    "given start": lambda **options: fd.GaussianMixtures(2, means_init=torch.randn(9, 2, 3), **SHORT, **options),
    "factors": lambda **options: fd.FactorAnalyserMixtures(2, 1, **SHORT, **options),
    "variational": lambda **options: fd.VariationalDirichletProcessMixtures(truncation=4, **SHORT, **options),
}


@pytest.fixture
def batch(rng, monkeypatch):
    """Nine models, one of which has too few points, in groups that begin with one of them."""
    monkeypatch.setattr("fastdens.mixtures.limited_memory._MODELS_OF_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    y = np.repeat(np.arange(9), [30, 40, 1, 25, 60, 30, 35, 20, 50])
    return fd.RaggedBatch.from_labels(rng.normal(size=(len(y), 3)) + y[:, None], rng.permutation(y))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_fit_in_view_has_the_bits_of_one_that_is_not(name, batch, capsys):
    states = []
    for progress in (False, True):
        torch.manual_seed(0)
        estimator = ESTIMATORS[name](on_error="skip", random_state=4, progress=progress)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator.fit(batch)
        assert estimator.progress is progress
        # Of models that did not converge the caller is warned once, by name.
        states.append((*estimator.get_state(), [str(warning.message) for warning in caught]))
        assert len(caught) == 1 and caught[0].filename == __file__
        out, err = capsys.readouterr()
        assert out == "" and bool(err) == progress
    assert re.fullmatch(r"Models: 9 of 9, took \d:\d\d:\d\d\n", err)
    (tensors, metadata, sentences), (others, other_metadata, other_sentences) = states
    assert tensors.keys() == others.keys() and sentences == other_sentences
    assert all(torch.equal(value.nan_to_num(), others[key].nan_to_num()) for key, value in tensors.items())
    assert {**other_metadata["parameters"], "progress": False} == metadata["parameters"]
    assert other_metadata["failures"] == metadata["failures"]


def test_models_of_one_covariance_show_steps(batch, capsys):
    options = {"covariance_type": "tied_across_models", "on_error": "skip", "tol": 0, "max_iter": 7}
    fits = [fd.GaussianMixtures(2, progress=progress, **options).fit(batch) for progress in (False, True)]
    assert torch.equal(fits[0].covariances_, fits[1].covariances_)
    assert capsys.readouterr().err.startswith("EM steps: 7 of 7, took")


def test_a_failure_is_that_of_the_fit(batch, capsys):
    with pytest.raises(fd.ModelError, match="has 1 point, but 2 components"):
        fd.GaussianMixtures(2, progress=True).fit(batch)
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="progress is 'yes', but it must be True or False"):
        fd.GaussianMixtures(2, progress="yes").fit(batch)


def test_a_choice_of_components_shows_the_numbers_that_were_tried(capsys, rng):
    batch = fd.RaggedBatch.from_labels(rng.normal(size=(60, 2)), np.arange(60) % 2)
    fd.select_components(batch, range(1, 4), estimator=fd.GaussianMixtures(max_iter=300), progress=True)
    assert capsys.readouterr().err.startswith("Numbers of components: 3 of 3, took")
