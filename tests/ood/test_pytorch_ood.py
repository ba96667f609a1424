"""The same numbers as pytorch-ood where the definition is the same, and its own loops over our detectors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from pytorch_ood import detector as theirs
from pytorch_ood.api import FeaturesDetector, ModelNotSetException, RequiresFittingException
from pytorch_ood.metrics import OODMetrics
from pytorch_ood.utils import GridSearch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastdens as fd
from tests.ood.problems import classes


@pytest.fixture
def features(rng):
    return classes(rng, [80, 60, 90, 70], 8, torch.float32)


def test_the_same_numbers(features):
    """Their covariances are sums, ours means: distances differ by the factor N, and half of it is their score."""
    x, y, others = features
    n = len(x)
    ours = fd.ood.Mahalanobis(reg_covar=1e-6 / n).fit(x, y).score(others)
    distance = 2 * n * theirs.Mahalanobis(None).fit_features(x, y).predict_features(others)
    torch.testing.assert_close(ours, distance, rtol=2e-5, atol=0)
    ours = fd.ood.RelativeMahalanobis(reg_covar=1e-6 / n).fit(x, y).score(others)
    relative = n * theirs.RMD(None).fit_features(x, y).predict_features(others)
    # They subtract distances in float32.
    assert ((ours - relative).abs() < 2e-5 * distance).all()
    ours = fd.ood.MixtureDensity(fd.GaussianMixtures(1)).fit(x, y).score(others)
    torch.testing.assert_close(
        ours.double(), theirs.GMM(None).fit_features(x, y).predict_features(others), rtol=1e-5, atol=1e-5
    )
    for k in (1, 50):
        ours = fd.ood.NearestNeighbours(k).fit(x, y).score(others)
        knn = theirs.KNN(None, k=k).fit_features(x, y).predict_features(others)
        torch.testing.assert_close(ours.double(), knn, rtol=1e-5, atol=1e-7)


def test_their_loops(features):
    x, y, others = features
    encoder = nn.Sequential(nn.Linear(8, 6), nn.Unflatten(1, (3, 2)))
    train = DataLoader(TensorDataset(torch.cat([x, others[:5]]), torch.cat([y, torch.full((5,), -1)])), batch_size=64)
    test = DataLoader(TensorDataset(torch.cat([x, others]), torch.cat([y, torch.full((60,), -1)])), batch_size=64)
    detector = fd.ood.pytorch_ood.Detector(encoder, fd.ood.Mahalanobis())
    with pytest.raises(RequiresFittingException):
        detector(x)
    metrics = OODMetrics()
    for inputs, labels in test:
        metrics.update(detector.fit(train)(inputs), labels)
    found = metrics.compute()
    with torch.no_grad():
        inside, outside = (encoder(part).flatten(1) for part in (x, others))
    ours = fd.ood.Mahalanobis().fit(inside, y)
    expected = fd.ood.evaluate(ours.score(inside), ours.score(outside))
    assert found["AUROC"] == pytest.approx(expected.auroc) and found["AUROC"] > 0.6
    assert found["FPR95TPR"] == pytest.approx(expected.false_positive_rate)
    assert isinstance(detector, FeaturesDetector) and detector.to("cpu").predict_features(inside).shape == (300,)


def test_their_search(features):
    x, y, others = features
    detector = fd.ood.pytorch_ood.Detector(nn.Identity(), fd.ood.NearestNeighbours())
    test = DataLoader(TensorDataset(torch.cat([x[::4], others]), torch.cat([y[::4], torch.full((60,), -1)])))
    search = GridSearch(detector, DataLoader(TensorDataset(x[1::4], y[1::4])), test, {"k": [1, 5, 75]})
    best = search.run()
    assert detector.detector.k == best["k"] and len(search.results_) == 3
    with pytest.raises(ValueError, match="'radius' is no parameter"):
        detector.set_hyperparameters(radius=1)


def test_layers_of_a_network(features):
    x, y, others = features
    network = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))
    layered = fd.ood.LayeredDetector(fd.ood.Mahalanobis())
    detector = fd.ood.pytorch_ood.LayeredDetector(network, ["0", "2"], layered)
    with pytest.raises(RequiresFittingException):
        detector(x)
    loader = DataLoader(TensorDataset(torch.cat([x, others]), torch.cat([y, torch.full((60,), -1)])), batch_size=50)
    scores = detector.fit(loader)(others)
    train = fd.activations.extract(network, DataLoader(TensorDataset(x, y), batch_size=300), ["0", "2"], progress=False)
    test = fd.activations.extract(network, [others], ["0", "2"], progress=False)
    expected = fd.ood.LayeredDetector(fd.ood.Mahalanobis()).fit(train).score(test)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_without_an_encoder(features):
    x, y, others = features
    detector = fd.ood.pytorch_ood.Detector(None, fd.ood.NearestNeighbours(3))
    with pytest.raises(ModelNotSetException):
        detector(x)
    assert detector.fit_features(x, y).predict_features(others).shape == (60,)


def test_it_is_needed_for_nothing_else():
    code = (
        "import sys; sys.modules['pytorch_ood'] = None\nimport fastdens as fd\nfd.ood.Mahalanobis()\n"
        "try: fd.ood.pytorch_ood\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "fd.ood.pytorch_ood needs pytorch_ood, which is not installed: pip install 'fastdens[ood]'." in done.stdout
