"""Classification by density, against scikit-learn's scores and discriminant analysis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

import fastdens as fd
from fastdens.analysis import generative_classification


def test_one_gaussian_a_class_is_quadratic_discriminant_analysis():
    x, y = load_iris(return_X_y=True)
    models = fd.GaussianMixtures(1, reg_covar=0, init_params="random").fit(fd.RaggedBatch.from_labels(x, y))
    found = generative_classification(models.log_prob(x), y)
    expected = QuadraticDiscriminantAnalysis().fit(x, y).predict(x)
    assert (found.predicted == expected).mean() > 0.99
    assert found.accuracy == (found.predicted == y).mean()


def noisy_problem(rng, n, m):
    """Log-densities that are right about two times in three, of classes of unequal size, the last of them empty."""
    labels = rng.choice(m - 1, n, p=rng.dirichlet(np.full(m - 1, 5.0)))
    log_prob = rng.normal(size=(n, m))
    log_prob[np.arange(n), labels] += 2.0
    return log_prob, labels


@pytest.mark.parametrize("m", [2, 3, 12])
def test_scores_are_those_of_scikit_learn(rng, m):
    log_prob, labels = noisy_problem(rng, 300, m)
    # A class that is never predicted.
    log_prob[:, 0] -= 100
    rows = rng.permutation(300)[:150]
    found = generative_classification(torch.from_numpy(log_prob[rows]), labels[rows])
    expected = precision_recall_fscore_support(labels[rows], found.predicted, average="weighted", zero_division=0)
    np.testing.assert_allclose([found.precision, found.recall, found.f1], expected[:3], rtol=1e-12)
    assert found.accuracy == accuracy_score(labels[rows], found.predicted)


def test_standard_errors_are_those_of_the_bootstrap(rng):
    n, m = 2000, 6
    log_prob, labels = noisy_problem(rng, n, m)
    found = generative_classification(log_prob, labels)
    cells = confusion_matrix(labels, found.predicted, labels=range(m))
    drawn = rng.multinomial(n, cells.ravel() / n, size=4000).reshape(-1, m, m)
    true, called, both = drawn.sum(2), drawn.sum(1), drawn.diagonal(axis1=1, axis2=2)
    f1 = (true * 2 * both / np.maximum(true + called, 1)).sum(1) / n
    assert found.accuracy_standard_error == pytest.approx((both.sum(1) / n).std(), rel=0.06)
    assert found.f1_standard_error == pytest.approx(f1.std(), rel=0.06)


def test_no_mistakes_have_no_error():
    found = generative_classification(np.eye(4)[[0, 1, 1, 3]], [0, 1, 1, 3])
    assert (found.accuracy, found.precision, found.recall, found.f1) == (1, 1, 1, 1)
    assert found.accuracy_standard_error == 0 and found.f1_standard_error == pytest.approx(0, abs=1e-12)


def test_models_that_failed_and_errors():
    log_prob = torch.tensor([[torch.nan, 1.0], [torch.nan, 2.0]])
    assert generative_classification(log_prob, [1, 0]).predicted.tolist() == [1, 1]
    with pytest.raises(ValueError, match="example 1"):
        generative_classification(np.array([[0.0, 1.0], [np.nan, np.nan]]), [0, 0])
    with pytest.raises(ValueError, match=r"\[N, M\]"):
        generative_classification(np.zeros(3), [0, 0, 0])


def test_scores_of_examples_that_are_all_right_are_exactly_one_at_most():
    for n in range(1, 400):
        labels = np.arange(n) % 7
        result = generative_classification(np.eye(7)[labels], labels)
        assert result.accuracy == 1 and result.f1 <= 1 and result.precision <= 1
