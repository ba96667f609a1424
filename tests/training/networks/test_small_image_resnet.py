"""The small residual networks have the stem and the widths of the paper."""

from __future__ import annotations

import pytest
import torch

from fastdens.training import build_network
from fastdens.training.networks import STAGES

torchvision = pytest.importorskip("torchvision")


def layer_shapes(model, layers, x):
    shapes = {}
    for name in layers:
        model.get_submodule(name).register_forward_hook(lambda _m, _i, o, name=name: shapes.update({name: o.shape}))
    with torch.no_grad():
        model.eval()(x)
    return shapes


@pytest.mark.parametrize(
    ("stem", "size", "expected"),
    [
        ("auto", 84, 32),
        ("auto", 32, 32),
        ("auto", 64, 64),
        ("stride3", 84, 32),
        ("stride1", 84, 84),
        ("stride3", 16, 9),
    ],
)
def test_the_stem_goes_with_the_size_of_the_images(stem, size, expected):
    model = build_network("resnet18", 3, width=8, image_size=size, stem=stem)
    shapes = layer_shapes(model, ["conv1", "layer1"], torch.randn(1, 3, size, size))
    assert shapes["conv1"] == shapes["layer1"] == (1, 8, expected, expected)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "torchvision/resnet18"])
def test_blocks_start_as_the_identity_on_request(name):
    model = build_network(name, 3, width=8, zero_init=True).eval()
    x = torch.randn(2, 64 if "/" in name else 8, 6, 6)
    block = model.layer1[0] if name != "resnet50" else model.layer1[1]
    x = torch.randn(2, 32, 6, 6) if name == "resnet50" else x
    with torch.no_grad():
        torch.testing.assert_close(block(x), x.relu())
        assert not torch.allclose(build_network(name, 3, width=8).eval().layer1[1](x), x.relu())
    with pytest.raises(ValueError, match=r"zero_init is for residual networks .* torchvision/vgg11 has none"):
        build_network("torchvision/vgg11", 3, zero_init=True)


def test_a_stem_is_for_the_small_networks():
    with pytest.raises(ValueError, match=r"stem is for resnet18 to resnet101 .* the network is torchvision/resnet18"):
        build_network("torchvision/resnet18", 3, stem="stride1")
    with pytest.raises(ValueError, match="stem is 'stride2', but it must be one of"):
        build_network("resnet18", 3, stem="stride2")


def test_networks_for_small_images_have_the_stem_and_the_widths_of_the_paper():
    for name, width, features in (("resnet18", 64, 512), ("resnet34", 6, 48), ("resnet50", 8, 256)):
        model = build_network(name, 7, 1, width)
        stages = layer_shapes(model, STAGES, torch.randn(2, 1, 16, 16))
        assert stages["layer1"][2:] == (16, 16) and stages["layer4"] == (2, features, 2, 2)
    for name in ("resnet18", "resnet34", "resnet50", "resnet101"):
        ours, theirs = build_network(name, 10), getattr(torchvision.models, name)(num_classes=10)
        assert {k: v.shape for k, v in ours.state_dict().items() if k != "conv1.weight"} == {
            k: v.shape for k, v in theirs.state_dict().items() if k != "conv1.weight"
        }
