"""Images of every source, in the layouts that they are published in, and what is said of those that are missing."""

from __future__ import annotations

import hashlib
import pickle
import socket
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastdens.training import images as module
from fastdens.training.datasets.images import load_images

datasets = pytest.importorskip("torchvision").datasets


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_arguments):
        pytest.fail("something was to be downloaded")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def save_images(folder, n, rng, size=(9, 7), value=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8) if value is None else np.full((*size, 3), value)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")


def test_digits_are_standardized_whatever_their_size(seed):
    for image_size, shape in ((None, 16), (8, 8)):
        images = load_images("digits", None, image_size, seed)
        assert images.train.shape == (1437, 1, shape, shape) and images.test.shape == (360, 1, shape, shape)
        assert images.train.dtype == torch.float32 and images.long_tailed is None
        assert abs(float(images.train.mean())) < 1e-5 and float(images.train.std()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(images.train, load_images("Digits", None, 8, seed).train)
    assert not torch.equal(images.train, load_images("digits", None, 8, seed + 1).train)


def test_glyphs_are_those_of_the_generator(seed, monkeypatch):
    small = {"n_classes": 5, "n_train": 12, "n_test": 4}
    generate = module.glyphs
    monkeypatch.setattr(module, "glyphs", lambda **options: generate(**small, **options))
    images = load_images("glyphs100", None, 8, seed, long_tailed=["B", "E"])
    expected = generate(**small, image_size=8, seed=seed, long_tailed=[1, 4])
    assert images.long_tailed.tolist() == [False, True, False, False, True]
    assert images.class_names == tuple("ABCDE") and torch.equal(images.train_labels, expected.labels)
    pixels = torch.cat([images.train, images.test]).double()
    raw = torch.cat([expected.train, expected.test]).double()
    for c in range(3):
        assert float(torch.corrcoef(torch.stack([pixels[:, c].flatten(), raw[:, c].flatten()]))[0, 1]) > 1 - 1e-6
    assert int(load_images("Glyphs100", None, None, seed).long_tailed.sum()) == 1
    assert load_images("glyphs100", None, None, seed, long_tailed=()).train.shape == (60, 3, 32, 32)
    with pytest.raises(ValueError, match="long_tailed is for glyphs100, but the data set is digits"):
        load_images("digits", None, None, seed, long_tailed=[1])


def test_folders_of_training_and_test_images(tmp_path, rng):
    for part, n in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            save_images(tmp_path / part / name, n, rng)
    images = load_images(str(tmp_path), None, 12, 0)
    assert images.train.shape == (6, 3, 12, 12) and images.test.shape == (4, 3, 12, 12)
    assert images.class_names == ("cat", "dog") and images.test_labels.tolist() == [0, 0, 1, 1]
    # Without a size images are as they are, and a test folder without classes (ImageNet's) is none.
    save_images(tmp_path / "test", 3, rng)
    images = load_images(str(tmp_path), None, None, 0)
    assert images.train.shape == (6, 3, 9, 7)
    pixels = torch.from_numpy(np.array(Image.open(tmp_path / "train" / "dog" / "1.png"))).permute(2, 0, 1)
    torch.testing.assert_close((images.train * images.std + images.mean)[4], pixels / 255, rtol=1e-5, atol=1e-5)
    (tmp_path / "val" / "emu").mkdir()
    with pytest.raises(FileNotFoundError, match="'emu' has no images"):
        load_images(str(tmp_path), None, 12, 0)
    save_images(tmp_path / "val" / "emu", 1, rng)
    with pytest.raises(ValueError, match="'emu' is in one of train and val only"):
        load_images(str(tmp_path), None, 12, 0)


def test_a_validation_folder_without_classes_is_not_passed_over(tmp_path, rng):
    save_images(tmp_path / "train" / "cat", 4, rng)
    save_images(tmp_path / "val", 4, rng)
    with pytest.raises(FileNotFoundError, match="val has no folders of images"):
        load_images(str(tmp_path), None, 12, 0)


def test_images_are_resized_by_their_middle_square(tmp_path, rng):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 8:22] = 255  # reduction reads a little beyond the square
    for name in ("a", "b"):
        save_images(tmp_path / "train" / name, 1, rng)
        save_images(tmp_path / "test" / name, 1, rng)
    Image.fromarray(pixels).save(tmp_path / "train" / "a" / "0.png")
    white = load_images(str(tmp_path), None, 5, 0).train[0]
    assert float((white - white[:, :1, :1]).abs().max()) == 0


def test_images_of_different_sizes_and_files_that_are_no_images(tmp_path, rng):
    for part in ("train", "test"):
        save_images(tmp_path / part / "a", 2, rng)
    save_images(tmp_path / "train" / "a", 1, rng, (8, 7))
    with pytest.raises(ValueError, match=r"8 x 7 and 9 x 7 .image 1.: pass image_size"):
        load_images(str(tmp_path), None, None, 0)
    (tmp_path / "train" / "a" / "1.png").write_bytes(b"nothing")
    with pytest.raises(OSError, match=r"1\.png cannot be read as an image"):
        load_images(str(tmp_path), None, 4, 0)


