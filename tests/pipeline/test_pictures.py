"""Pictures of the examples that stand out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastdens.pipeline import AnalysisData
from fastdens.pipeline.examples import Examples
from fastdens.pipeline.pictures import SHOWN, example_pictures, extreme_examples
from fastdens.pipeline.results import Provenance


def data_of(rng, images, n_classes=3, experiment=None):
    labels = rng.integers(n_classes, size=len(images))
    labels[:n_classes] = np.arange(n_classes)
    names = tuple(map(str, range(n_classes)))
    return AnalysisData(Provenance("x"), Examples(names, labels), {}, experiment=experiment, images=images)


def test_the_extreme_examples_come_first(rng):
    density, scores = rng.permutation(50).astype(float), rng.permutation(50) / 50
    scores[rng.permutation(50)[:10]] = np.nan
    found = extreme_examples(density, scores, 5)
    assert density[found.least_dense].tolist() == [0, 1, 2, 3, 4]
    assert density[found.most_dense].tolist() == [49, 48, 47, 46, 45]
    expected = sorted(scores[np.isfinite(scores)], reverse=True)[:5]
    assert scores[found.most_memorized].tolist() == expected
    among = np.flatnonzero(density > 40)
    of_some = extreme_examples(density, None, 20, among)
    assert of_some.least_dense.tolist() == of_some.most_dense[::-1].tolist() and len(of_some.most_memorized) == 0
    assert density[of_some.least_dense].tolist() == list(range(41, 50))


def test_of_equal_scores_the_less_dense_example_comes_first():
    assert extreme_examples(np.array([3.0, 1.0, 2.0]), np.ones(3), 3).most_memorized.tolist() == [1, 2, 0]


def test_pictures_of_an_experiment_are_its_pixels(rng):
    pixels = torch.from_numpy(rng.integers(256, size=(100, 3, 8, 6))).float() / 255
    mean, std = torch.full((1, 3, 1, 1), 0.4), torch.full((1, 3, 1, 1), 0.2)
    experiment = SimpleNamespace(images=SimpleNamespace(mean=mean, std=std))
    data = data_of(rng, (pixels - mean) / std, experiment=experiment)
    density, scores = rng.normal(size=100), rng.random(100)
    pictures = example_pictures(data, density, scores)
    assert pictures.images.dtype == np.uint8
    np.testing.assert_array_equal(pictures.images, (pixels[pictures.examples] * 255).round().byte().numpy())
    assert (np.diff(pictures.examples) > 0).all()
    of_all = extreme_examples(density, scores, SHOWN)
    of_each = [extreme_examples(density, scores, 33, np.flatnonzero(data.examples.labels == c)) for c in range(3)]
    for extremes in (of_all, *of_each):
        assert {*np.concatenate(extremes)} <= {*pictures.examples}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_pictures_of_a_network_share_a_scale_and_are_small(rng, dtype):
    images = torch.from_numpy(rng.normal(size=(40, 1, 200, 100))).to(dtype)
    images[7] = 100
    density = rng.normal(size=40)
    density[7] = -100
    pictures = example_pictures(data_of(rng, images), density, None)
    assert pictures.images.shape[1:] == (1, 48, 24)
    at = pictures.examples.tolist().index(7)
    assert (pictures.images[at] == 255).all() and pictures.images[np.arange(len(pictures.images)) != at].max() < 20


def test_there_are_few_pictures_however_many_classes(rng):
    images = torch.zeros(3000, 1, 4, 4)
    pictures = example_pictures(data_of(rng, images, n_classes=100), rng.normal(size=3000), rng.random(3000))
    assert 250 <= len(pictures.examples) <= 300 + 3 * SHOWN and not pictures.images.any()
    many = example_pictures(data_of(rng, images, n_classes=1000), rng.normal(size=3000), None)
    assert len(many.examples) == 2 * SHOWN


def test_without_images_of_one_channel_or_three_there_are_no_pictures(rng):
    assert example_pictures(data_of(rng, torch.zeros(9, 12, 4, 4)), rng.normal(size=9), None) is None
    data = AnalysisData(Provenance("x"), Examples(("a",), np.zeros(3, np.int64)), {})
    assert example_pictures(data, rng.normal(size=3), None) is None
