from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fastdens.pipeline import AnalysisOptions, robustness
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.experiment_options import ImageOptions, NetworkOptions
from fastdens.pipeline.robustness import NormalizedClassifier, analyze_robustness
from fastdens.training.runs import load_run


def test_a_normalized_classifier_takes_pixels(rng):
    images = torch.from_numpy(rng.random((5, 3, 4, 4)))
    mean, std = torch.rand(1, 3, 1, 1).double(), torch.rand(1, 3, 1, 1).double() + 0.5
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2, dtype=torch.float64))
    found = NormalizedClassifier(network, mean, std)(images)
    standardized = (images.numpy() - mean.numpy()) / std.numpy()
    np.testing.assert_allclose(found.detach(), network(torch.from_numpy(standardized)).detach(), rtol=1e-12)


def test_networks_are_tried_on_the_bin_that_they_have_not_seen(rng, tmp_path):
    experiment = Experiment.load(
        ImageOptions(dataset="digits", image_size=8, flip=0.1), NetworkOptions(width=4, epochs=1), tmp_path, seed=1
    )
    labels = experiment.labels.numpy()
    layer = SimpleNamespace(
        name="layer4", log_density=rng.normal(size=len(labels)), modes=SimpleNamespace(group=np.arange(10) % 2)
    )
    options = AnalysisOptions(bins=2, certified_examples=20, certificate_draws=100, device="cpu")
    found = analyze_robustness(experiment, layer, options, progress=False)
    assert (found.layer, found.n_bins, len(found.examples)) == ("layer4", 2, 40)
    assert not experiment.flipped[found.examples].any()
    for b in range(2):
        # Twenty examples of ten classes: two of each.
        assert np.bincount(labels[found.examples[found.bin == b]], minlength=10).tolist() == [2] * 10
        (folder,) = tmp_path.glob("bins-*")
        run = load_run(folder, f"without-bin-{b}", experiment.images, device="cpu")
        np.testing.assert_array_equal(run.included, found.bins != b)
        right = run.model(experiment.images.test).argmax(1) == experiment.images.test_labels
        assert found.accuracy[b] == pytest.approx(float(right.double().mean()))
    sparse = layer.log_density[found.bins == 0]
    assert len(sparse) == pytest.approx(len(labels) / 2, abs=10)
    assert sparse.mean() < layer.log_density[found.bins == 1].mean()
    np.testing.assert_array_equal(found.group, labels[found.examples] % 2)
    assert (found.radius[~found.robust & ~found.clean] >= 0).all() and not (found.robust & ~found.clean).any()


@pytest.mark.slow
def test_noise_in_units_of_standardized_images_and_every_example_of_bins_of_all(rng, tmp_path, monkeypatch):
    experiment = Experiment.load(
        ImageOptions(dataset="digits", image_size=8, flip=0.1), NetworkOptions(width=4, epochs=1), tmp_path, seed=1
    )
    images = experiment.images
    labels = experiment.labels.numpy()
    layer = SimpleNamespace(
        name="layer4", log_density=rng.normal(size=len(labels)) + labels, modes=SimpleNamespace(group=np.arange(10) % 2)
    )
    seen, trained, attacked = [], [], []

    def certified(model, x, sigma, **_):
        seen.append((model, x, sigma))
        return SimpleNamespace(predicted=np.zeros(len(x), np.int64), radius=np.ones(len(x)))

    def attack(model, x, labels, epsilon, **options):
        attacked.append((float(x.min()), float(x.max()), options["bounds"]))
        return SimpleNamespace(robust=np.ones(len(x), bool), clean=np.ones(len(x), bool))

    def train(folder, images, labels, runs, recipe, **options):
        # What the noise is divided by before it is added to standardized images.
        trained.append((recipe.noise, images.std.tolist()))
        train_runs(folder, images, labels, runs, recipe, **options)

    train_runs = robustness.train_runs
    monkeypatch.setattr(robustness, "train_runs", train)
    monkeypatch.setattr(robustness, "certify", certified)
    monkeypatch.setattr(robustness, "pgd_accuracy", attack)
    common = {"bins": 2, "bin_epochs": 1, "bin_ranks": "global", "certified_examples": "all", "device": "cpu"}
    found = analyze_robustness(
        experiment, layer, AnalysisOptions(**common, sigma_units="standardized", sigma=0.25), progress=False
    )
    assert trained == [(0.25, [[[[1.0]]]])]
    # The attack is in pixels.
    assert all(bounds == (0.0, 1.0) and -1e-4 < low < high < 1 + 1e-4 for low, high, bounds in attacked)
    order = np.argsort(layer.log_density, kind="stable")
    np.testing.assert_array_equal(found.bins[order], (np.arange(len(labels)) > len(labels) // 2).astype(int))
    assert sorted(found.examples) == np.flatnonzero(~experiment.flipped.numpy()).tolist()
    (folder,) = tmp_path.glob("bins-*-standardized")
    for b, (model, x, sigma) in enumerate(seen):
        own = found.examples[found.bin == b]
        assert sigma == 0.25
        assert torch.equal(x, images.train[own])
        network = load_run(folder, f"without-bin-{b}", images, device="cpu")
        torch.testing.assert_close(model(x[:5]), network.model(images.train[own[:5]]))
    np.testing.assert_array_equal(found.radius, (labels[found.examples] == 0).astype(float))
