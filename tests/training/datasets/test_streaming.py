"""Images that stay in their files: the bits of those in memory, files that change, are damaged or take their reader."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastdens.pipeline.extraction import extract_features
from fastdens.training import build_network, predict, train
from fastdens.training.datasets import files, load_images
from fastdens.training.runs import Recipe, load_predictions, subset_runs, train_runs
from tests.training.datasets.image_files import save_images

pytest.importorskip("torchvision")

pytestmark = pytest.mark.usefixtures("one_thread")

WAYS = [{"stream": True, "workers": 0}, {"stream": True, "workers": 2}]


@pytest.fixture
def folder(tmp_path, rng):
    """Two classes, 21 training and 8 test images, PNG in colour, JPEG and grey."""
    root = tmp_path / "photographs"
    for part, n in (("train", 9), ("test", 4)):
        for name in ("cat", "dog"):
            save_images(root / part / name, n, rng, (10, 14))
    save_images(root / "train" / "cat" / "deep", 3, rng, (14, 10))
    for i, file in enumerate(sorted(root.rglob("*.png"))[::3]):
        image = Image.open(file)
        (image.convert("L") if i % 2 else image).save(file.with_suffix(".jpg"))
        file.unlink()
    return root


def load(folder, size=8, **options):
    return load_images(str(folder), None, size, 0, **options)


def small_network(dropout=False):
    """A ResNet; with dropout, which draws from torch's global generator."""
    torch.manual_seed(0)
    network = build_network("resnet18", 2, 3, width=4)
    return nn.Sequential(network, nn.Dropout(0.3)) if dropout else network


