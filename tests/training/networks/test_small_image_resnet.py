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
