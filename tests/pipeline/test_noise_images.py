"""Images of noise: from the network to the page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fastdens.pipeline import Analysis, AnalysisData, AnalysisOptions, NoiseImages, analyze
from fastdens.report import metrics_of
from tests.report.analysis_problem import analysis_problem
from tests.report.test_page import words


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    labels = np.arange(200) % 4

    def layer(n):
        return (rng.normal(size=(n, 6)) + 3 * (np.arange(n) % 4)[:, None]).astype(np.float32)

    data = AnalysisData.from_activations(
        {"near": layer(200), "far": layer(200)},
        {"near": layer(60), "far": layer(60)},
        labels=labels,
        test_labels=np.arange(60) % 4,
    )
    noise = torch.from_numpy(layer(30))
    return replace(data, noise={"near": noise, "far": noise - 50})


def test_noise_is_compared_by_the_densest_class(data, tmp_path):
    options = AnalysisOptions(density="gmm", components=1, dimensions=(4,), entropy_draws=20, divergence_draws=20)
    analysis = analyze(data, options, progress=False)
    for layer in analysis.layers:
        noise = layer.noise
        assert noise.log_density.shape == (30,) and noise.test_log_density.shape == (60,)
        both = np.concatenate([noise.log_density, noise.test_log_density])
        assert noise.auc == pytest.approx(roc_auc_score(np.arange(90) < 30, -both))
    near, far = analysis.layers
    assert 0.3 < near.noise.auc < 0.7 and far.noise.auc == 1 and near.noise.auc_standard_error > 0.03
    analysis.save(tmp_path / "saved")
    loaded = Analysis.load(tmp_path / "saved").layers[0].noise
    np.testing.assert_array_equal(loaded.log_density, near.noise.log_density)
    assert loaded.auc == near.noise.auc
    assert analyze(replace(data, noise=None), options, progress=False).layers[0].noise is None


def test_the_page_says_what_the_numbers_are(rng):
    analysis = analysis_problem(rng)
    assert "Images of noise" not in words(analysis) and not any("noise_images" in id for id in metrics_of(analysis))
    layers = [
        replace(layer, noise=NoiseImages(rng.normal(size=7), rng.normal(size=9), auc, 0.0625))
        for layer, auc in zip(analysis.layers, (0.25, 0.875), strict=True)
    ]
    analysis = replace(analysis, layers=tuple(layers))
    said = words(analysis)
    assert "7 images of Gaussian noise were shown" in said
    assert "low density is 0.250 ± 0.062 at layer1 and 0.875 ± 0.062 at layer2" in said
    metrics = metrics_of(analysis)
    for layer in layers:
        mean = metrics.at(layer.name, "noise_images", "log_density_noise")
        assert mean.value == layer.noise.log_density.mean()
        assert mean.standard_error == pytest.approx(layer.noise.log_density.std(ddof=1) / np.sqrt(7))
        assert metrics.at(layer.name, "noise_images", "auc").standard_error == 0.0625
