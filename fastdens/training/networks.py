"""Networks: the paper's residual ones for small images, and those of torchvision and timm; weights from disk."""

from __future__ import annotations

import os
import pickle
import runpy
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from fastdens.kernels.options import suggest

STAGES = ("layer1", "layer2", "layer3", "layer4")

_SMALL_IMAGE_RESNETS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}

# Modules whose children are the blocks of a network: torchvision's ViT, timm's ViT and MLP-Mixer.
_BLOCKS = ("encoder.layers", "blocks")
_N_DEFAULT_LAYERS = 4


class SmallImageResNet(ResNet):
    """torchvision's ResNet with a 3x3 first convolution of stride 1 and no max-pooling.

    Parameters
    ----------
    block : {BasicBlock, Bottleneck}
    blocks : sequence of int
        Blocks of each stage.
    n_classes, n_channels : int
        Outputs, and channels of an image.
    width : int
        Channels of the first stage (before a bottleneck's expansion); each later stage doubles them.

    References
    ----------
    He et al., Deep residual learning for image recognition, CVPR 2016, section 4.2.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        blocks: tuple[int, int, int, int],
        n_classes: int,
        n_channels: int = 3,
        width: int = 64,
    ) -> None:
        super().__init__(block, list(blocks), num_classes=n_classes)
        self.inplanes = width
        self.conv1 = nn.Conv2d(n_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity()
        for stage, (name, n_blocks) in enumerate(zip(STAGES, blocks, strict=True)):
            setattr(self, name, self._make_layer(block, width << stage, n_blocks, stride=1 if stage == 0 else 2))
        self.fc = nn.Linear((width << 3) * block.expansion, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def small_image_resnet(name: str, n_classes: int, n_channels: int, width: int) -> SmallImageResNet:
    """The network of that name: resnet18, resnet34, resnet50 or resnet101."""
    if name not in _SMALL_IMAGE_RESNETS:
        nearest = suggest(name, _SMALL_IMAGE_RESNETS)
        raise ValueError(f"there is no network {name!r} for small images: the nearest names are {nearest}.")
    block, blocks = _SMALL_IMAGE_RESNETS[name]
    return SmallImageResNet(block, blocks, n_classes, n_channels, width)


def build_network(
    name: str,
    n_classes: int,
    n_channels: int = 3,
    width: int = 64,
    weights: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
) -> nn.Module:
    """A network, with random weights or those of a file; nothing is ever downloaded.

    Parameters
    ----------
    name : str
        "resnet18", "resnet34", "resnet50" or "resnet101": :class:`SmallImageResNet`. "torchvision/resnet50",
        "torchvision/vit_b_16", ...: a classifier of ``torchvision.models``. "timm/mixer_b16_224",
        "timm/vit_small_patch16_224", ...: a model of timm. A name that only torchvision or timm has needs no prefix.
        "my_network.py:make_network": what that function, in that file, returns for the number of classes.
    n_classes, n_channels : int
        Outputs, and channels of an image; torchvision's networks take 3.
    width : int
        Of a SmallImageResNet, channels of its first stage; other networks have the widths of their name.
    weights : path-like, optional
        A state dict in a ``.safetensors`` file or one that ``torch.save`` wrote, alone or under "state_dict" or
        "model" as in checkpoints, its names with or without "module." before them.
    image_size : int, optional
        Height and width of the images, for networks whose weights depend on it (ViT, MLP-Mixer); by default that of
        the name.

    Returns
    -------
    nn.Module
        In training mode, on the CPU.

    Raises
    ------
    ValueError
        If there is no such network, or it and the weights or the images do not fit.
    FileNotFoundError
        If the weights are missing; the message says which file to put where.
    ImportError
        If the name is one of timm and timm is not installed.
    """
    library, bare = _library(name)
    published = ""
    if library == "timm":
        model, published = _timm(bare, n_classes, n_channels, image_size)
    elif library == "torchvision":
        model, published = _torchvision(bare, n_classes, n_channels, image_size)
    elif library == "file":
        model = _of_file(bare, n_classes)
    else:
        model = small_image_resnet(bare, n_classes, n_channels, width)
    if weights is not None:
        _load_weights(model, name, Path(weights), published)
    return model


def default_layers(model: nn.Module) -> list[str]:
    """Layers to analyse: the four stages of a ResNet; four blocks, equally spaced, of a ViT or MLP-Mixer.

    Raises
    ------
    ValueError
        If the model is of no such kind.
    """
    modules = dict(model.named_modules())
    if all(stage in modules for stage in STAGES):
        return list(STAGES)
    for container in _BLOCKS:
        if container in modules:
            blocks = [f"{container}.{child}" for child, _ in modules[container].named_children()]
            n = min(_N_DEFAULT_LAYERS, len(blocks))
            return [blocks[(k + 1) * len(blocks) // n - 1] for k in range(n)]
    shown = ", ".join(repr(child) for child, _ in model.named_children())
    raise ValueError(
        f"{type(model).__name__} has neither the stages of a ResNet nor blocks to analyse by default: pass layers, "
        f"--layers on the command line, out of model.named_modules(), e.g. of {shown}."
    )


def _library(name: str) -> tuple[str, str]:
    """Where the network of that name is from, "" for here, and its name there."""
    if ".py:" in name:
        return "file", name
    library, slash, bare = name.partition("/")
    if slash and library in ("torchvision", "timm"):
        return library, bare
    if name in _SMALL_IMAGE_RESNETS:
        return "", name
    torchvisions = _torchvision_names()
    if name in torchvisions:
        return "torchvision", name
    known = [*_SMALL_IMAGE_RESNETS, *torchvisions]
    hint = ""
    if find_spec("timm") is None:
        hint = " (and for those of timm: pip install timm)"
    else:
        import timm

        if timm.is_model(name):
            return "timm", name
        known += timm.list_models()
    raise ValueError(f"there is no network {name!r}: the nearest names are {suggest(name, known)}{hint}.")


def _of_file(name: str, n_classes: int) -> nn.Module:
    """What the function FUNCTION of FILE.py returns for FILE.py:FUNCTION."""
    file, _, function = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} for the network {name!r}: put {function!r} in it.")
    namespace = runpy.run_path(str(path))
    if not callable(namespace.get(function)):
        known = [known for known, value in namespace.items() if callable(value) and not known.startswith("_")]
        nearest = f": the nearest names are {suggest(function, known)}" if known else ": define it"
        raise ValueError(f"{path} has no function {function!r}{nearest}.")
    model = namespace[function](n_classes)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{function} of {path} returned {type(model).__name__}, not an nn.Module: return the network.")
    return model


def _torchvision_names() -> list[str]:
    return torchvision.models.list_models(module=torchvision.models)


def _torchvision(name: str, n_classes: int, n_channels: int, image_size: int | None) -> tuple[nn.Module, str]:
    """The network, and the file with its published weights."""
    if name not in _torchvision_names():
        nearest = suggest(name, _torchvision_names())
        raise ValueError(f"torchvision has no network {name!r}: the nearest names are {nearest}.")
    if n_channels != 3:
        raise ValueError(
            f"torchvision's {name} takes images of 3 channels, but these have {n_channels}: take a network such as "
            "'resnet18', or one of timm."
        )
    options: dict[str, Any] = {"num_classes": n_classes}
    if image_size is not None and name.startswith("vit_"):
        _check_patches(name, image_size, int(name.rsplit("_", 1)[1]))
        options["image_size"] = image_size
    published = torchvision.models.get_model_weights(name).DEFAULT.url.rsplit("/", 1)[1]
    return torchvision.models.get_model(name, weights=None, **options), published


def _timm(name: str, n_classes: int, n_channels: int, image_size: int | None) -> tuple[nn.Module, str]:
    """The network, and the file with its published weights."""
    try:
        import timm
    except ImportError:
        raise ImportError(f"the network {name!r} needs timm, not installed: pip install timm.") from None
    if not timm.is_model(name):
        raise ValueError(
            f"timm has no network {name!r}: the nearest names are {suggest(name, timm.list_models())}."
        )
    options: dict[str, Any] = {"num_classes": n_classes, "in_chans": n_channels}
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if image_size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    published = f"model.safetensors of {config.hf_hub_id}" if config is not None and config.hf_hub_id else ""
    try:
        model = timm.create_model(name, pretrained=False, **options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise ValueError(f"timm's {name} cannot be made with {given} ({error}): take another network.") from None
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if image_size is not None and patch is not None:
        _check_patches(name, image_size, patch[0])
    return model, published


def _check_patches(name: str, image_size: int, patch: int) -> None:
    if image_size % patch:
        raise ValueError(
            f"{name} cuts images into squares of {patch} pixels, but these have {image_size}: resize them, e.g. to "
            f"{-(-image_size // patch) * patch}."
        )


def _load_weights(model: nn.Module, name: str, file: Path, published: str) -> None:
    if not file.is_file():
        example = f", e.g. {published}" if published else ""
        raise FileNotFoundError(
            f"the weights of {name} are missing: put a state dict of it (.pt, .pth or .safetensors{example}) at {file}."
        )
    found, own = _read_weights(file), model.state_dict()
    for key, tensor in own.items():
        if key not in found and key.endswith("num_batches_tracked"):
            # Written by torch before 0.4.1.
            found[key] = tensor
        elif key not in found:
            raise ValueError(f"{file} does not fit {name}: it has no {key!r}; pass weights of that network.")
        elif found[key].shape != tensor.shape:
            raise ValueError(
                f"{file} does not fit {name}: {key!r} is {list(found[key].shape)} in the file and "
                f"{list(tensor.shape)} in the network; pass weights of that network for as many classes, channels and "
                "pixels."
            )
    for key in found:
        if key not in own:
            raise ValueError(f"{file} does not fit {name}: the network has no {key!r}; pass weights of that network.")
    model.load_state_dict(found)


def _read_weights(file: Path) -> dict[str, Tensor]:
    """The state dict in a file, whatever is around it."""
    content: Any
    if file.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        except ImportError:
            raise ImportError(f"{file} needs safetensors, not installed: pip install 'fastdens[cpu]'.") from None
        try:
            content = load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} is not a whole safetensors file ({error}): copy it again.") from None
    else:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = str(error).split("\n")[0].split(". ")[0]
            raise ValueError(
                f"{file} is damaged or holds more than weights ({reason}): save the state dict of the network alone."
            ) from None
    for around in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(around), Mapping):
            content = content[around]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{file} holds no state dict, names and tensors: save that of the network alone.")
    state = dict(content)
    # DataParallel puts the one before all names, torch.compile the other, in any order.
    while state and (wrapper := next(iter(state)).partition(".")[0]) in ("module", "_orig_mod"):
        if not all(key.startswith(f"{wrapper}.") for key in state):
            break
        state = {key.removeprefix(f"{wrapper}."): value for key, value in state.items()}
    return state
