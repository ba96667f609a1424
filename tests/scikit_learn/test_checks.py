"""scikit-learn's checks of estimators, all of them, on all of ours."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastdens.sklearn import DensityClassifier, DirichletProcessMixture, GaussianMixture

SHORT = {"n_sweeps": 12, "burn_in": 8, "thin": 2}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        GaussianMixture(),
        GaussianMixture(covariance_type="tied"),
        GaussianMixture(covariance_type="diag", init_params="random"),
        DirichletProcessMixture(**SHORT),
        DirichletProcessMixture(method="vb", truncation=4),
        DensityClassifier(),
        DensityClassifier(GaussianMixture(covariance_type="spherical")),
        DensityClassifier(GaussianMixture(covariance_type="tied_across_models")),
        GaussianMixture(shrinkage="oas"),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)