@pytest.mark.parametrize("way", WAYS)
def test_a_network_and_its_activations_are_those_of_images_in_memory(folder, way):
    held, streamed = load(folder), load(folder, **way)
    assert streamed.train.shape == held.train.shape and len(streamed.train) == 21
    for name in ("train_labels", "test_labels", "mean", "std"):
        assert torch.equal(getattr(streamed, name), getattr(held, name)), name
    found = []
    for images in (held, streamed):
        model = small_network(dropout=True)
        generator = torch.Generator().manual_seed(1)
        options = {"epochs": 2, "batch_size": 6, "noise": 0.1, "examples": torch.arange(20, 1, -1)}
        train(model, images.train, held.train_labels, **options, generator=generator, progress=False)
        predicted = predict(model, images.test, 3)
        features = extract_features(model, images.test, ["0.layer1", "0.layer4"], progress=False)
        found.append([*model.state_dict().values(), predicted, *features.values(), torch.rand(3)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_those_of_the_tensor(folder, way):
    held, streamed = load(folder), load(folder, **way)
    for rows in (np.array([20, 0, 3]), torch.tensor([], dtype=torch.int64), held.train_labels == 1, slice(2, 9, 3), 4):
        assert torch.equal(streamed.train[rows], held.train[rows]), rows
    rows = np.array([7, 19, 2])
    some, few = held.of_examples(rows), streamed.of_examples(rows)
    assert torch.equal(few.train[:], some.train) and torch.equal(few.train_labels, some.train_labels)
    assert some.digests.fingerprint(some.train_labels) == few.digests.fingerprint(few.train_labels)
    assert some.digests.fingerprint(some.train_labels) != held.digests.fingerprint(held.train_labels)


def test_mean_and_deviation_are_exact(folder):
    images = load(folder, stream=True, workers=0)
    pixels = (images.train[:].double() * images.std + images.mean) * 255
    assert float((pixels - pixels.round()).abs().max()) < 1e-3
    values = pixels.round().numpy() / 255
    np.testing.assert_allclose(images.mean[0, :, 0, 0], values.mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(images.std[0, :, 0, 0], values.std((0, 2, 3), ddof=1), rtol=1e-7)


def test_classes_of_one_folder_are_divided_alike(folder):
    held, streamed = load(folder / "train"), load(folder / "train", stream=True, workers=0)
    assert torch.equal(streamed.train[:], held.train) and torch.equal(streamed.test[:], held.test)
    assert torch.equal(streamed.test_labels, held.test_labels) and len(held.test) == 4


class Counting:
    """Counts the images that are decoded, and stops after so many."""

    def __init__(self, monkeypatch, most=10**9):
        self.n, self.most, decode = 0, most, files.ImageFiles.__getitem__

        def counted(own, item):
            if self.n == self.most:
                raise KeyboardInterrupt
            self.n += 1
            return decode(own, item)

        monkeypatch.setattr(files.ImageFiles, "__getitem__", counted)


def test_what_one_pass_found_is_kept_until_a_file_changes(folder, tmp_path, monkeypatch):
    def reload():
        counting = Counting(monkeypatch)
        images = load(folder, stream=True, workers=0, survey_folder=tmp_path / "runs")
        return images.digests.fingerprint(images.train_labels), counting.n

    # One image is always decoded, for its size.
    first, n = reload()
    assert n == 1 + 29 and reload() == (first, 1)
    file = next(folder.rglob("train/dog/*.png"))
    os.utime(file, (0, 0))
    assert reload() == (first, 30)
    Image.new("RGB", (14, 10), "red").save(file)
    changed, n = reload()
    assert changed != first and n == 30


def test_an_interrupted_pass_goes_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("fastdens.training.datasets.survey._IMAGES_AT_ONCE", 4)
    options = {"stream": True, "workers": 0, "survey_folder": tmp_path / "runs"}
    with monkeypatch.context() as patch:
        Counting(patch, 1 + 24)
        with pytest.raises(KeyboardInterrupt):
            load(folder, **options)
    counting = Counting(monkeypatch)
    images = load(folder, **options)
    # Of 21 training images and 3 tests, the last 3 were not a whole block.
    assert counting.n == 1 + 8
    held = load(folder)
    for one, other in zip(images.digests, held.digests, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_changes_goes_or_is_damaged_is_named(folder, way):
    images = load(folder, **way)
    changed, gone, damaged = sorted((folder / "test" / "dog").iterdir())[:3]
    Image.new("RGB", (14, 10), "red").save(changed)
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:60])
    model = small_network().eval()
    for row, file, error, message in (
        (4, changed, ValueError, "has changed since the images of .* were first read: delete images-"),
        (5, gone, FileNotFoundError, "is missing: put it there"),
        (6, damaged, OSError, "cannot be read as an image"),
    ):
        for use in (predict, lambda model, x: extract_features(model, x, ["layer1"], progress=False)):
            with pytest.raises(error, match=f"^{re.escape(str(file))} {message}") as caught:
                use(model, images.test.select(np.array([0, row])))
            assert "\n" not in str(caught.value)


def test_a_reader_that_is_killed_is_one_sentence(folder, monkeypatch):
    images, main = load(folder, stream=True, workers=2), os.getpid()
    decode = files.ImageFiles.__getitem__

    def killed(own, item):
        if item == 5 and os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(own, item)

    monkeypatch.setattr(files.ImageFiles, "__getitem__", killed)
    with pytest.raises(ChildProcessError, match=r"decodes images of .* ended \(DataLoader worker .*\): call") as caught:
        predict(small_network(), images.train, 4)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_networks_of_several_processes_go_on_whether_or_not_images_are_streamed(folder, tmp_path):
    held, streamed = load(folder), load(folder, **WAYS[1])
    runs, recipe = subset_runs(2, 21, seed=4), Recipe(width=4, epochs=1, batch_size=8)
    options = {"device": "cpu", "progress": False}
    torch.set_num_threads(2)
    train_runs(tmp_path / "a", streamed, held.train_labels, runs, recipe, processes=2, **options)
    torch.set_num_threads(1)
    train_runs(tmp_path / "b", held, held.train_labels, runs, recipe, **options)
    names = [run.name for run in runs]
    for name in names:
        one, other = (load_predictions(tmp_path / place, name) for place in "ab")
        assert torch.equal(one.train_predicted, other.train_predicted)
        assert torch.equal(one.test_predicted, other.test_predicted)
    before = {place: [(tmp_path / place / f"{name}.safetensors").read_bytes() for name in names] for place in "ab"}
    for place, images in (("a", held), ("b", streamed)):
        train_runs(tmp_path / place, images, held.train_labels, runs, recipe, **options)
        assert [(tmp_path / place / f"{name}.safetensors").read_bytes() for name in names] == before[place]
        with pytest.raises(ValueError, match="is a training run of other images or labels"):
            train_runs(tmp_path / place, images, held.train_labels.flip(0), runs, recipe, **options)
    save_images(folder / "train" / "cat", 1, np.random.default_rng(5), (10, 14))
    for place, other in (("a", load(folder)), ("b", load(folder, **WAYS[0]))):
        labels = other.train_labels
        n = len(labels)
        with pytest.raises(ValueError, match="is a training run of other images or labels"):
            train_runs(tmp_path / place, other, labels, subset_runs(2, n, seed=4), recipe, **options)


def test_only_images_in_files_of_their_own_are_streamed():
    with pytest.raises(ValueError, match="stream is for images in files of their own, which digits does not have"):
        load_images("digits", None, None, 0, stream=True)


# Peaks are those since the start, in KiB: of the process, and of the largest of those that decode.
PROGRAM = """
import resource, sys
import numpy as np, torch
from torch import nn
from fastdens.pipeline.data import extract_features
from fastdens.training import predict, train
from fastdens.training.datasets import load_images

torch.set_num_threads(1)
torch.manual_seed(0)
pooled = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
model = nn.Sequential(pooled, nn.Linear(8, 2))

def peaks(images):
    rows, generator = torch.arange(32, len(images.train)), torch.Generator().manual_seed(0)
    train(model, images.train, images.train_labels, epochs=1, examples=rows, generator=generator, progress=False)
    features = extract_features(model, images.train, ["0"], progress=False)["0"]
    assert features.shape == (len(images.train), 8) and torch.isfinite(features).all()
    return np.array([resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)])

few, many = (load_images(folder, None, None, 0, stream=True, workers=2) for folder in sys.argv[1:])
before = peaks(few)
print(4 * many.train.shape.numel() / 1024, *(peaks(many) - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere peaks have another unit")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, rng):
    for folder, n_images in (("few", 300), ("many", 1500)):
        for part, n in (("train", n_images), ("test", 2)):
            for name in "ab":
                target = tmp_path / folder / part / name
                save_images(target, 1, rng, (128, 128), value=100)
                for i in range(1, n // 2):
                    os.link(target / "0.png", target / f"{i}.png")
    folders = [str(tmp_path / folder) for folder in ("few", "many")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *folders], capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert done.returncode == 0, done.stderr
    decoded, own, other = map(float, done.stdout.split())
    print(decoded, own, other)
    assert decoded > 5 * own and decoded > 5 * other
