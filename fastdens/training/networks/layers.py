"""Layers of a network that are analysed by default."""

from __future__ import annotations

from torch import nn

from fastdens.activations import unwrapped

STAGES = ("layer1", "layer2", "layer3", "layer4")

# Modules whose children are the blocks of a network: torchvision's ViT, timm's ViT and MLP-Mixer.
_BLOCKS = ("encoder.layers", "blocks")
_N_DEFAULT_LAYERS = 4


def default_layers(model: nn.Module) -> list[str]:
    """The four stages of a ResNet, or four equally spaced blocks of a ViT or MLP-Mixer.

    Parameters
    ----------
    model : nn.Module
        A ResNet, ViT or MLP-Mixer of torchvision or timm, or one of this library.

    Returns
    -------
    list of str
        Names of ``model.named_modules()``.

    Raises
    ------
    ValueError
        If the model has neither stages nor blocks.

    Examples
    --------
    >>> from fastdens.training import build_network, default_layers
    >>> default_layers(build_network("resnet18", n_classes=10, width=8))
    ['layer1', 'layer2', 'layer3', 'layer4']
    """
    model = unwrapped(model)
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