def test_images_that_memory_would_not_hold(tmp_path, rng, monkeypatch):
    for part in ("train", "test"):
        save_images(tmp_path / part / "a", 2, rng)
    monkeypatch.setattr(module, "_LARGEST", 4 * 3 * 9 * 7 * 4)
    load_images(str(tmp_path), None, None, 0)
    monkeypatch.setattr(module, "_LARGEST", 4 * 3 * 9 * 7 * 4 - 1)
    with pytest.raises(ValueError, match=r"4 images of 3 x 9 x 7.* or extract activations"):
        load_images(str(tmp_path), None, None, 0)


def mini_imagenet(folder, rng, parts):
    """Every class has a grey of its own, so that images and labels can be told to belong together."""
    values = {name: 10 * c for c, name in enumerate(name for names in parts.values() for name in names)}
    for part, names in parts.items():
        rows = []
        for name in names:
            for i in range(12):
                rows.append((f"{name}{i:04d}.png", name))
                (folder / "images").mkdir(exist_ok=True)
                Image.fromarray(np.full((6, 6, 3), values[name] + i % 3, np.uint8)).save(
                    folder / "images" / rows[-1][0]
                )
        order = rng.permutation(len(rows))
        lines = ["filename,label", *(",".join(rows[i]) for i in order)]
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
    return values


