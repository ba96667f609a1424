"""The paper's files: activations by their names, labels out of the score file, lists of examples and labels."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from fastdens.cli import main
from fastdens.pipeline import Analysis, AnalysisData
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.experiment_options import ImageOptions, NetworkOptions
from fastdens.pipeline.options import OptionError

QUICK = ["--density", "gmm", "--components", "1", "--entropy-draws", "20", "--divergence-draws", "20"]
N, N_CLASSES = 240, 4


@pytest.fixture
def published(rng, tmp_path):
    """A folder of activations, and scores beside it, as the paper's authors publish them."""
    labels = rng.permutation(np.arange(N) % N_CLASSES)
    folder = tmp_path / "activations"
    folder.mkdir()
    arrays = {}
    for kind in ("avg", "max"):
        for layer in ("conv1", "layer1", "layer4"):
            x = rng.normal(size=(N, 8)).astype(np.float32) + labels[:, None]
            arrays[kind, layer] = x
            np.save(folder / f"{kind}_pooling_{layer}_acts.npy", x)
    scores = rng.uniform(-0.1, 1, N).astype(np.float32)
    np.savez(tmp_path / "scores.npz", tr_mem=scores, tr_labels=labels.astype(np.int32))
    return folder, tmp_path / "scores.npz", labels, scores, arrays


def listed(path, values):
    path.write_text(json.dumps(np.asarray(values).tolist()))
    return path


def analysis(folder, *options):
    output = folder.parent / "report"
    assert (
        main(["analyze", "--activations", str(folder), "--output", str(output), "--overwrite", *QUICK, *options]) == 0
    )
    return Analysis.load(output / "analysis")


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_labels_come_out_of_the_score_file(published, pooling):
    folder, file, labels, scores, arrays = published
    data = AnalysisData.from_activations(folder, scores=file, pooling=pooling)
    assert list(data.train) == ["conv1", "layer1", "layer4"] and data.provenance.pooling == pooling
    for layer, x in data.train.items():
        np.testing.assert_array_equal(x.numpy(), arrays["avg" if pooling == "average" else "max", layer])
    np.testing.assert_array_equal(data.examples.labels, labels)
    np.testing.assert_array_equal(data.scores.values, scores)


def test_the_command_reads_the_papers_files(published, capsys):
    folder, file, labels, scores, _ = published
    found = analysis(folder, "--memorization", str(file), "--pooling", "max", "--layers", "layer1", "layer4")
    np.testing.assert_array_equal(found.examples.labels, labels)
    np.testing.assert_array_equal(found.memorization.scores.values, scores)
    assert found.layer_names == ("layer1", "layer4") and found.provenance.pooling == "max"
    page = (folder.parent / "report" / "report.html").read_text()
    assert "max-pooled activations" in " ".join(page.split())


def test_the_command_reads_pickled_scores_if_it_may(published, capsys):
    folder, file, labels, scores, _ = published
    other = file.with_name("scores.pkl")
    other.write_bytes(pickle.dumps({"tr_mem": scores, "tr_labels": list(labels)}))
    options = ["analyze", "--activations", str(folder), "--memorization", str(other), *QUICK]
    options += ["--output", str(folder.parent / "report")]
    assert main(options) == 1
    error = capsys.readouterr().err
    assert "holds Python objects" in error and "--allow-pickle" in error and error.count("\n") == 1
    assert main([*options, "--allow-pickle", "--layers", "layer4"]) == 0


def test_a_list_chooses_examples_and_another_gives_labels(rng, published):
    folder, file, labels, scores, arrays = published
    chosen = rng.permutation(N)[:120]
    options = ("--examples", str(listed(file.with_name("examples.json"), chosen)), "--layers", "layer4")
    found = analysis(folder, "--memorization", str(file), *options)
    np.testing.assert_array_equal(found.examples.labels, labels[chosen])
    np.testing.assert_array_equal(found.memorization.scores.values, scores[chosen])
    other = (labels + 1) % N_CLASSES
    found = analysis(folder, "--label-list", str(listed(file.with_name("labels.json"), other)), *options)
    np.testing.assert_array_equal(found.examples.labels, other[chosen])
    data = AnalysisData.from_activations(
        folder, scores=scores, labels=labels, flipped=labels == 2, examples=chosen, layers=["layer4"]
    )
    np.testing.assert_array_equal(data.train["layer4"].numpy(), arrays["avg", "layer4"][chosen])
    np.testing.assert_array_equal(data.examples.flipped, labels[chosen] == 2)
    np.testing.assert_array_equal(data.scores.values, scores[chosen])


