"""Data sets of torchvision: archives are unpacked, and missing files are named with their places."""

from __future__ import annotations

import hashlib
import inspect
import io
import pickle
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fastdens.training.datasets import StreamedImages, load_images
from fastdens.training.datasets.cifar import KINDS
from fastdens.training.datasets.torchvision import RESOURCES, UNPICKLED
from tests.training.datasets.image_files import save_images

datasets = pytest.importorskip("torchvision").datasets
pytestmark = pytest.mark.usefixtures("no_network")


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
    tmp_path.chmod(0o755)
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
    assert tmp_path.stat().st_mode & 0o777 == 0o755 and folder.stat().st_mode & 0o777 == 0o755
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


def test_resources_are_the_files_that_torchvision_reads():
    for key, resources in RESOURCES.items():
        kind = getattr(datasets, key.partition(" ")[0])
        source = "".join(inspect.getsource(base) for base in kind.__mro__ if base.__module__ == kind.__module__)
        for file in resources.files:
            # torchvision unpacks PCAM's archives under names that it writes down.
            assert file.removesuffix(".gz") in source, (key, file)
        assert resources.folder.removesuffix("/raw").lower() in source.lower(), key


def test_an_archive_is_unpacked_wholly_or_not_at_all(tmp_path, rng):
    save_images(tmp_path / "imagenette2" / "train" / "n01440764", 9, rng)
    archive = tmp_path / "imagenette2.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "imagenette2", "imagenette2")
    whole = archive.read_bytes()
    (tmp_path / "imagenette2").rename(tmp_path / "elsewhere")
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileNotFoundError, match=r"imagenette2\.tgz is not whole .*: put that file there again"):
        load_images("Imagenette", tmp_path, None, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "imagenette2.tgz"]
    archive.write_bytes(b"nothing at all")
    with pytest.raises(FileNotFoundError, match="is not whole"):
        load_images("Imagenette", tmp_path, None, 0)


def test_the_files_of_cifar_run_nothing(tmp_path, rng, monkeypatch):
    """Even if their digests were the published ones."""
    folder, _, _ = cifar100(tmp_path, rng, monkeypatch)
    hostile = b"cposix\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    for file in ("train", "meta"):
        with monkeypatch.context() as patch:
            whole = (folder / file).read_bytes()
            (folder / file).write_bytes(hostile)
            digest = hashlib.md5(hostile).hexdigest()
            if file == "meta":
                patch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": digest})
            else:
                patch.setattr(datasets.CIFAR100, "train_list", [[file, digest]])
            with pytest.raises(ValueError, match=r"asks for 'posix\.system', but only arrays"):
                load_images("CIFAR100", tmp_path, None, 0)
            (folder / file).write_bytes(whole)
    (folder / "train").write_bytes(hostile)
    (tmp_path / "cifar-100-python.tar.gz").unlink()
    with pytest.raises(FileNotFoundError, match="put cifar-100-python"):
        load_images("CIFAR100", tmp_path, None, 0)
    assert not (tmp_path / "ran").exists()


def test_torchvision_unpickles_nothing_that_is_left_to_it(tmp_path):
    """What torchvision reads by pickle is read here or refused, and it loads with weights_only."""
    pickling = set()
    for file in Path(datasets.__file__).parent.glob("*.py"):
        source = file.read_text()
        if re.search(r"\bpickle\.loads?\(|allow_pickle=True", source):
            pickling.add(file.stem)
        for call in re.findall(r"torch\.load\(.*", source):
            assert "weights_only=True" in call, (file.name, call)
    assert pickling == {"cifar", "lsun"}
    assert {kind.lower()[:5] for kind in KINDS} == {"cifar"} and {kind.lower()[:4] for kind in UNPICKLED} == {"lsun"}
    for name in UNPICKLED:
        if name in datasets.__all__:
            with pytest.raises(ValueError, match=f"torchvision unpickles a file beside the data of {name}"):
                load_images(name, tmp_path, None, 0)


def tarred(*entries):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content, link in entries:
            entry = tarfile.TarInfo(name)
            if link is None:
                entry.size = len(content)
            else:
                entry.type, entry.linkname = content, link
            tar.addfile(entry, None if link is not None else io.BytesIO(content))
    return stream.getvalue()


def zipped(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return stream.getvalue()


OUTSIDE = ("../outside", "a/../../outside", "/outside", "..\\outside", "C:\\outside")
HOSTILE = {
    **{f"tar of {name}": tarred((name, b"x", None)) for name in OUTSIDE},
    "tar of a symbolic link": tarred(("a", tarfile.SYMTYPE, ".."), ("a/outside", b"x", None)),
    "tar of a hard link": tarred(("a", tarfile.LNKTYPE, "../outside")),
    "tar of a pipe": tarred(("a", tarfile.FIFOTYPE, "")),
    "tar of a device": tarred(("a", tarfile.CHRTYPE, "")),
    "tar of zeros": tarred(("a", bytes(1 << 22), None)),
    **{f"zip of {name}": zipped("a", name) for name in OUTSIDE},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_archive_leaves_its_folder(tmp_path, kind):
    root = tmp_path / "root" / ("eurosat" if kind.startswith("zip") else ".")
    root.mkdir(parents=True)
    archive = root / ("EuroSAT.zip" if kind.startswith("zip") else "imagenette2.tgz")
    archive.write_bytes(HOSTILE[kind])
    name = "EuroSAT" if kind.startswith("zip") else "Imagenette"
    with pytest.raises(OSError, match="as no published one does: put the published file there") as caught:
        load_images(name, tmp_path / "root", None, 0)
    assert str(archive) in str(caught.value) and "\n" not in str(caught.value)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [archive]


def test_files_that_torchvision_does_not_name_are_its_own_message(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load_images("Caltech101", tmp_path, None, 0)
    assert str(caught.value) == (
        f"Caltech101 cannot be made of the files in {tmp_path} (Dataset not found or corrupted): put the files there "
        "that torchvision.datasets.Caltech101 reads."
    )


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
    # Folders, as ImageNet is, may be streamed.
    streamed = load_images("EuroSAT", tmp_path, None, seed, stream=True, workers=0)
    assert isinstance(streamed.train, StreamedImages) and torch.equal(streamed.train[:], images.train)
    assert torch.equal(streamed.train_labels, images.train_labels)


def test_data_sets_without_classes(tmp_path):
    for name in ("CocoDetection", "FakeData", "PhotoTour"):
        with pytest.raises(ValueError, match=f"{name} is not a data set of images and their classes"):
            load_images(name, tmp_path, None, 0)
    with pytest.raises(ValueError, match="no split of train or trainval"):
        load_images("Places365", tmp_path, None, 0)
