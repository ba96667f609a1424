"""Folders of arrays: what is no data is passed over, and what cannot be read is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastdens.io.activation_files import read_activations


@pytest.fixture
def folder(tmp_path, rng):
    for name in ("layer2", "layer10"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(6, 3)).astype(">f4"))
    np.save(tmp_path / "labels.npy", np.array(["ant", "bee"])[np.arange(6) % 2])
    return tmp_path


def test_what_is_no_data_is_passed_over(folder):
    for name in ("._layer2.npy", ".DS_Store", "Thumbs.db", "notes.txt", ".hidden.npy"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    (folder / ".ipynb_checkpoints").mkdir()
    features, labels, _ = read_activations(folder)
    assert list(features) == ["layer2", "layer10"] and labels.tolist() == ["ant", "bee"] * 3
    assert all(x.dtype == torch.float32 and x.shape == (6, 3) for x in features.values())


def test_a_file_of_half_precision_has_labels_of_its_own(tmp_path):
    save_file({"a": torch.ones(4, 2).bfloat16(), "labels": torch.tensor([5, 7, 5, 10**12])}, tmp_path / "x.safetensors")
    features, labels, _ = read_activations(tmp_path / "x.safetensors")
    assert features["a"].dtype == torch.bfloat16 and labels.tolist() == [5, 7, 5, 10**12]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("layer2.npy", np.zeros((6, 3, 2)), r"layer 'layer2' in .* has shape \(6, 3, 2\)"),
        ("layer2.npy", np.float64(1), r"layer 'layer2' in .* has shape \(\)"),
        ("layer10.npy", np.zeros((6, 0)), r"layer 'layer10' in .* has shape \(6, 0\)"),
        ("layer10.npy", np.zeros((5, 3)), r"layer 'layer10' in .* has shape \(5, 3\), but activations are \[6, D\]"),
        ("labels.npy", np.full(6, np.nan), r"labels\.npy has a missing label \(NaN\) in row 0"),
        ("labels.npy", np.arange(6) / 2, r"labels\.npy has the label 0\.5 in row 1"),
        ("labels.npy", np.zeros(6, complex), r"labels\.npy holds complex numbers"),
        ("labels.npy", np.eye(6), r"labels\.npy has shape \(6, 6\), but there are 6 examples"),
        ("labels.npy", np.full(6, None), r"labels\.npy holds Python objects"),
        ("layers.json", b'["layer2", "layer3"]', r"lacks the layer 'layer3' that its layers\.json names"),
        ("layers.json", b'["layer2", "layer2"]', r"layers\.json names a layer twice"),
        ("layers.json", b"\xff", r"layers\.json is no list of the names"),
        ("layers.json", b"3", r"layers\.json is no list of the names"),
        ("layer%32.npy", np.zeros((6, 3)), "has the layer 'layer2', as another file"),
    ],
)
def test_what_cannot_be_read_is_named(folder, name, content, message):
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        np.save(folder / name, content, allow_pickle=True)
    with pytest.raises(ValueError, match=message) as caught:
        read_activations(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_single_array_is_not_a_folder(folder):
    with pytest.raises(ValueError, match="pass the folder"):
        read_activations(folder / "layer2.npy")
    with pytest.raises(FileNotFoundError, match="holds no activations"):
        read_activations(folder / "nowhere")


@pytest.fixture
def published(rng, tmp_path):
    """Files called as those of the paper."""
    arrays = {
        f"{kind}_pooling_{layer}_acts": rng.normal(size=(6, 4 + len(layer))).astype(np.float32)
        for kind in ("avg", "max")
        for layer in ("layer2", "conv1", "layer1")
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "other.npy", np.zeros((3, 2)))
    return tmp_path, arrays


@pytest.mark.parametrize(("pooling", "short"), [("average", "avg"), ("max", "max")])
def test_the_papers_files_are_read_by_their_pooling(published, pooling, short):
    folder, arrays = published
    features, labels, found = read_activations(folder, pooling)
    assert list(features) == ["conv1", "layer1", "layer2"] and labels is None and found == pooling
    for layer, x in features.items():
        np.testing.assert_array_equal(x.numpy(), arrays[f"{short}_pooling_{layer}_acts"])


def test_a_pooling_that_is_not_there_is_told(published, folder):
    for file in published[0].glob("max_*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"has no file max_pooling_LAYER_acts.npy, only avg_pooling_conv1_acts.npy"):
        read_activations(published[0], "max")
    (published[0] / "other.npy").unlink()
    for file in published[0].glob("avg_*"):
        file.rename(file.with_name(file.name.removeprefix("avg_pooling_")))
    with pytest.raises(ValueError, match="does not say how its activations were pooled: leave pooling out"):
        read_activations(published[0], "max")
