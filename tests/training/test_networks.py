"""Networks of every library by name, their weights from files, and the layers that are analysed by default."""

from __future__ import annotations

import re
import socket
import sys

import pytest
import torch
from torch import nn

from fastdens.activations import extract
from fastdens.training.networks import STAGES, build_network, default_layers, small_image_resnet

torchvision = pytest.importorskip("torchvision")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_arguments):
        pytest.fail("something was to be downloaded")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def layer_shapes(model, layers, x):
    shapes = {}
    for name in layers:
        model.get_submodule(name).register_forward_hook(lambda _m, _i, o, name=name: shapes.update({name: o.shape}))
    with torch.no_grad():
        model.eval()(x)
    return shapes


def test_networks_for_small_images_have_the_stem_and_the_widths_of_the_paper():
    for name, width, features in (("resnet18", 64, 512), ("resnet34", 6, 48), ("resnet50", 8, 256)):
        model = small_image_resnet(name, 7, 1, width)
        stages = layer_shapes(model, STAGES, torch.randn(2, 1, 16, 16))
        assert stages["layer1"][2:] == (16, 16) and stages["layer4"] == (2, features, 2, 2)
    for name in ("resnet18", "resnet34", "resnet50", "resnet101"):
        ours, theirs = build_network(name, 10), getattr(torchvision.models, name)(num_classes=10)
        assert {k: v.shape for k, v in ours.state_dict().items() if k != "conv1.weight"} == {
            k: v.shape for k, v in theirs.state_dict().items() if k != "conv1.weight"
        }


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


def test_default_layers_are_equally_spaced_blocks():
    class Blocks(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.blocks = nn.Sequential(*(nn.Identity() for _ in range(n)))

    for n, expected in ((2, [0, 1]), (4, [0, 1, 2, 3]), (12, [2, 5, 8, 11]), (10, [1, 4, 6, 9])):
        assert default_layers(Blocks(n)) == [f"blocks.{i}" for i in expected]
    with pytest.raises(ValueError, match=r"--layers.* 'features', 'avgpool', 'classifier'"):
        default_layers(build_network("torchvision/vgg11", 2))


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


def test_a_network_of_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\ndef make_network(n_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Linear(5, n_classes))\nnumber = 3\n"
    )
    model = build_network(f"{file}:make_network", 7)
    assert model(torch.zeros(2, 3, 4, 4)).shape == (2, 7)
    with pytest.raises(ValueError, match="'make_network'"):
        build_network(f"{file}:make_netwrok", 7)
    with pytest.raises(FileNotFoundError, match=r"other\.py"):
        build_network(f"{tmp_path / 'other.py'}:make_network", 7)
    with pytest.raises(ValueError, match="pass layers"):
        default_layers(model)
