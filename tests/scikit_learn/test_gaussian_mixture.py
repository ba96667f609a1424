"""One Gaussian mixture, against scikit-learn's and as its users use it."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import sklearn.mixture
from sklearn import config_context
from sklearn.base import clone
from sklearn.covariance import OAS, LedoitWolf
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastdens as fd
from fastdens.sklearn import GaussianMixture, UncentredSVD

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")


def clusters(rng, n=300, d=3, k=3):
    return rng.normal(size=(n, d)) + 6 * rng.integers(0, k, size=(n, 1))


def start(x, k, covariance_type):
    """Initial parameters that both libraries take."""
    d = x.shape[1]
    one = {"full": np.eye(d)[None].repeat(k, 0), "tied": np.eye(d), "diag": np.ones((k, d)), "spherical": np.ones(k)}
    return {"weights_init": np.full(k, 1 / k), "means_init": x[:k], "precisions_init": one[covariance_type]}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(("n", "d", "k"), [(300, 3, 3), (40, 1, 2), (7, 5, 1)])
def test_agrees_with_scikit_learn_from_the_same_start(rng, covariance_type, n, d, k):
    x = clusters(rng, n, d)
    options = {"covariance_type": covariance_type, "max_iter": 7, "reg_covar": 1e-3, **start(x, k, covariance_type)}
    ours = GaussianMixture(k, **options).fit(x)
    theirs = sklearn.mixture.GaussianMixture(k, **options).fit(x)
    names = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "lower_bound_")
    for name in names:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8, atol=1e-10, err_msg=name)
    assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, theirs.converged_)
    fresh = clusters(rng, 50, d)
    for method in ("score_samples", "predict_proba", "predict", "score", "bic", "aic"):
        np.testing.assert_allclose(
            getattr(ours, method)(fresh), getattr(theirs, method)(fresh), rtol=1e-8, atol=1e-10, err_msg=method
        )


def test_takes_every_parameter_of_scikit_learn_but_verbose_interval():
    theirs = sklearn.mixture.GaussianMixture().get_params()
    ours = GaussianMixture().get_params()
    assert theirs.keys() - ours.keys() == {"verbose_interval"}
    assert ours.keys() - theirs.keys() == {"shrinkage"}
    assert ours.items() - {("shrinkage", None)} == theirs.items() - {("verbose_interval", 10)}


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_weights_count_as_repetitions_and_zero_as_absence(rng, covariance_type):
    x, counts = clusters(rng, 120), rng.integers(0, 4, size=120)
    options = {"covariance_type": covariance_type, **start(x[counts > 0], 3, covariance_type)}
    weighted = GaussianMixture(3, **options).fit(x, sample_weight=counts)
    repeated = GaussianMixture(3, **options).fit(x.repeat(counts, axis=0))
    for name in ("weights_", "means_", "covariances_", "lower_bound_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-10, err_msg=name)
    score = weighted.score(x, sample_weight=counts)
    assert score == pytest.approx(repeated.score(x.repeat(counts, axis=0)), rel=1e-10)
    with pytest.raises(ValueError, match="zero for every sample"):
        weighted.fit(x, sample_weight=np.zeros(120))


@pytest.mark.parametrize("method", [LedoitWolf, OAS])
def test_shrinkage_is_scikit_learns(rng, method):
    x = rng.normal(size=(30, 20)) + 5
    name = {LedoitWolf: "ledoit_wolf", OAS: "oas"}[method]
    gm = GaussianMixture(shrinkage=name, reg_covar=0).fit(x)
    np.testing.assert_allclose(gm.covariances_[0], method().fit(x).covariance_, rtol=1e-10, atol=1e-12)


def test_one_model_shares_its_covariance_with_itself(rng):
    x = clusters(rng)
    options = {"n_components": 3, "random_state": 0}
    tied, across = (GaussianMixture(covariance_type=kind, **options).fit(x) for kind in ("tied", "tied_across_models"))
    np.testing.assert_array_equal(tied.covariances_, across.covariances_)
    np.testing.assert_array_equal(tied.predict_proba(x), across.predict_proba(x))
    assert tied.bic(x) == across.bic(x)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_warm_start_goes_on_with_other_parameters(rng):
    x = clusters(rng)
    options = {"n_components": 3, "tol": 1e-9, **start(x, 3, "full")}
    whole = GaussianMixture(max_iter=50, **options).fit(x)
    parts = GaussianMixture(max_iter=2, warm_start=True, **options).fit(x)
    half_way = parts.lower_bound_
    parts.set_params(max_iter=48).fit(x)
    assert half_way <= parts.lower_bound_ + 1e-12
    np.testing.assert_allclose(parts.means_, whole.means_, rtol=1e-8)


def test_a_stream_ends_where_a_fit_does(rng):
    x = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 2)) + 1e4
    fit = GaussianMixture().fit(x)
    stream = GaussianMixture()
    for part in np.array_split(x, [1, 30, 31, 120]):
        stream.partial_fit(part)
    np.testing.assert_allclose(stream.means_, fit.means_, rtol=1e-12)
    np.testing.assert_allclose(stream.covariances_, fit.covariances_, rtol=1e-6)


def test_a_stream_without_enough_samples_is_not_fitted(rng):
    stream = GaussianMixture(3, tol=-1, random_state=0)
    with pytest.raises(ValueError, match="tol"):
        stream.partial_fit(rng.normal(size=(2, 2)))
    stream.set_params(tol=1e-3).partial_fit(rng.normal(size=(2, 2)))
    with pytest.raises(NotFittedError):
        stream.predict(np.zeros((1, 2)))
    stream.partial_fit(rng.normal(size=(50, 2)))
    assert stream.predict_proba(np.zeros((1, 2))).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="3 features"):
        stream.partial_fit(np.zeros((4, 3)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_are_kept(rng, dtype):
    x = clusters(rng).astype(dtype)
    gm = GaussianMixture(3, random_state=0).fit(x)
    results = [gm.weights_, gm.means_, gm.covariances_, gm.precisions_, gm.precisions_cholesky_]
    results += [gm.score_samples(x), gm.predict_proba(x), gm.sample(3)[0]]
    assert {result.dtype for result in results} == {np.dtype(dtype)}
    assert GaussianMixture().fit(np.arange(6).reshape(3, 2)).means_.dtype == np.float64


def test_random_states(rng):
    x = clusters(rng)
    one, two = (GaussianMixture(5, random_state=3, init_params="random").fit(x) for _ in range(2))
    np.testing.assert_array_equal(one.means_, two.means_)
    np.testing.assert_array_equal(one.sample(9)[0], one.sample(9)[0])
    generator = np.random.RandomState(0)
    one.set_params(random_state=generator)
    assert not np.array_equal(one.sample(9)[0], one.sample(9)[0])
    two = GaussianMixture(5, init_params="random", random_state=np.random.RandomState(3)).fit(x)
    np.testing.assert_array_equal(one.means_, two.means_)
    unseeded = [GaussianMixture(5, init_params="random").fit(x).means_ for _ in range(2)]
    assert not np.array_equal(*unseeded)


def test_copies(rng):
    x = clusters(rng)
    gm = GaussianMixture(3, random_state=0, warm_start=True).fit(x)
    again = pickle.loads(pickle.dumps(gm))
    np.testing.assert_array_equal(again.score_samples(x), gm.score_samples(x))
    np.testing.assert_array_equal(again.fit(x).means_, gm.fit(x).means_)
    assert not hasattr(clone(gm), "weights_")


def test_parameters_set_by_hand(rng):
    x = clusters(rng)
    fitted = GaussianMixture(3, random_state=0).fit(x)
    by_hand = GaussianMixture(3)
    by_hand.weights_, by_hand.means_ = fitted.weights_, fitted.means_
    by_hand.precisions_cholesky_ = fitted.precisions_cholesky_
    np.testing.assert_array_equal(by_hand.predict(x), fitted.predict(x))
    by_hand.means_ = by_hand.means_ + 1
    assert by_hand.score(x) < fitted.score(x)


def test_in_pipelines_and_searches(rng):
    frame = pd.DataFrame(clusters(rng, 240, 4), columns=list("abcd"))
    pipeline = make_pipeline(StandardScaler(), UncentredSVD(3), GaussianMixture(3, random_state=0))
    labels = pipeline.fit(frame).predict(frame)
    assert len(np.unique(labels)) == 3
    assert "GaussianMixture" in pipeline._repr_html_()
    search = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [1, 2, 3]}, cv=3).fit(frame)
    assert search.best_params_ == {"n_components": 3}
    assert list(search.best_estimator_.feature_names_in_) == list("abcd")


def test_weights_are_routed(rng):
    x, counts = clusters(rng, 100), rng.integers(1, 4, size=100)
    with config_context(enable_metadata_routing=True):
        gm = GaussianMixture().set_fit_request(sample_weight=True)
        routed = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), gm).fit(x, sample_weight=counts)
    direct = GaussianMixture().fit(StandardScaler().fit_transform(x), sample_weight=counts)
    np.testing.assert_allclose(routed[-1].means_, direct.means_, rtol=1e-12, atol=1e-12)


def test_warnings_point_at_the_caller(rng):
    for method in ("fit", "fit_predict"):
        with pytest.warns(ConvergenceWarning, match="did not converge") as caught:
            getattr(GaussianMixture(3, max_iter=1), method)(clusters(rng))
        assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_bad_initial_parameters(rng, covariance_type):
    x = clusters(rng)
    good = start(x, 2, covariance_type)
    bad = [
        ("weights_init", [0.5, 0.6], "should be normalized"),
        ("weights_init", [-0.5, 1.5], r"max value 1\.50000, min value -0\.50000"),
        ("weights_init", [[0.5, 0.5]], r"should have the shape of \(2,\)"),
        ("means_init", np.zeros((2, 4)), r"should have the shape of \(2, 3\)"),
        ("means_init", np.full((2, 3), np.nan), "NaN"),
        ("precisions_init", np.zeros(7), f"'{covariance_type} precision' should have the shape of"),
        ("precisions_init", -good["precisions_init"], f"'{covariance_type} precision' should be"),
    ]
    for name, value, message in bad:
        with pytest.raises(ValueError, match=message):
            GaussianMixture(2, covariance_type=covariance_type, **{**good, name: value}).fit(x)


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"n_components": 0}, ValueError),
        ({"n_components": 2.5}, TypeError),
        ({"tol": -1}, ValueError),
        ({"covariance_type": "round", "precisions_init": [1.0]}, ValueError),
        ({"init_params": "best"}, ValueError),
        ({"random_state": "x"}, ValueError),
    ],
)
def test_bad_parameters(rng, parameters, error):
    with pytest.raises(error):
        GaussianMixture(**parameters).fit(clusters(rng))


def test_verbose_says_what_came_of_the_fit(rng, capsys):
    x = clusters(rng)
    GaussianMixture(verbose=1).fit(x)
    assert re.fullmatch(r"EM converged after \d iterations\.\n", capsys.readouterr().out)
    GaussianMixture(verbose=2).fit(x)
    assert "lower bound" in capsys.readouterr().out
    GaussianMixture().fit(x)
    assert capsys.readouterr().out == ""


def test_far_from_the_origin(rng):
    x = rng.normal(size=(500, 4)).astype(np.float32) + np.float32(1e4)
    gm = GaussianMixture().fit(x)
    np.testing.assert_allclose(gm.covariances_[0], np.cov(x.T.astype(np.float64), bias=True), atol=2e-3)


def test_is_the_batch_estimator_of_one_model(rng):
    x = clusters(rng)
    ours = GaussianMixture(3, **start(x, 3, "full")).fit(x)
    given = {name: value[None] for name, value in start(x, 3, "full").items()}
    batch = fd.RaggedBatch.from_list([x])
    np.testing.assert_array_equal(ours.means_, fd.GaussianMixtures(3, **given).fit(batch).means_[0])
