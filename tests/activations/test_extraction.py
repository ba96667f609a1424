"""Activations by layer name: values against a forward pass by hand, streaming, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

import fastdens as fd
from fastdens.activations import extract, load


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.5))
        self.twice, self.never = nn.ReLU(), nn.Linear(1, 1)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        return self.head(self.twice(self.twice(self.features(x)).mean((2, 3))))


def batches(x, y=None, size=4):
    return [b if y is None else (b, c) for b, c in zip(x.split(size), (x if y is None else y).split(size), strict=True)]


def test_small_network_and_labels():
    x, y, model = torch.randn(10, 3, 8, 8), torch.arange(10), Small()
    model.features[3].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    found = extract(model, batches(x, y), ["head", "features.1"], progress=False)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not any(module._forward_hooks for module in model.modules())
    model.eval()
    with torch.no_grad():
        expected = {"head": model(x), "features.1": model.features[:2](x).mean((2, 3))}
    assert found.layers == ("head", "features.1")
    assert torch.equal(found.labels, y)
    for name, value in expected.items():
        torch.testing.assert_close(found.features[name], value)
    assert extract(model, batches(x), ["head"], progress=False).labels is None


@pytest.mark.parametrize(
    ("make", "layers", "widths"),
    [
        (torchvision.models.resnet50, ["layer1", "layer2", "layer3", "layer4"], [256, 512, 1024, 2048]),
        (
            lambda: torchvision.models.VisionTransformer(32, 8, 2, 4, 48, 96, num_classes=3),
            ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1", "encoder"],
            [48, 48, 48],
        ),
    ],
)
def test_known_networks(make, layers, widths):
    model, x, kept = make().eval(), torch.randn(3, 3, 32, 32), {}
    found = extract(model, batches(x, size=2), layers, progress=False)
    for name in layers:
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: kept.update({name: out}))
    with torch.no_grad():
        model(x)
    for name, width in zip(layers, widths, strict=True):
        expected = kept[name].mean(1) if kept[name].ndim == 3 else kept[name].mean((2, 3))
        assert found.features[name].shape == (3, width)
        torch.testing.assert_close(found.features[name], expected, atol=1e-4, rtol=1e-4)


def test_poolings():
    x, model = torch.randn(3, 3, 8, 8), Small().eval()
    with torch.no_grad():
        output = model.features(x)
    for pool, expected in {
        "max": output.amax((2, 3)),
        "flatten": output.flatten(1),
        lambda t: t[:, :, 0, 1]: output[:, :, 0, 1],
    }.items():
        found = extract(model, [x], ["features"], pool, progress=False)
        torch.testing.assert_close(found.features["features"], expected)
    assert extract(model.half(), [x.half()], ["features"], progress=False).features["features"].dtype == torch.float32


@pytest.mark.parametrize("name", ["kept", "kept.safetensors"])
def test_on_disk_equals_in_memory(tmp_path, name):
    x, y, model = torch.randn(11, 3, 8, 8), torch.arange(11), Small()
    layers = ["head", "features.0", "features"]
    memory = extract(model, batches(x, y), layers, progress=False)
    disk = extract(model, batches(x, y), layers, path=tmp_path / "new" / name, progress=False)
    for found in (disk, load(tmp_path / "new" / name)):
        assert found.layers == memory.layers
        assert torch.equal(found.labels, y)
        for layer in layers:
            assert torch.equal(found.features[layer], memory.features[layer])
    if name == "kept":
        assert np.array_equal(np.load(tmp_path / "new" / "kept" / "features.0.npy"), memory.features["features.0"])
    else:
        assert torch.equal(load_file(tmp_path / "new" / name)["features.0"], memory.features["features.0"])
    assert os.listdir(tmp_path / "new") == [name]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        extract(model, batches(x, y), layers, path=tmp_path / "new" / name, progress=False)
    shorter = batches(x[:3], y[:3])
    again = extract(model, shorter, ["head"], path=tmp_path / "new" / name, overwrite=True, progress=False)
    assert again.features["head"].shape == (3, 4) and os.listdir(tmp_path / "new") == [name]


def test_memory_stays_bounded_while_images_stream(tmp_path):
    # 25,000 examples of 4,096 features are 400 MB; the process may grow by a fifth of that.
    code = (
        "import sys, torch; from fastdens.activations import extract\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024\n"
        "model = torch.nn.Sequential(torch.nn.Linear(8, 4096))\n"
        "batches = lambda n: (torch.randn(100, 8) for _ in range(n))\n"
        "run = lambda n, path: extract(model, batches(n), ['0'], path=path, progress=False)\n"
        "run(2, sys.argv[1] + '.first'); before = peak()\n"
        "found = run(250, sys.argv[1]); print(peak() - before, *found.features['0'].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "kept")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    growth, n, d = map(int, done.stdout.split())
    assert (n, d) == (25_000, 4096)
    assert growth < 80e6


def test_errors_say_what_to_do(tmp_path):
    x = torch.randn(4, 3, 8, 8)

    def error_of(layers, loader=None, model=None, **options):
        with pytest.raises((ValueError, TypeError)) as caught:
            extract(model or Small(), [x] if loader is None else loader, layers, progress=False, **options)
        return str(caught.value)

    assert "'features.0'" in error_of(["feature.0"]) and "'feature.0'" in error_of(["feature.0"])
    assert "'layer4'" in error_of(["leyer4"], model=torchvision.models.resnet18())
    assert "ran 2 times" in error_of(["twice"])
    assert "did not run" in error_of(["never"])
    assert "twice: 'head', 'head'" in error_of(["head", "head"])
    assert "empty" in error_of([])
    assert "'avg', 'max', 'flatten'" in error_of(["head"], pool="mean")
    assert "as pool that makes [4, D]" in error_of(["features"], pool=lambda t: t)
    assert "no batch" in error_of(["head"], loader=[])
    assert "some batches only" in error_of(["head"], loader=[x, (x, torch.arange(4))])
    assert "one integer per input" in error_of(["head"], loader=[(x, torch.rand(4))])
    assert "a batch is a tensor" in error_of(["head"], loader=["image.png"])
    for path in (None, tmp_path / "a"):
        sizes = [torch.randn(2, 3, 8, 8), torch.randn(2, 3, 9, 9)]
        assert "of one size" in error_of(["features"], loader=sizes, pool="flatten", path=path)


def test_load_names_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"one \.npy file per layer"):
        load(tmp_path / "missing")
    extract(Small(), [torch.randn(4, 3, 8, 8)], ["head"], path=tmp_path / "a.safetensors", progress=False)
    whole = (tmp_path / "a.safetensors").read_bytes()
    for damaged in (whole[:-5], whole[:20], b"", b"PK\x03\x04" + whole):
        (tmp_path / "a.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.safetensors"):
            load(tmp_path / "a.safetensors")
    # A folder that somebody else made: no layers.json, natural order of names.
    (tmp_path / "own").mkdir()
    for layer in ("block10", "block2"):
        np.save(tmp_path / "own" / f"{layer}.npy", np.zeros((3, 2)))
    assert load(tmp_path / "own").layers == ("block2", "block10")
    np.save(tmp_path / "own" / "labels.npy", np.zeros(4, int))
    with pytest.raises(ValueError, match="3 examples"):
        load(tmp_path / "own")
    (tmp_path / "own" / "layers.json").write_text(json.dumps(["block3"]))
    with pytest.raises(ValueError, match="'block3'"):
        load(tmp_path / "own")
    assert fd.activations.load is load
