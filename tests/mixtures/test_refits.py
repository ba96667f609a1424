"""Refits of some classes: the bits of a fit of all, and what is said where there can be no refit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import fastdens as fd
from tests.mixtures.problems import QUICK, clusters, quiet_fit

ESTIMATORS = {
    "gaussian": lambda **more: fd.GaussianMixtures(2, max_iter=8, **more),
    "tied": lambda **more: fd.GaussianMixtures(2, covariance_type="tied", max_iter=8, **more),
    "factors": lambda **more: fd.FactorAnalyserMixtures(2, n_factors=1, max_iter=8, **more),
    "gibbs": lambda **more: fd.DirichletProcessMixtures(**QUICK, n_chains=2, **more),
    "vb": lambda **more: fd.DirichletProcessMixtures("vb", truncation=4, max_iter=9, **more),
}
NAMES = ["ant", "bee", "cat", "dog", "eel"]


def rows(rng, sizes, seed):
    """Points of classes in a random order, and their labels."""
    x = torch.cat([clusters(rng, n, 3) for n in sizes])
    y = np.repeat(NAMES[: len(sizes)], sizes)
    order = np.random.default_rng(seed).permutation(len(y))
    return x[order], y[order]


def changed(rng, x, y, name, n):
    """With n other points of a class, somewhere among the rows of the others, which keep their order."""
    kept = np.flatnonzero(y != name)
    where = np.sort(rng.integers(0, len(kept) + 1, size=n))
    labels = np.insert(y[kept], where, name)
    points = np.insert(x[kept].numpy(), where, clusters(rng, n, 3).numpy(), axis=0)
    return torch.from_numpy(points), labels


def assert_same(one, other):
    (tensors, facts), (other_tensors, other_facts) = one.get_state(), other.get_state()
    assert facts == other_facts and tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        torch.testing.assert_close(value, other_tensors[name], rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("which", ESTIMATORS)
@pytest.mark.parametrize("max_memory", [None, "8GiB"])
def test_a_refit_has_the_bits_of_a_fit(rng, which, max_memory, tmp_path):
    x, y = rows(rng, (20, 15, 30, 1, 12), 0)
    x[np.flatnonzero(y == "bee")[0]] = torch.nan
    make = ESTIMATORS[which]
    estimator = quiet_fit(make(on_error="skip"), fd.RaggedBatch.from_labels(x, y, classes=NAMES))
    estimator.save(tmp_path / "fit")
    assert bool(estimator.failed_[1])
    x, y = changed(rng, x, y, "cat", 25)
    x, y = changed(rng, x, y, "bee", 11)
    batch = fd.RaggedBatch.from_labels(x, y, classes=NAMES)
    whole = quiet_fit(make(on_error="skip"), batch)
    loaded = fd.load(tmp_path / "fit")
    for own in (estimator, loaded):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert own.refit(batch, ["cat", "bee"], max_memory=max_memory) is own
        assert_same(own, whole)
        assert torch.equal(own.score_samples(batch).nan_to_num(), whole.score_samples(batch).nan_to_num())


@pytest.mark.parametrize("which", ESTIMATORS)
def test_a_model_that_fails_in_a_refit_is_named(rng, which):
    x, y = rows(rng, (20, 15, 30), 0)
    estimator = quiet_fit(ESTIMATORS[which](), fd.RaggedBatch.from_labels(x, y))
    state = {name: value.clone() for name, value in estimator.get_state()[0].items()}
    x[np.flatnonzero(y == "bee")[3]] = torch.nan
    batch = fd.RaggedBatch.from_labels(x, y)
    with pytest.raises(fd.ModelError, match=r"model 1 \(class 'bee'\) has NaN"):
        estimator.refit(batch, ["bee"])
    assert all(torch.equal(value, state[name]) for name, value in estimator.get_state()[0].items())
    estimator.on_error = "skip"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.refit(batch, ["bee"])
    assert estimator.failed_.tolist() == [False, True, False] and estimator.score_samples(batch)[0].isfinite() != (
        y[0] == "bee"
    )


def test_held_out_points_of_all_classes(rng):
    x, y = rows(rng, (20, 15, 30), 0)
    held_out = fd.RaggedBatch.from_labels(*rows(rng, (3, 2, 4), 1))
    dp = quiet_fit(ESTIMATORS["gibbs"](), fd.RaggedBatch.from_labels(x, y), held_out=held_out)
    x, y = changed(rng, x, y, "ant", 18)
    batch = fd.RaggedBatch.from_labels(x, y)
    with pytest.raises(ValueError, match=r"held_out_log_density_ .* pass held-out points if it had some"):
        dp.refit(batch, ["ant"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dp.refit(batch, ["ant"], held_out=held_out)
    assert_same(dp, quiet_fit(ESTIMATORS["gibbs"](), batch, held_out=held_out))


def test_what_cannot_be_refitted(rng):
    x, y = rows(rng, (20, 15, 30), 0)
    batch = fd.RaggedBatch.from_labels(x, y)
    gm = ESTIMATORS["gaussian"]()
    with pytest.raises(fd.NotFittedError):
        gm.refit(batch, ["ant"])
    quiet_fit(gm, batch)
    for classes, error, text in (
        (["ant", "emu"], ValueError, "classes has 'emu', which is no class of the fit"),
        ("ant", TypeError, "classes is 'ant': pass a list"),
        ([], ValueError, "classes is empty"),
    ):
        with pytest.raises(error, match=text):
            gm.refit(batch, classes)
    own = y != "ant"
    with pytest.raises(ValueError, match="the batch lacks class 'ant' of the fit"):
        gm.refit(fd.RaggedBatch.from_labels(x[own], y[own]), ["bee"])
    more = fd.RaggedBatch.from_labels(x, np.where(np.arange(len(y)) == 0, "emu", y))
    with pytest.raises(ValueError, match="the batch has class 'emu', which the fit lacks"):
        gm.refit(more, ["bee"])
    with pytest.raises(ValueError, match="held_out is given"):
        gm.refit(batch, ["bee"], held_out=batch)
    gm.n_components = 3
    with pytest.raises(ValueError, match="keep the parameters and the dtype of the fit"):
        gm.refit(batch, ["bee"])
    gm.n_components = 2
    gm.partial_fit(batch)
    with pytest.raises(ValueError, match="have learned from a stream"):
        gm.refit(batch, ["bee"])
    together = quiet_fit(fd.GaussianMixtures(2, covariance_type="tied_across_models"), batch)
    with pytest.raises(ValueError, match="no model stays as it is while another changes"):
        together.refit(batch, ["bee"])
    dp = quiet_fit(ESTIMATORS["vb"](), batch)
    x[np.flatnonzero(y == "bee")[1]] += 1
    with pytest.raises(ValueError, match=r"model 1 \(class 'bee'\) has other points than were fitted"):
        dp.refit(fd.RaggedBatch.from_labels(x, y), ["ant"])
    with pytest.raises(ValueError, match=r"model 2 \(class 'cat'\) has other points than were fitted"):
        dp.refit(fd.RaggedBatch.from_labels(*changed(rng, x, y, "cat", 29)), ["ant", "bee"])
