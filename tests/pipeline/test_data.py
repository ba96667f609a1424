"""Data of an analysis: from arrays, from folders, from a network; what does not fit is one sentence."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import fastdens as fd
from fastdens.pipeline import AnalysisData
from tests.pipeline.planted_groups import N_CLASSES, planted_groups


@pytest.fixture(scope="module")
def planted():
    return planted_groups()


@pytest.fixture(scope="module")
def folder(planted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    planted.save(folder)
    return folder


def test_a_folder_is_the_same_as_its_arrays(planted, folder):
    read = AnalysisData.from_activations(
        folder / "train", folder / "test", folder / "scores.npz", layers=["first", "deep"]
    )
    given = AnalysisData.from_activations(
        fd.activations.Activations(
            {layer: torch.from_numpy(x) for layer, x in planted.train.activations.items()},
            torch.from_numpy(planted.train.labels),
        ),
        planted.test.activations,
        planted.scores,
        test_labels=planted.test.labels,
        class_names=[f"class-{c}" for c in range(N_CLASSES)],
        name="mine",
    )
    assert list(read.train) == list(given.train) == ["first", "deep"]
    for layer in read.train:
        assert torch.equal(read.train[layer], given.train[layer]) and torch.equal(read.test[layer], given.test[layer])
    for one, other in ((read.examples, given.examples),):
        assert one.class_names == other.class_names
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.test_labels, other.test_labels)
    np.testing.assert_array_equal(read.scores.values, given.scores.values)
    assert read.provenance.name == read.provenance.activations == str(folder / "train")
    assert read.scores.source == str(folder / "scores.npz") and given.scores.source is None
    assert given.provenance.name == "mine" and given.provenance.activations is None


def test_layers_may_be_chosen_and_come_in_that_order(folder):
    assert list(AnalysisData.from_activations(folder / "train", layers=["deep"]).train) == ["deep"]
    assert list(AnalysisData.from_activations(folder / "train").train) == ["deep", "first"]


def test_classes_have_numbers_for_names_where_there_are_no_others(planted):
    data = AnalysisData.from_activations(planted.train.activations, labels=planted.train.labels)
    assert data.examples.class_names == tuple(map(str, range(N_CLASSES)))
    np.testing.assert_array_equal(data.class_sizes, np.bincount(planted.train.labels))


x = np.zeros((6, 2), np.float32)
y = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": {"a": x}}, "train has no labels: pass labels, one for each of the 6 rows"),
        ({"train": {"a": x}, "labels": np.where(y, y, np.nan)}, r"labels has a missing label \(NaN\) in row 0"),
        ({"train": {"a": x}, "labels": np.ma.array(y, mask=y > 1)}, "labels has a masked value in row 2 and 2 in all"),
        ({"train": {"a": np.ma.array(x, mask=x == 0)}, "labels": y}, "layer 'a' of train has a masked value in row 0"),
        ({"train": {"a": x.astype(str)}, "labels": y}, "layer 'a' of train holds strings"),
        ({"train": x, "labels": y}, "activations of train are ndarray: pass a folder"),
        ({"train": {"a": x[:0]}, "labels": y[:0]}, r"layer 'a' of train has shape \(0, 2\)"),
        ({"train": {"a": x}, "labels": y[:-1]}, r"labels has shape \(5,\), but there are 6 examples"),
        ({"train": {"a": x}, "labels": y / 2}, "labels has the label 0.5 in row 1, but labels are integers or names"),
        ({"train": {"a": x, "b": x[1:]}, "labels": y}, r"layer 'b' of train has shape \(5, 2\)"),
        ({"train": {"a": x[0]}, "labels": y}, r"layer 'a' of train has shape \(2,\)"),
        ({"train": {}, "labels": y}, "train has no layer"),
        (
            {"train": {"deep": x}, "labels": y, "layers": ["deap"]},
            "train has no layer 'deap': the nearest names are 'deep'",
        ),
        ({"train": {"a": x}, "labels": y, "test": {"b": x}, "test_labels": y}, "test has no layer 'a'"),
        (
            {"train": {"a": x}, "labels": y, "test": {"a": x[:, :1]}, "test_labels": y},
            "layer 'a' has 1 features in test, but 2 in train: extract both from one network",
        ),
        (
            {"train": {"a": x}, "labels": y, "test": {"a": x}, "test_labels": y + 1},
            "test has the label 3 in row 2, which is none of the classes 0, 1, 2 of the training labels",
        ),
        ({"train": {"a": x}, "labels": y, "class_names": ["one"]}, "class_names has 1 names, but labels run to 2"),
        ({"train": {"a": x}, "labels": y, "scores": y[1:] / 2}, r"scores has shape \(5,\), but there are 6 examples"),
        ({"train": {"a": x}, "labels": y, "class_names": "four"}, "class_names is 'four'"),
        ({"train": {"a": x}, "labels": y - 9, "class_names": ["a", "b"]}, "2 names, but there are 3 classes"),
        ({"train": {"a": x}, "labels": y, "flipped": y}, "flipped is 2 for example 2: pass True or False"),
        ({"train": {"a": x}, "labels": y, "flipped": y[1:] > 1}, r"flipped has shape \(5,\), but there are 6 examples"),
    ],
)
def test_what_does_not_fit_is_one_sentence(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        AnalysisData.from_activations(**arguments)


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (y + 1, None, ("1", "2", "3")),
        (y * 10**12 - 5, None, ("-5", "999999999995", "1999999999995")),
        (y.astype(">i2") * 100, None, ("0", "100", "200")),
        (y.astype(np.float16), None, ("0", "1", "2")),
        (np.array(["bee", "cat", "dog"])[y], None, ("bee", "cat", "dog")),
        (np.array([b"bee", b"cat", b"dog"])[y], None, ("bee", "cat", "dog")),
        (np.array(["bee", "cat", "dog"])[y].tolist(), ["bee", "cat", "dog"], ("bee", "cat", "dog")),
        (y + 1, ["x", "y", "z"], ("x", "y", "z")),
    ],
)
def test_labels_of_any_kind_are_classes_with_names(labels, names, expected, tmp_path):
    data = AnalysisData.from_activations(
        {"a": x}, {"a": x}, y / 2, labels=labels, test_labels=labels[::-1], class_names=names
    )
    assert data.examples.class_names == expected and data.class_sizes.tolist() == [2, 2, 2]
    np.testing.assert_array_equal(data.examples.labels, y)
    np.testing.assert_array_equal(data.examples.test_labels, y[::-1])
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "labels.npy", labels)
    labels = np.asarray(labels) if np.asarray(labels).dtype.kind != "f" else y
    np.savez(tmp_path / "scores.npz", tr_mem=y / 2, tr_labels=labels)
    data = AnalysisData.from_activations(tmp_path, scores=tmp_path / "scores.npz", class_names=names)
    assert data.examples.class_names == expected and data.scores is not None
    np.testing.assert_array_equal(data.examples.labels, y)
    np.savez(tmp_path / "scores.npz", tr_mem=y / 2, tr_labels=labels[::-1])
    with pytest.raises(ValueError, match="labels differ"):
        AnalysisData.from_activations(tmp_path, scores=tmp_path / "scores.npz", class_names=names)


def test_labels_that_are_names_are_positions_among_names_given_in_their_order():
    data = AnalysisData.from_activations(
        {"a": x}, labels=np.array(["u", "v", "w"])[y], class_names=["w", "none", "v", "u"]
    )
    np.testing.assert_array_equal(data.examples.labels, np.array([3, 2, 0])[y])


def test_names_of_a_file_are_one_for_each_class(planted, tmp_path):
    planted.save(tmp_path)
    (tmp_path / "train" / "class_names.txt").write_text("one\ntwo")
    with pytest.raises(ValueError, match="has 2 lines, 2 of them different, but there are 24 classes"):
        AnalysisData.from_activations(tmp_path / "train")


def test_a_network_gives_the_activations_that_extract_gives(rng):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    images = torch.from_numpy(rng.normal(size=(30, 1, 8, 8)).astype(np.float32))
    labels = np.arange(30) % 3
    data = AnalysisData.from_network(
        network, images[:24], labels[:24], images[24:], labels[24:], layers=["0", "4"], progress=False
    )
    expected = fd.activations.extract(network, [images[:24]], ["0", "4"], progress=False).features
    assert list(data.train) == ["0", "4"] and all(torch.equal(data.train[name], expected[name]) for name in expected)
    assert {name: features.shape for name, features in data.test.items()} == {"0": (6, 4), "4": (6, 3)}
    np.testing.assert_array_equal(data.examples.train_predicted, expected["4"].argmax(1).numpy())
    accuracy = (data.examples.test_predicted == labels[24:]).mean()
    assert data.examples.test_accuracy == accuracy
    assert data.provenance.network == data.provenance.name == "Sequential" and torch.equal(data.images, images[:24])
    with pytest.raises(ValueError, match="test has no labels"):
        AnalysisData.from_network(network, images, labels, images, layers=["0"], progress=False)


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        lambda network: torch.compile(network, backend="eager"),
        lambda network: network.bfloat16(),
        lambda network: network.train(),
    ],
)
def test_a_network_is_analysed_as_it_is_and_left_so(rng, wrap):
    blocks = nn.Sequential(
        *[nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True)) for _ in range(6)]
    )
    network = wrap(nn.Sequential(OrderedDict(blocks=blocks, head=nn.Linear(5, 3))))
    images = torch.from_numpy(rng.normal(size=(12, 5)).astype(np.float32))
    modes, labels = [module.training for module in network.modules()], np.arange(12) % 3
    data = AnalysisData.from_network(network, images, labels, progress=False)
    assert list(data.train) == ["blocks.0", "blocks.2", "blocks.3", "blocks.5"]
    assert data.provenance.network == "Sequential"
    assert [module.training for module in network.modules()] == modes
    expected = fd.activations.extract(network, [images], ["head"], progress=False).features["head"]
    np.testing.assert_array_equal(data.examples.train_predicted, expected.argmax(1).numpy())
    torch.compiler.reset()
