"""Generative classification, against the classifiers of scikit-learn that are special cases of it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastdens as fd
from fastdens.sklearn import DensityClassifier, DirichletProcessMixture, GaussianMixture

NAMES = np.array(["ant", "bee", "cat", "dog"])


def classes(rng, n=300, d=3, n_classes=4):
    y = rng.choice(n_classes, size=n, p=np.arange(1, n_classes + 1) / sum(range(n_classes + 1)))
    # The peers refuse classes that hardly vary in some direction.
    spread = np.linalg.qr(rng.normal(size=(n_classes, d, d))).Q * rng.uniform(0.5, 2, (n_classes, 1, d))
    return np.einsum("nij,nj->ni", spread[y], rng.normal(size=(n, d))) + y[:, None], NAMES[y]


@pytest.mark.parametrize("n_classes", [2, 4])
def test_one_full_gaussian_is_quadratic_discriminant_analysis(rng, n_classes):
    x, y = classes(rng, n_classes=n_classes)
    ours = DensityClassifier(GaussianMixture(reg_covar=0)).fit(x, y)
    theirs = QuadraticDiscriminantAnalysis().fit(x, y)
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    fresh, _ = classes(rng, 60, n_classes=n_classes)
    np.testing.assert_allclose(ours.predict_log_proba(fresh), theirs.predict_log_proba(fresh), rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(ours.predict(fresh), theirs.predict(fresh))
    decision = ours.decision_function(fresh)
    assert decision.shape == ((60,) if n_classes == 2 else (60, n_classes))
    offset = 0 if n_classes == 2 else -1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(decision - offset, theirs.decision_function(fresh), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shrinkage", [None, 0.3])
def test_one_covariance_for_all_is_linear_discriminant_analysis(rng, shrinkage):
    x, y = classes(rng)
    gaussian = GaussianMixture(covariance_type="tied_across_models", reg_covar=0, shrinkage=shrinkage)
    ours = DensityClassifier(gaussian).fit(x, y)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x, y)
    if shrinkage is None:
        np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-8, atol=1e-12)
    covariance = theirs.covariance_
    target = np.trace(covariance) / 3 * np.eye(3)
    share = shrinkage or 0
    np.testing.assert_allclose(ours.models_.covariances_, (1 - share) * covariance + share * target, rtol=1e-10)


@pytest.mark.parametrize("priors", [None, [0.1, 0.2, 0.3, 0.4]])
def test_one_diagonal_gaussian_is_gaussian_naive_bayes(rng, priors):
    x, y = classes(rng)
    weights = rng.uniform(0, 2, size=len(x))
    ours = DensityClassifier(GaussianMixture(covariance_type="diag", reg_covar=0), priors=priors).fit(x, y, weights)
    theirs = GaussianNB(priors=priors, var_smoothing=0).fit(x, y, weights)
    np.testing.assert_allclose(ours.class_count_, theirs.class_count_)
    np.testing.assert_allclose(ours.class_prior_, theirs.class_prior_)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-8, atol=1e-12)


def test_a_stream_of_parts_is_that_of_gaussian_naive_bayes(rng):
    x, y = classes(rng)
    ours = DensityClassifier(GaussianMixture(covariance_type="diag", reg_covar=0))
    theirs = GaussianNB(var_smoothing=0)
    # The second part lacks classes, and the first lacks two of them.
    order = np.argsort(y != "ant", kind="stable")
    for rows in (order[:60], order[60:61], order[61:]):
        for classifier in (ours, theirs):
            classifier.partial_fit(x[rows], y[rows], classes=NAMES)
    np.testing.assert_allclose(ours.class_count_, theirs.class_count_)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="not among classes"):
        ours.partial_fit(x[:1], ["elk"])
    with pytest.raises(ValueError, match="first call"):
        DensityClassifier().partial_fit(x, y)
    with pytest.raises(ValueError, match="calls before"):
        ours.partial_fit(x, y, classes=NAMES[:2])


def test_classes_without_samples_yet_are_not_predicted(rng):
    x, y = classes(rng)
    ours = DensityClassifier().partial_fit(x[y != "cat"], y[y != "cat"], classes=NAMES)
    assert (ours.predict_proba(x)[:, 2] == 0).all()
    assert np.isfinite(ours.predict_proba(x)).all()


def test_classes_with_few_samples(rng):
    x, y = classes(rng, 100)
    x, y = np.concatenate([x, np.zeros((2, 3))]), np.append(y, ["elk", "elk"])
    with pytest.raises(ValueError, match=r"'elk'.*2 points"):
        DensityClassifier(GaussianMixture(3, random_state=0)).fit(x, y)
    skipping = DensityClassifier(GaussianMixture(3, random_state=0), on_error="skip").fit(x, y)
    assert "elk" in skipping.classes_
    assert "elk" not in skipping.predict(x)
    assert (skipping.predict_proba(x)[:, 4] == 0).all()
    none = DensityClassifier(GaussianMixture(200), on_error="skip").fit(x, y)
    with pytest.raises(NotFittedError, match="200 components"):
        none.predict(x)


@pytest.mark.parametrize("priors", [[0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [-1, 1, 0.5, 0.5]])
def test_bad_priors(rng, priors):
    with pytest.raises(ValueError, match="priors"):
        DensityClassifier(priors=priors).fit(*classes(rng))


@pytest.mark.parametrize("parameters", [{"warm_start": True}, {"means_init": np.zeros((1, 3))}])
def test_parameters_of_one_mixture(rng, parameters):
    with pytest.raises(ValueError, match="for one mixture alone"):
        DensityClassifier(GaussianMixture(**parameters)).fit(*classes(rng))


@pytest.mark.parametrize(
    "estimator",
    [
        GaussianMixture(2, random_state=0),
        DirichletProcessMixture("vb", truncation=4, random_state=0),
        DirichletProcessMixture(n_sweeps=20, burn_in=10, thin=2, random_state=0),
    ],
    ids=["gaussian", "vb", "gibbs"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_any_density_classifies(rng, estimator):
    y = rng.integers(0, 3, size=150)
    x = rng.normal(size=(150, 2)) + 8 * np.stack([y == 1, y == 2], 1)
    classifier = DensityClassifier(estimator).fit(x, y)
    assert classifier.score(x, y) > 0.95
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(x), classifier.predict_proba(x))
    assert hasattr(classifier, "partial_fit") == isinstance(estimator, GaussianMixture)


def test_the_fitted_models_are_saved_as_those_of_batches(rng, tmp_path):
    x, y = classes(rng)
    models = DensityClassifier().fit(x, y).models_
    models.save(tmp_path / "models.safetensors")
    loaded = fd.load(tmp_path / "models.safetensors")
    assert type(loaded) is fd.GaussianMixtures
    assert torch.equal(loaded.log_prob(x), models.log_prob(x))


def test_searches_and_routing(rng):
    x, y = classes(rng)
    pipeline = make_pipeline(StandardScaler(), DensityClassifier(GaussianMixture(random_state=0)))
    name = "densityclassifier__estimator__covariance_type"
    grid = {name: ["spherical", "full"]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(x, y)
    by_hand = [cross_val_score(pipeline.set_params(**{name: c}), x, y, cv=3).mean() for c in grid[name]]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], by_hand)
    assert search.best_estimator_[-1].models_.covariance_type == search.best_params_[name]
    with config_context(enable_metadata_routing=True):
        routed = DensityClassifier().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        assert np.isfinite(cross_val_score(routed, x, y, params={"sample_weight": rng.uniform(size=len(x))})).all()


def test_warnings_name_the_class_and_point_at_the_caller(rng):
    x, y = classes(rng)
    with pytest.warns(ConvergenceWarning, match=r"4 of 4 models.*'ant'") as caught:
        DensityClassifier(GaussianMixture(3, max_iter=1, random_state=0)).fit(x, y)
    assert [warning.filename for warning in caught] == [__file__]
