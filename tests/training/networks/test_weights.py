"""Weights from files of every kind, and files that do not fit."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch

from fastdens.training import build_network

torchvision = pytest.importorskip("torchvision")
pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def trained(seed):
    torch.manual_seed(seed)
    model = build_network("resnet18", 4, 1, 2)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    return model.eval()


def test_weights_of_every_kind_of_file(tmp_path, trained):
    from safetensors.torch import save_file

    state = trained.state_dict()
    prefixed = {f"module.{key}": value for key, value in state.items()}
    files = {
        "alone.pt": state,
        "lightning.ckpt": {"state_dict": state, "epoch": 3},
        "parallel.pth": {"model": prefixed, "epoch": 3, "args": {"lr": 0.1}},
        "compiled.pth.tar": {"state_dict": {f"module._orig_mod.{key}": value for key, value in state.items()}},
        "old.pt": {key: value for key, value in state.items() if "num_batches_tracked" not in key},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    save_file(state, tmp_path / "alone.safetensors")
    x = torch.randn(3, 1, 8, 8)
    for name in (*files, "alone.safetensors"):
        model = build_network("resnet18", 4, 1, 2, tmp_path / name).eval()
        with torch.no_grad():
            assert torch.equal(model(x), trained(x)), name


def test_weights_that_do_not_fit(tmp_path, trained):
    file, state = tmp_path / "weights.pt", trained.state_dict()

    def error_of(content, n_classes=4, file=file):
        torch.save(content, file)
        with pytest.raises(ValueError) as error:
            build_network("resnet18", n_classes, 1, 2, file)
        assert str(file) in str(error.value)
        return str(error.value)

    assert "'fc.weight' is [4, 16] in the file and [5, 16] in the network" in error_of(state, 5)
    assert "it has no 'bn1.weight'" in error_of({k: v for k, v in state.items() if k != "bn1.weight"})
    assert "the network has no 'head.bias'" in error_of({**state, "head.bias": torch.zeros(1)})
    assert "holds no state dict" in error_of([1, 2])
    assert "holds more than weights" in error_of(trained)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        build_network("resnet18", 4, 1, 2, file)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"12345")
    with pytest.raises(ValueError, match=r"damaged\.safetensors is not a whole safetensors file"):
        build_network("resnet18", 4, 1, 2, damaged)


def test_missing_weights_say_which_file_and_where(tmp_path):
    file = tmp_path / "weights.pth"
    published = torchvision.models.ResNet50_Weights.DEFAULT.url.rsplit("/", 1)[1]
    with pytest.raises(FileNotFoundError) as error:
        build_network("torchvision/resnet50", 1000, weights=file)
    assert published in str(error.value) and str(error.value).endswith(f"at {file}.")
    with pytest.raises(FileNotFoundError, match=re.escape(str(file))):
        build_network("resnet18", 10, weights=file)


def refused(file, match):
    with pytest.raises(ValueError, match=match) as caught:
        build_network("resnet18", 4, 1, 2, file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


class Runs:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.filterwarnings("ignore")
def test_a_file_of_weights_runs_nothing(tmp_path, trained):
    """A module, a program of TorchScript or torch.export, a pickle that calls: nothing but a state dict is read."""
    mark, file = tmp_path / "ran", tmp_path / "weights.pt"
    hostile = {**trained.state_dict(), "x": Runs(mark)}
    for is_zip in (True, False):
        torch.save(hostile, file, _use_new_zipfile_serialization=is_zip)
        refused(file, "is damaged or holds more than weights")
        torch.save(trained, file, _use_new_zipfile_serialization=is_zip)
        refused(file, "is damaged or holds more than weights")
    with tarfile.open(file, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(Runs(mark))
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    refused(file, "is damaged or holds more than weights")
    torch.jit.trace(trained, torch.zeros(1, 1, 8, 8)).save(file)
    refused(file, r"holds more than weights \(.*TorchScript archives")
    with ZipFile(file, "w") as archive:
        archive.writestr("program/models/model.json", "{}")
    refused(file, "is damaged or holds more than weights")
    file.write_bytes(pickle.dumps(Runs(mark)))
    refused(file, "is damaged or holds more than weights")
    assert not mark.exists()
    pickle.loads(file.read_bytes())
    assert mark.exists()


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_weights(tmp_path, trained):
    state, file = trained.state_dict(), tmp_path / "weights.pt"
    plain = state["fc.weight"]
    for odd in (
        *(plain.to("meta"), plain.to_sparse(), plain.to_sparse_csr(), plain.to(torch.complex64)),
        torch.quantize_per_tensor(plain, 1.0, 0, torch.qint8),
        torch.nested.nested_tensor([torch.zeros(16)] * 4),
    ):
        torch.save({**state, "fc.weight": odd}, file)
        refused(file, r"'fc\.weight' in .* is a .*, but weights are dense real numbers|is damaged or holds more")
    torch.save({**state, 3: plain}, file)
    refused(file, "weights are dense real numbers under names")
    torch.save({**state, "fc.weight": plain / 0}, file)
    refused(file, r"'fc\.weight' in .* has NaN or infinity")
    # A trillion numbers that are one.
    torch.save({**state, "fc.weight": torch.zeros(1).expand(10**12)}, file)
    refused(file, r"'fc\.weight' is \[1000000000000\] in the file")
    file.write_bytes(b"")
    refused(file, "is empty")


def test_weights_that_unpack_to_far_more_than_their_length(tmp_path, trained):
    file, packed = tmp_path / "weights.pt", tmp_path / "packed.pt"
    torch.save({**trained.state_dict(), "x": torch.zeros(1 << 20)}, file)
    with ZipFile(file) as whole, ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        for member in whole.infolist():
            archive.writestr(member.filename, whole.read(member))
    refused(file, "the network has no 'x'")
    refused(packed, r"it unpacks to [\d,]+ bytes")
