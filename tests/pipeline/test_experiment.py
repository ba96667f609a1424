from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastdens.pipeline import AnalysisData
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.experiment_options import ImageOptions, NetworkOptions
from fastdens.pipeline.pictures import example_pictures
from fastdens.training import build_network
from fastdens.training.datasets import StreamedImages
from tests.training.datasets.image_files import save_images


def experiment(tmp_path, **images):
    return Experiment.load(
        ImageOptions(dataset="digits", image_size=8, **images), NetworkOptions(width=4), tmp_path / "runs", seed=3
    )


def test_labels_differ_exactly_where_they_were_flipped(tmp_path):
    found = experiment(tmp_path, flip=0.2)
    assert torch.equal(found.labels != found.images.train_labels, found.flipped)
    assert float(found.flipped.double().mean()) == pytest.approx(0.2, abs=0.01)
    assert json.loads(json.dumps(found.settings))["flip"] == 0.2


def test_a_network_of_a_file_predicts_what_the_network_does(tmp_path):
    found = experiment(tmp_path)
    model = build_network(found.recipe.network, 10, found.images.train.shape[1], width=4, image_size=8).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    loaded = found.network_of_file(tmp_path / "weights.pt", "cpu")
    with torch.no_grad():
        expected = model(found.images.test).argmax(1)
    assert torch.equal(loaded.test_predicted.long(), expected)


@pytest.mark.parametrize(("asked", "n_planted"), [(None, 16), (("0",), 0), ((".25",), 10)])
def test_long_tails_are_planted_by_share_or_not_at_all(tmp_path, asked, n_planted):
    experiment = Experiment.load(ImageOptions(image_size=8, long_tailed=asked), NetworkOptions(width=4), tmp_path)
    assert experiment.name == "anagrams" and int(experiment.images.long_tailed.sum()) == n_planted


def test_streamed_images_give_the_same_data_and_pictures(tmp_path, rng):
    for part, n in (("train", 8), ("test", 3)):
        for name in ("cat", "dog"):
            save_images(tmp_path / "images" / part / name, n, rng)
    found = []
    for stream in (False, True):
        images = ImageOptions(str(tmp_path / "images"), image_size=8, flip=0.2, stream=stream, workers=1)
        network = NetworkOptions(width=4, epochs=1, batch_size=8)
        experiment = Experiment.load(images, network, tmp_path / f"runs-{stream}", seed=3)
        data = AnalysisData.from_experiment(experiment, noise_images=4, progress=False)
        pictures = example_pictures(data, np.arange(16.0), None)
        features = (*data.train.values(), *data.test.values(), *data.noise.values())
        found.append([*features, torch.from_numpy(pictures.images)])
        assert "stream" not in data.provenance.settings
    assert isinstance(data.images, StreamedImages)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
