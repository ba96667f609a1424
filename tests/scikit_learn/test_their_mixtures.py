"""scikit-learn's tests of ``GaussianMixture``, run against ours.

``DO_NOT_APPLY`` has the tests that are left out, and why. Those of ``BayesianGaussianMixture`` are left out altogether:
:class:`fastdens.sklearn.DirichletProcessMixture` has another prior under other names, full covariances only and no
``n_init``, so that none of them runs; ``tests/inference/test_variational.py`` compares the inference itself.
"""

from __future__ import annotations

from functools import partial

from fastdens.sklearn import GaussianMixture
from tests.scikit_learn.suites import suite_of

_PRIVATE_FUNCTIONS = "tests private functions of sklearn.mixture, and no estimator"
_PRIVATE_METHODS = "calls private methods of the estimator"
_ARRAY_API = "passes arrays of other libraries, where ours takes what numpy reads"
DO_NOT_APPLY = {
    "test_check_weights": "expects a message that calls the smallest weight the largest; ours has them right",
    "test_suffstat_sk_full": _PRIVATE_FUNCTIONS,
    "test_suffstat_sk_tied": _PRIVATE_FUNCTIONS,
    "test_suffstat_sk_diag": _PRIVATE_FUNCTIONS,
    "test_gaussian_suffstat_sk_spherical": _PRIVATE_FUNCTIONS,
    "test_compute_log_det_cholesky": _PRIVATE_FUNCTIONS,
    "test_gaussian_mixture_log_probabilities": _PRIVATE_FUNCTIONS,
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters": _PRIVATE_FUNCTIONS,
    "test_gaussian_mixture_precisions_init": _PRIVATE_METHODS,
    "test_gaussian_mixture_setting_best_params": (
        "starts, with reg_covar=0, from components of one sample, whose variance is 0: scikit-learn's is 4e-16 by "
        "rounding, ours is the error that both raise for collapsed components; asks for lower_bounds_, which ours lacks"
    ),
    "test_gaussian_mixture_array_api_compliance": _ARRAY_API,
    "test_gaussian_mixture_raises_where_array_api_not_implemented": _ARRAY_API,
}

globals().update(
    suite_of("sklearn.mixture.tests.test_gaussian_mixture", {"GaussianMixture": GaussianMixture}, DO_NOT_APPLY)
)
# Of both classes of scikit-learn.
globals().update(
    suite_of(
        "sklearn.mixture.tests.test_mixture",
        {
            "GaussianMixture": GaussianMixture,
            "BayesianGaussianMixture": partial(GaussianMixture, covariance_type="diag"),
        },
    )
)
