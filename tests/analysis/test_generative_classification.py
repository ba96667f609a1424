"""Classification by density, against scikit-learn's scores and discriminant analysis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.metrics import f1_score

import fastdens as fd
from fastdens.analysis import generative_classification


def test_one_gaussian_a_class_is_quadratic_discriminant_analysis():
    x, y = load_iris(return_X_y=True)
    models = fd.GaussianMixtures(1, reg_covar=0, init_params="random").fit(fd.RaggedBatch.from_labels(x, y))
    found = generative_classification(models.log_prob(x), y)
    expected = QuadraticDiscriminantAnalysis().fit(x, y).predict(x)
    assert (found.predicted == expected).mean() > 0.99
    assert found.accuracy == (found.predicted == y).mean()
    assert found.f1 == pytest.approx(f1_score(y, found.predicted, average="weighted"))


def test_models_that_failed_and_errors():
    log_prob = torch.tensor([[torch.nan, 1.0], [torch.nan, 2.0]])
    assert generative_classification(log_prob, [1, 0]).predicted.tolist() == [1, 1]
    with pytest.raises(ValueError, match="example 1"):
        generative_classification(np.array([[0.0, 1.0], [np.nan, np.nan]]), [0, 0])
    with pytest.raises(ValueError, match=r"\[N, M\]"):
        generative_classification(np.zeros(3), [0, 0, 0])
