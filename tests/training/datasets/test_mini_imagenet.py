"""Mini-ImageNet as pickles: images, labels and the split are those of the files."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from fastdens.training.datasets import load_images
from fastdens.training.datasets.mini_imagenet import load_pickles

pytest.importorskip("PIL")


@pytest.fixture
def parts(rng):
    """Images of 3 classes, not in their order."""

    def part(n):
        labels = rng.permutation(np.arange(n) % 3)
        return {"data": rng.integers(0, 256, (n, 84, 84, 3), dtype=np.uint8), "labels": labels}

    return {"train": part(12), "test": part(5)}


def written(folder, parts, protocol=4):
    for name, content in parts.items():
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(content, protocol))
    return folder


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("form", ["array", "list", "objects", "bytes"])
def test_images_labels_and_the_split_are_those_of_the_files(tmp_path, parts, protocol, form):
    forms = {name: dict(part) for name, part in parts.items()}
    for part in forms.values():
        if form == "list":
            part |= {"data": list(part["data"]), "labels": part["labels"].tolist()}
        elif form == "objects":
            objects = np.empty(len(part["data"]), object)
            objects[:] = list(part["data"])
            part |= {"data": objects, "labels": list(part["labels"].astype(np.int32))}
        elif form == "bytes":
            part |= {b"data": part.pop("data"), b"labels": part.pop("labels")}
    found = load_pickles(written(tmp_path, forms, protocol), None, allow_pickle=True)
    for part, expected in ((found.train, parts["train"]), (found.test, parts["test"])):
        np.testing.assert_array_equal(part.images.numpy(), expected["data"].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(part.labels.numpy(), expected["labels"])
    assert found.class_names == ("0", "1", "2")


def test_the_data_set_is_its_folder(tmp_path, parts):
    written(tmp_path, parts)
    images = load_images(str(tmp_path), None, None, 0, allow_pickle=True)
    again = images.train * images.std + images.mean
    np.testing.assert_allclose(255 * again.numpy(), parts["train"]["data"].transpose(0, 3, 1, 2), atol=1e-3)
    torch.testing.assert_close(images.train.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    assert load_images(str(tmp_path), None, 32, 0, allow_pickle=True).test.shape == (5, 3, 32, 32)
    with pytest.raises(ValueError, match=r"train.pickle is a pickle: pass allow_pickle \(--allow-pickle"):
        load_images(str(tmp_path), None, None, 0)


def test_nothing_runs_and_what_does_not_fit_is_one_sentence(tmp_path, parts):
    class Runs:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    train, test = parts["train"], parts["test"]
    for content, message in (
        (train | {"x": Runs()}, "asks for 'posix.system', but only arrays"),
        ({"data": train["data"]}, "has no 'labels', it has"),
        ([1], "holds list, not a dict"),
        (train | {"labels": train["labels"][1:]}, "has shape .11,., but there are 12 images"),
        (train | {"labels": train["labels"] / 2}, "has the label .*5 in row"),
        (train | {"labels": train["labels"] - 1}, "are not integers from 0"),
        (train | {"labels": np.array(["a"] * 12)}, "are not integers from 0"),
        (train | {"data": train["data"] / 255}, "image 0 of .* is float64 .84, 84, 3.: write uint8 arrays"),
        (train | {"data": "x"}, "data of .* is str"),
        (train | {"data": [[1]] * 12}, "image 0 of .* is list"),
        (train | {"labels": np.arange(12) % 4}, "the class 3 is in one of train.pickle and test.pickle only"),
    ):
        written(tmp_path, {"train": content, "test": test})
        with pytest.raises(ValueError, match=message) as caught:
            load_pickles(tmp_path, None, allow_pickle=True)
        assert "\n" not in str(caught.value) and not (tmp_path / "ran").exists()
    written(tmp_path, {"train": train})
    (tmp_path / "test.pickle").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*test.pickle"):
        load_pickles(tmp_path, None, allow_pickle=True)
