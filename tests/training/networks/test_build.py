"""Networks of every library by name."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from fastdens.activations import extract
from fastdens.training import build_network, default_layers
from fastdens.training.networks import STAGES

pytest.importorskip("torchvision")
pytestmark = pytest.mark.usefixtures("no_network")


def test_networks_of_torchvision():
    model = build_network("torchvision/resnet18", 5)
    assert isinstance(model.maxpool, nn.MaxPool2d) and model.fc.out_features == 5
    assert default_layers(model) == list(STAGES)
    vit = build_network("vit_b_32", 3, image_size=64)
    layers = default_layers(vit)
    assert layers == [f"encoder.layers.encoder_layer_{i}" for i in (2, 5, 8, 11)]
    found = extract(vit, [torch.randn(2, 3, 64, 64)], layers, progress=False)
    assert {tuple(x.shape) for x in found.features.values()} == {(2, 768)}
    with pytest.raises(ValueError, match=r"squares of 32 pixels, but these have 84: resize them, e\.g\. to 96"):
        build_network("vit_b_32", 3, image_size=84)
    with pytest.raises(ValueError, match="takes images of 3 channels, but these have 1"):
        build_network("torchvision/resnet18", 3, 1)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet_18", "resnet18"),
        ("torchvision/resnext50_32d", "resnext50_32x4d"),
        ("vit_b16", "vit_b_16"),
        ("torchvision/fcn_resnet50", "resnet50"),
    ],
)
def test_misspelt_names(name, nearest):
    with pytest.raises(ValueError, match=f"no network '{name.removeprefix('torchvision/')}'.*'{nearest}'"):
        build_network(name, 2)


def test_timm_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="'mixer_b16_224' needs timm, not installed: pip install timm"):
        build_network("timm/mixer_b16_224", 2)


def test_networks_of_timm(tmp_path):
    timm = pytest.importorskip("timm")
    for name, n_channels in (("timm/vit_tiny_patch16_224", 3), ("mixer_s32_224", 1)):
        model = build_network(name, 3, n_channels, image_size=32)
        layers = default_layers(model)
        depth = len(model.blocks)
        assert layers == [f"blocks.{(k + 1) * depth // 4 - 1}" for k in range(4)]
        found = extract(model, [torch.randn(2, n_channels, 32, 32)], layers, progress=False)
        assert all(len(x) == 2 and x.shape[1] == model.num_features for x in found.features.values())
    torch.save(model.state_dict(), tmp_path / "mixer.pt")
    again = build_network(name, 3, n_channels, weights=tmp_path / "mixer.pt", image_size=32).eval()
    x = torch.randn(1, n_channels, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(x), model.eval()(x))
    resnet = build_network("timm/resnet18", 3, 1, image_size=40)
    assert default_layers(resnet) == list(STAGES) and isinstance(resnet, timm.models.resnet.ResNet)
    with pytest.raises(ValueError, match=r"nearest names are .*'mixer_b16_224'"):
        build_network("timm/mixer_b_16_224", 3)
    with pytest.raises(ValueError, match="squares of 16 pixels, but these have 40"):
        build_network("timm/vit_tiny_patch16_224", 3, image_size=40)
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors of timm/resnet18"):
        build_network("timm/resnet18", 3, weights=tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="no network 'hf_hub:timm/resnet18'"):
        build_network("hf_hub:timm/resnet18", 3)
