"""One Dirichlet-process mixture: a density and a clustering."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import homogeneity_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastdens as fd
from fastdens.sklearn import DirichletProcessMixture

SHORT = {"n_sweeps": 60, "burn_in": 40, "thin": 2, "random_state": 0}


def clusters(rng, n=150):
    y = rng.integers(0, 3, size=n)
    return rng.normal(size=(n, 2)) + 9 * np.stack([y == 1, y == 2], 1), y


@pytest.mark.parametrize(
    "parameters", [SHORT, {"method": "vb", "truncation": 8, "random_state": 0}], ids=["gibbs", "vb"]
)
def test_finds_clusters_of_old_and_of_new_points(rng, parameters):
    x, y = clusters(rng)
    dp = DirichletProcessMixture(**parameters)
    labels = dp.fit_predict(x)
    np.testing.assert_array_equal(labels, dp.labels_)
    assert homogeneity_score(y, labels) > 0.95
    assert homogeneity_score(labels, dp.predict(x)) > 0.95
    fresh, y_fresh = clusters(rng)
    assert homogeneity_score(y_fresh, dp.predict(fresh)) > 0.95
    proba = dp.predict_proba(fresh)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert dp.predict([[1e3, 1e3]]).tolist() == [-1] or parameters is not SHORT
    drawn, components = dp.sample(200)
    assert drawn.shape == (200, 2)
    assert (np.diff(components) >= 0).all()
    np.testing.assert_array_equal(np.sort(dp.predict(drawn)), components)
    again = pickle.loads(pickle.dumps(dp))
    np.testing.assert_array_equal(again.score_samples(x), dp.score_samples(x))


@pytest.mark.parametrize("method", ["gibbs", "vb"])
def test_is_the_batch_estimator_of_one_model(rng, method):
    x, _ = clusters(rng)
    dp = DirichletProcessMixture(method, **SHORT).fit(x)
    peer = fd.DirichletProcessMixtures(
        method, **{**SHORT, "random_state": dp.mixtures_.random_state}, progress=False
    ).fit(fd.RaggedBatch.from_list([x]))
    np.testing.assert_array_equal(dp.score_samples(x), peer.log_prob(x)[:, 0])
    np.testing.assert_array_equal(dp.alpha_, peer.alpha_[0])
    assert dp.score(x, sample_weight=np.arange(150)) == pytest.approx(
        np.average(dp.score_samples(x), weights=np.arange(150))
    )


def test_in_a_pipeline(rng):
    x, y = clusters(rng)
    pipeline = make_pipeline(StandardScaler(), DirichletProcessMixture("vb", truncation=5, random_state=0))
    assert homogeneity_score(y, pipeline.fit_predict(x)) > 0.95


def test_chains_that_disagree_are_warned_of(rng):
    x = rng.normal(size=(60, 2))
    with pytest.warns(ConvergenceWarning, match="have not converged") as caught:
        DirichletProcessMixture(n_sweeps=4, burn_in=0, thin=1, n_chains=2, max_rhat=0.5, random_state=0).fit(x)
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"method": "em"}, ValueError),
        ({"n_sweeps": 2.5}, TypeError),
        ({"burn_in": 400}, ValueError),
        ({"alpha": -1.0}, ValueError),
    ],
)
def test_bad_parameters(rng, parameters, error):
    with pytest.raises(error):
        DirichletProcessMixture(**parameters).fit(clusters(rng)[0])
