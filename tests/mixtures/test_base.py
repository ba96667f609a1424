from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
import torch

import fastdens as fd
from tests.mixtures.problems import ragged

ESTIMATORS = [
    fd.GaussianMixtures,
    fd.FactorAnalyserMixtures,
    fd.DirichletProcessMixtures,
    fd.VariationalDirichletProcessMixtures,
]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_constructor_keeps_parameters_and_constraints_are_of_parameters(estimator):
    parameters = inspect.signature(estimator.__init__).parameters
    made = estimator()
    for name, parameter in list(parameters.items())[1:]:
        assert getattr(made, name) is parameter.default or getattr(made, name) == parameter.default
    assert set(estimator._parameter_constraints) <= parameters.keys()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_wrong_parameter_is_named(estimator, rng):
    batch = ragged(rng)
    for name, wrong in {"random_state": -1, "backend": "gpu", "on_error": "ignore", "dtype": torch.float16}.items():
        with pytest.raises(ValueError, match=name):
            estimator(**{name: wrong}).fit(batch)


def test_a_warning_names_five_models_and_points_to_the_call_of_fit(rng):
    batch = ragged(rng, sizes=(30,) * 7)
    with pytest.warns(fd.ConvergenceWarning, match=r"7 of 7 models .*class 0.*class 4\), \.\.\.\)") as caught:
        fd.GaussianMixtures(n_components=3, max_iter=1).fit(batch)
    assert caught[0].filename == __file__


def test_metadata_survives_json_and_failures_come_back(rng):
    batch = fd.RaggedBatch.from_list([torch.from_numpy(rng.normal(size=(n, 2))) for n in (20, 1, 30)])
    fitted = fd.GaussianMixtures(n_components=2, on_error="skip", dtype=torch.float32).fit(batch)
    tensors, metadata = fitted.get_state()
    again = fd.GaussianMixtures.from_state(tensors, json.loads(json.dumps(metadata)))
    assert again.failures_ == fitted.failures_ and list(again.failures_) == [1] and again.dtype is torch.float32
    assert torch.equal(again.means_[[0, 2]], fitted.means_[[0, 2]])


@pytest.mark.parametrize("labels", [["ant", "bee"], [0, 2], [True, False]])
def test_a_batch_of_other_classes_is_refused(rng, labels):
    x, y = rng.normal(size=(40, 2)), [labels[i % 2] for i in range(40)]
    batch = fd.RaggedBatch.from_labels(x, y)
    gm = fd.GaussianMixtures(1).fit(batch)
    assert gm.classes_ == batch.classes == tuple(sorted(labels))
    few = fd.RaggedBatch.from_labels(x[:5], [gm.classes_[1]] * 5, classes=gm.classes_)
    np.testing.assert_allclose(gm.score_samples(few), gm.log_prob(x[:5])[:, 1])
    with pytest.raises(ValueError, match=r"model 0 was fitted to class .* pass the classes_ of the fit"):
        gm.score_samples(fd.RaggedBatch.from_labels(x, [5, 6] * 20))