def test_what_does_not_fit_is_told(published, capsys):
    folder, file, *_ = published
    too_many = listed(file.with_name("examples.json"), [0, N])
    for options, message in (
        (["--layers", "layer4"], "has no labels"),
        (["--memorization", str(file), "--examples", str(too_many)], f"has {N} rows"),
        (["--memorization", str(file), "--tokens", "class"], "--tokens asks for a network"),
        (["--memorization", str(file), "--noise-images", "3"], "--noise-images asks for a network"),
        (["--label-list", str(too_many)], "labels has shape (2,)"),
    ):
        status = main(
            ["analyze", "--activations", str(folder), "--output", str(folder.parent / "no"), *QUICK, *options]
        )
        error = capsys.readouterr().err
        assert status == 1 and message in error and error.count("\n") == 1


def test_an_experiment_takes_the_same_lists(rng, tmp_path):
    network = NetworkOptions(width=4, epochs=1)
    whole = Experiment.load(ImageOptions(image_size=8), network, tmp_path)
    n = len(whole.labels)
    chosen, labels = rng.permutation(n)[:300], rng.integers(0, 10, n)
    options = ImageOptions(
        image_size=8,
        examples=listed(tmp_path / "examples.json", chosen),
        label_list=listed(tmp_path / "labels.json", labels),
    )
    some = Experiment.load(options, network, tmp_path)
    np.testing.assert_array_equal(some.labels, labels[chosen])
    assert torch.equal(some.images.train, whole.images.train[chosen]) and some.n_examples == n
    np.testing.assert_array_equal(some.flipped, labels[chosen] != whole.images.train_labels.numpy()[chosen])
    with pytest.raises(ValueError, match=f"has {n} labels, but there are {n} examples|has 3 labels, but there are {n}"):
        Experiment.load(ImageOptions(label_list=listed(tmp_path / "x.json", [0, 1, 2])), network, tmp_path)
    with pytest.raises(OptionError, match="label_list has the labels and flip would change them: leave one of the two"):
        ImageOptions(label_list=tmp_path / "labels.json", flip=0.1)


def test_scores_of_the_whole_data_set_are_those_of_the_chosen_examples(rng, tmp_path):
    network = NetworkOptions(width=4, epochs=1, batch_size=256)
    chosen = rng.permutation(1437)[:700]
    options = ImageOptions("digits", image_size=8, examples=listed(tmp_path / "examples.json", chosen))
    experiment = Experiment.load(options, network, tmp_path / "runs")
    scores, labels = rng.uniform(0, 1, 1437), np.zeros(1437, np.int64)
    labels[chosen] = experiment.labels
    np.savez(tmp_path / "scores.npz", tr_mem=scores, tr_labels=labels)
    data = AnalysisData.from_experiment(
        experiment, scores=tmp_path / "scores.npz", pooling="max", noise_images=5, progress=False
    )
    np.testing.assert_array_equal(data.scores.values, scores[chosen])
    assert data.noise["layer4"].shape == (5, 32) and data.provenance.pooling == "max"
    average = AnalysisData.from_experiment(experiment, noise_images=5, progress=False)
    # After a ReLU the largest value is at least the mean.
    for layer in data.train:
        assert (data.train[layer] >= average.train[layer] - 1e-6).all()
        assert (data.noise[layer] >= average.noise[layer] - 1e-6).all()
    # The last stage puts out a single position.
    assert not torch.allclose(data.train["layer1"], average.train["layer1"])
