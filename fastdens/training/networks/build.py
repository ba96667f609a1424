"""Networks by name: the paper's residual ones for small images, those of torchvision and timm, and the user's own."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from fastdens.kernels.optional import require
from fastdens.kernels.options import check_choice, suggest
from fastdens.training.networks.factory import is_factory, network_from_factory
from fastdens.training.networks.weights import load_weights
from fastdens.training.recipe import STEMS


def build_network(
    name: str,
    n_classes: int,
    n_channels: int = 3,
    width: int = 64,
    weights: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    *,
    stem: str = "auto",
    zero_init: bool = False,
    allow_code: bool = False,
) -> nn.Module:
    """Build a network, with random weights or those of a file; nothing is ever downloaded.

    Parameters
    ----------
    name : str
        "resnet18", "resnet34", "resnet50" or "resnet101": a ResNet with a stem for small images, see
        ``SmallImageResNet``. "torchvision/resnet50",
        "torchvision/vit_b_16", ...: a classifier of ``torchvision.models``. "timm/mixer_b16_224",
        "timm/vit_small_patch16_224", ...: a model of timm. A name that only torchvision or timm has needs no prefix.
        "my_network.py:make_network" or "my_package.networks:make_network": the network that this function of that file
        or module returns for the number of classes, if ``allow_code`` is set.
    n_classes, n_channels : int
        Number of outputs, and of channels of an image; torchvision's networks take 3 channels.
    width : int
        Channels of the first stage of a SmallImageResNet; the names of other networks fix their widths.
    weights : path-like, optional
        A state dict in a ``.safetensors`` file or one that ``torch.save`` wrote, alone or under "state_dict" or
        "model" as in checkpoints, its names with or without "module." before them.
    image_size : int, optional
        Height and width of the images, for networks whose weights depend on it (ViT, MLP-Mixer); by default that of
        the name. It also decides the stem of a SmallImageResNet.
    stem : {"auto", "stride1", "stride3"}
        First convolution of a SmallImageResNet: with stride 1, or with stride 3 and padding 6, which makes 32 x 32 of
        84 x 84; "auto" is the latter for images over 64 pixels.
    zero_init : bool
        Let each residual block of torchvision's start as the identity: the scale of its last batch norm is zero.
    allow_code : bool
        Run the Python code that the name of a network of one's own names.

    Returns
    -------
    nn.Module
        In training mode, on the CPU.

    Raises
    ------
    ValueError
        If there is no such network, it does not fit the weights or the images, it has no choice of stems or no
        residual blocks and one asks for them, or it is code and ``allow_code`` is False.
    FileNotFoundError
        If the weights are missing; the message says which file to put where.
    ImportError
        If torchvision is not installed, or the name is one of timm and timm is not installed.

    Examples
    --------
    >>> from fastdens.training import build_network, default_layers
    >>> default_layers(build_network("resnet18", n_classes=10, width=8))
    ['layer1', 'layer2', 'layer3', 'layer4']
    """
    check_choice("stem", stem, STEMS)
    library, bare_name = _library(name)
    if library and stem != "auto":
        raise ValueError(
            f"stem is for resnet18 to resnet101 for small images, but the network is {name}: leave it out."
        )
    published = ""
    if library == "timm":
        model, published = _timm_network(bare_name, n_classes, n_channels, image_size)
    elif library == "torchvision":
        model, published = _torchvision_network(bare_name, n_classes, n_channels, image_size)
    elif library == "factory":
        model = network_from_factory(bare_name, n_classes, allow_code=allow_code)
    else:
        resnets = _small_image_resnets(name)
        chosen = resnets.choose_stem(stem, image_size)
        model = resnets.small_image_resnet(bare_name, n_classes, n_channels, width, chosen)
    if zero_init:
        _small_image_resnets(name).start_blocks_as_identity(model, name)
    if weights is not None:
        load_weights(model, name, Path(weights), published)
    return model


def stem_of(name: str, stem: str, image_size: int) -> str:
    """The stem that a network gets for images of a size, "auto" if it has no choice of stems."""
    return _small_image_resnets(name).choose_stem(stem, image_size) if _library(name)[0] == "" else "auto"


def _library(name: str) -> tuple[str, str]:
    """The library that has the network, "" for this one, and the network's name there."""
    if is_factory(name):
        return "factory", name
    library, slash, bare_name = name.partition("/")
    if slash and library in ("torchvision", "timm"):
        return library, bare_name
    own, torchvisions = _small_image_resnets(name).NAMES, _names_of(_torchvision_models(name))
    if name in own:
        return "", name
    if name in torchvisions:
        return "torchvision", name
    known = [*own, *torchvisions]
    hint = ""
    if find_spec("timm") is None:
        hint = " (and for those of timm: pip install timm)"
    else:
        import timm

        if timm.is_model(name):
            return "timm", name
        known += timm.list_models()
    raise ValueError(f"there is no network {name!r}: the nearest names are {suggest(name, known)}{hint}.")


def _small_image_resnets(name: str) -> Any:
    """The module of the small ResNets, which derive from torchvision's."""
    _torchvision_models(name)
    from fastdens.training.networks import small_image_resnet

    return small_image_resnet


def _torchvision_models(name: str) -> Any:
    return require("torchvision.models", f"the network {name!r}", "examples")


def _names_of(models: Any) -> list[str]:
    return list(models.list_models(module=models))


def _torchvision_network(name: str, n_classes: int, n_channels: int, image_size: int | None) -> tuple[nn.Module, str]:
    """The network, and the file with its published weights."""
    models = _torchvision_models(name)
    known = _names_of(models)
    if name not in known:
        raise ValueError(f"torchvision has no network {name!r}: the nearest names are {suggest(name, known)}.")
    if n_channels != 3:
        raise ValueError(
            f"torchvision's {name} takes images of 3 channels, but these have {n_channels}: take a network such as "
            "'resnet18', or one of timm."
        )
    options: dict[str, Any] = {"num_classes": n_classes}
    if image_size is not None and name.startswith("vit_"):
        _check_patches(name, image_size, int(name.rsplit("_", 1)[1]))
        options["image_size"] = image_size
    published = models.get_model_weights(name).DEFAULT.url.rsplit("/", 1)[1]
    return models.get_model(name, weights=None, **options), published


def _timm_network(name: str, n_classes: int, n_channels: int, image_size: int | None) -> tuple[nn.Module, str]:
    """The network, and the file with its published weights."""
    try:
        import timm
    except ImportError:
        raise ImportError(f"the network {name!r} needs timm, not installed: pip install timm.") from None
    if not timm.is_model(name):
        raise ValueError(f"timm has no network {name!r}: the nearest names are {suggest(name, timm.list_models())}.")
    options: dict[str, Any] = {"num_classes": n_classes, "in_chans": n_channels}
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if image_size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    published = f"model.safetensors of {config.hf_hub_id}" if config is not None and config.hf_hub_id else ""
    try:
        model = timm.create_model(name, pretrained=False, **options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        passed = ", ".join(f"{key}={value}" for key, value in options.items())
        raise ValueError(f"timm's {name} cannot be made with {passed} ({error}): take another network.") from None
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