def test_mini_imagenet_is_pooled_and_each_class_divided(tmp_path, rng, seed):
    values = mini_imagenet(tmp_path, rng, {"train": ["n03", "n01"], "val": ["n04"], "test": ["n02", "n05"]})
    images = load_images(str(tmp_path), None, None, seed)
    assert images.class_names == ("n01", "n02", "n03", "n04", "n05")
    assert torch.bincount(images.train_labels).tolist() == [10] * 5
    assert torch.bincount(images.test_labels).tolist() == [2] * 5
    grey = torch.cat([images.train, images.test])[:, 0, 0, 0]
    labels = torch.cat([images.train_labels, images.test_labels])
    order = [images.class_names[c] for c in torch.stack([grey[labels == c].mean() for c in range(5)]).argsort()]
    assert order == sorted(values, key=values.get)
    assert torch.equal(images.train, load_images(str(tmp_path), None, None, seed).train)
    image = tmp_path / "images" / "n010003.png"
    image.unlink()
    with pytest.raises(FileNotFoundError, match=r"n010003\.png, which train\.csv lists, is missing"):
        load_images(str(tmp_path), None, None, seed)
    (tmp_path / "train.csv").write_text("file,label\n")
    with pytest.raises(ValueError, match="it must have filename and label"):
        load_images(str(tmp_path), None, None, seed)
    (tmp_path / "train.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"put train\.csv, val\.csv and test\.csv"):
        load_images(str(tmp_path), None, None, seed)


def test_folders_of_other_classes_in_test_and_folders_of_classes_alone(tmp_path, rng, seed):
    for part, name in (("train", "a"), ("val", "b"), ("test", "c")):
        save_images(tmp_path / "few-shot" / part / name, 6, rng)
    images = load_images(str(tmp_path / "few-shot"), None, None, seed)
    assert images.class_names == ("a", "b", "c") and images.test_labels.tolist() == [0, 1, 2]
    for name, n in (("x", 2), ("y", 13)):
        save_images(tmp_path / "plain" / name, n, rng)
    images = load_images(str(tmp_path / "plain"), None, None, seed)
    assert images.class_names == ("x", "y") and images.test_labels.tolist() == [0, 1, 1]
    assert len(images.train) == 12
    save_images(tmp_path / "plain" / "z", 1, rng)
    with pytest.raises(ValueError, match="the class 'z' has 1 images"):
        load_images(str(tmp_path / "plain"), None, None, seed)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no images: put one folder of images a class"):
        load_images(str(tmp_path / "empty"), None, None, seed)


def cifar100(root, rng, monkeypatch):
    """CIFAR100's archive with few images, and torchvision told its checksum."""
    folder = root / "cifar-100-python"
    folder.mkdir()
    contents = {}
    for part, n in (("train", 30), ("test", 10)):
        data, labels = rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 100, n).tolist()
        contents[part] = data, labels
        (folder / part).write_bytes(pickle.dumps({"data": data, "fine_labels": labels}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {c}" for c in range(100)]}))
    archive = root / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)

    def checksum(file):
        return hashlib.md5(file.read_bytes()).hexdigest()

    kind = datasets.CIFAR100
    for part in ("train", "test"):
        monkeypatch.setattr(kind, f"{part}_list", [[part, checksum(folder / part)]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": checksum(folder / "meta")})
    monkeypatch.setattr(kind, "tgz_md5", checksum(archive))
    return folder, archive, contents


def test_cifar100_is_read_and_its_archive_unpacked(tmp_path, rng, monkeypatch):
    folder, archive, contents = cifar100(tmp_path, rng, monkeypatch)
    for unpacked in (True, False):
        if not unpacked:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        images = load_images("cifar100", tmp_path, None, 0)
        assert images.class_names[:2] == ("class 0", "class 1") and len(images.class_names) == 100
        for part, pixels, labels in (
            ("train", images.train, images.train_labels),
            ("test", images.test, images.test_labels),
        ):
            assert labels.tolist() == contents[part][1]
            raw = contents["train"][0].reshape(-1, 3, 32, 32) / 255
            mean, std = (f(raw, (0, 2, 3), keepdims=True) for f in (np.mean, np.std))
            expected = (contents[part][0].reshape(-1, 3, 32, 32) / 255 - mean) / std
            np.testing.assert_allclose(pixels.numpy(), expected, rtol=1e-3, atol=1e-3)
    (folder / "train").unlink()
    archive.write_bytes(archive.read_bytes()[:-9])
    with pytest.raises(FileNotFoundError, match=r"cifar-100-python\.tar\.gz is not whole"):
        load_images("CIFAR100", tmp_path, None, 0)


def test_missing_files_are_named_and_where_to_put_them(tmp_path):
    def error_of(name):
        with pytest.raises(FileNotFoundError) as error:
            load_images(name, tmp_path, 32, 0)
        return str(error.value)

    assert error_of("CIFAR100") == (
        "CIFAR100's files are missing: put cifar-100-python.tar.gz (or the folder cifar-100-python that it unpacks to) "
        f"in {tmp_path}."
    )
    for name, file, folder in (
        ("CIFAR10", "cifar-10-python.tar.gz", "."),
        ("SVHN", "train_32x32.mat", "."),
        ("STL10", "stl10_binary.tar.gz", "."),
        ("Food101", "food-101.tar.gz", "."),
        ("MNIST", "train-images-idx3-ubyte.gz", "MNIST/raw"),
        ("GTSRB", "GTSRB-Training_fixed.zip", "gtsrb"),
        ("DTD", "dtd-r1.0.1.tar.gz", "dtd"),
        ("Flowers102", "102flowers.tgz", "flowers-102"),
        ("OxfordIIITPet", "images.tar.gz", "oxford-iiit-pet"),
        ("Imagenette", "imagenette2.tgz", "."),
        ("PCAM", "camelyonpatch_level_2_split_train_x.h5.gz", "pcam"),
    ):
        if name == "PCAM":
            pytest.importorskip("h5py")
        assert f"put {file}" in error_of(name) and error_of(name).endswith(f" in {tmp_path / folder}.")
    assert "ILSVRC2012_devkit_t12.tar.gz" in error_of("ImageNet")


def test_splits_of_torchvision(tmp_path, rng, seed):
    scipy_io = pytest.importorskip("scipy.io")
    for part, n in (("train", 7), ("test", 5)):
        pixels = rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        labels = np.arange(1, n + 1)[:, None] % 10 + 1
        scipy_io.savemat(tmp_path / f"{part}_32x32.mat", {"X": pixels, "y": labels})
    with pytest.MonkeyPatch.context() as patch:
        sums = {p: hashlib.md5((tmp_path / f"{p}_32x32.mat").read_bytes()).hexdigest() for p in ("train", "test")}
        patch.setattr(datasets.SVHN, "split_list", {p: ["", f"{p}_32x32.mat", sums[p]] for p in sums})
        images = load_images("svhn", tmp_path, None, seed)
    assert images.train.shape == (7, 3, 32, 32) and images.test_labels.tolist() == [2, 3, 4, 5, 6]
    # train and val, images of different sizes, classes named by WordNet.
    for part in ("train", "val"):
        for c, wnid in enumerate(datasets.Imagenette._WNID_TO_CLASS):
            save_images(tmp_path / "imagenette2" / part / wnid, 2, rng, (20 + c, 30))
    for file in (tmp_path / "imagenette2").rglob("*.png"):
        file.rename(file.with_suffix(".JPEG"))
    images = load_images("Imagenette", tmp_path, 16, seed)
    assert images.train.shape == (20, 3, 16, 16) and images.test_labels.tolist() == sorted([*range(10)] * 2)
    assert images.class_names[0] == "n01440764"
    # Neither: each class is divided.
    for name in ("AnnualCrop", "Forest"):
        save_images(tmp_path / "eurosat" / "2750" / name, 6, rng)
    images = load_images("EuroSAT", tmp_path, None, seed)
    assert images.class_names == ("AnnualCrop", "Forest") and images.test_labels.tolist() == [0, 1]


def test_data_sets_without_classes(tmp_path):
    for name in ("CocoDetection", "FakeData", "PhotoTour"):
        with pytest.raises(ValueError, match=f"{name} is not a data set of images and their classes"):
            load_images(name, tmp_path, None, 0)
    with pytest.raises(ValueError, match="no split of train or trainval"):
        load_images("Places365", tmp_path, None, 0)


@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [("cifar_100", "CIFAR100"), ("fashion-mnist", "FashionMNIST"), ("digit", "digits"), ("glyphs10", "glyphs100")],
)
def test_misspelt_names(misspelt, nearest):
    with pytest.raises(ValueError, match=f"nearest names are .*'{nearest}'"):
        load_images(misspelt, Path(), None, 0)
