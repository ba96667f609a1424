"""Folders of images in the layouts that data sets are published in."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from fastdens.training.datasets import load_images
from tests.training.datasets.image_files import save_images

torchvision = pytest.importorskip("torchvision")


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


def test_files_are_those_of_image_folder(tmp_path, rng):
    for folder in ("train/cat", "train/Dog", "train/emu", "test/cat", "test/Dog", "test/emu"):
        save_images(tmp_path / folder, 11, rng)
    (tmp_path / "train" / "cat" / "0.png").rename(tmp_path / "train" / "cat" / "0.PNG")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".hidden").mkdir()
    Image.fromarray(rng.integers(0, 256, (9, 7), dtype=np.uint8)).save(tmp_path / "train" / "cat" / "grey.bmp")
    images = load_images(str(tmp_path), None, None, 0)
    for part, found, labels in (
        ("train", images.train, images.train_labels),
        ("test", images.test, images.test_labels),
    ):
        expected = torchvision.datasets.ImageFolder(tmp_path / part, allow_empty=True)
        names = tuple(name for name in expected.classes if name != ".hidden")
        assert images.class_names == names == ("Dog", "cat", "emu")
        assert labels.tolist() == [names.index(expected.classes[c]) for _, c in expected.samples]
        pixels = torch.stack([torchvision.transforms.functional.pil_to_tensor(image) for image, _ in expected])
        assert torch.equal(found, pixels.float().div(255).sub(images.mean).div(images.std))


def test_images_of_folders_in_a_class_are_in_the_order_of_their_paths(tmp_path, rng):
    for part, folder in (("train", "a"), ("train", "a/deep"), ("test", "a")):
        save_images(tmp_path / part / folder, 1, rng)
    (tmp_path / "train" / "a" / "0.png").rename(tmp_path / "train" / "a" / "z.png")
    train = load_images(str(tmp_path), None, None, 0).train
    (tmp_path / "train" / "a" / "z.png").unlink()
    (tmp_path / "train" / "a" / "deep" / "0.png").rename(tmp_path / "train" / "a" / "a.png")
    assert torch.equal(train[0].argsort(), load_images(str(tmp_path), None, None, 0).train[0].argsort())


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
    with pytest.raises(FileNotFoundError, match=r"n010003\.png', which train\.csv lists, is missing"):
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


@pytest.mark.parametrize(
    "name", ["{}", "../secret.png", "../../secret.png", "a/../../secret.png", "a/b/../../../x.png"]
)
def test_a_list_names_files_of_its_folder_alone(tmp_path, rng, name):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    mini_imagenet(folder, rng, {"train": ["a", "b"], "test": ["a", "b"]})
    for place in (tmp_path, folder):
        Image.new("RGB", (6, 6)).save(place / "secret.png")
    with (folder / "train.csv").open("a") as stream:
        stream.write(f"{name.format(tmp_path / 'secret.png')},a\n")
    with pytest.raises(ValueError, match=r"train\.csv lists .*, which is not in .*images: list files of that folder"):
        load_images(str(folder), None, None, 0)


@pytest.mark.parametrize(
    "content", [b"filename,label\nx.png\n", b"filename,label\n\xff\xfe", b'filename,label\n"' + b"a" * 200_000]
)
def test_a_list_that_is_none_is_refused_by_name(tmp_path, content):
    (tmp_path / "images").mkdir()
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.csv (is no list of filename,label|has a line without)"):
        load_images(str(tmp_path), None, None, 0)


def test_an_image_of_too_many_pixels_is_refused(tmp_path, rng):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            save_images(tmp_path / part / name, 2, rng)
    file = tmp_path / "train" / "cat" / "0.png"
    content = bytearray(file.read_bytes())
    # The header says 20,000 x 20,000.
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    file.write_bytes(content)
    with pytest.raises(
        OSError, match=r"0\.png cannot be read as an image \(Image size \(400000000 pixels\) exceeds limit"
    ):
        load_images(str(tmp_path), None, 12, 0)


def test_a_file_is_an_image_whatever_its_name(tmp_path, rng, monkeypatch):
    """PIL would hand PostScript to a program that runs it."""
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            save_images(tmp_path / part / name, 2, rng)
    Image.new("RGB", (7, 9)).save(tmp_path / "train" / "cat" / "0.png", format="BMP")
    assert load_images(str(tmp_path), None, None, 0).train.shape == (4, 3, 9, 7)
    Image.new("RGB", (7, 9)).save(tmp_path / "train" / "cat" / "0.png", format="EPS")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", pytest.fail)
    with pytest.raises(OSError, match=r"0\.png cannot be read as an image"):
        load_images(str(tmp_path), None, None, 0)
