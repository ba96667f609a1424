"""The residual networks of the paper: torchvision's, with a stem for images of 32 x 32 or of 84 x 84 pixels."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from fastdens.kernels.options import suggest
from fastdens.training.networks.layers import STAGES

_BLOCKS_OF_STAGES = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
NAMES = tuple(_BLOCKS_OF_STAGES)

# Larger images get the stem of stride 3.
_LARGEST_FOR_STRIDE_1 = 64


class SmallImageResNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet with a 3x3 first convolution and no max-pooling.

    Parameters
    ----------
    block : {BasicBlock, Bottleneck}
    blocks : sequence of int
        Blocks of each stage.
    n_classes, n_channels : int
        Number of outputs, and of channels of an image.
    width : int
        Channels of the first stage (before a bottleneck's expansion); each later stage doubles them.
    stem : {"stride1", "stride3"}
        The first convolution: stride 1 and padding 1, which keeps the size, for CIFAR's images; or stride 3 and padding
        6, which makes 32 x 32 of Mini-ImageNet's 84 x 84.

    References
    ----------
    He et al., Deep residual learning for image recognition, CVPR 2016, section 4.2 (stride 1). Jamroz & Kurdziel,
    Neural Representations Reveal Distinct Modes of Class Fitting in Residual Convolutional Networks, AAAI 2023
    (stride 3).
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        blocks: tuple[int, int, int, int],
        n_classes: int,
        n_channels: int = 3,
        width: int = 64,
        stem: str = "stride1",
    ) -> None:
        super().__init__(block, list(blocks), num_classes=n_classes)
        self.inplanes = width
        stride, padding = (3, 6) if stem == "stride3" else (1, 1)
        self.conv1 = nn.Conv2d(n_channels, width, 3, stride=stride, padding=padding, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity()
        for stage, (name, n_blocks) in enumerate(zip(STAGES, blocks, strict=True)):
            setattr(self, name, self._make_layer(block, width << stage, n_blocks, stride=1 if stage == 0 else 2))
        self.fc = nn.Linear((width << 3) * block.expansion, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def choose_stem(stem: str, image_size: int | None) -> str:
    """The stem that "auto" stands for: "stride3" for images over 64 pixels; any other is returned unchanged."""
    if stem != "auto":
        return stem
    return "stride3" if image_size is not None and image_size > _LARGEST_FOR_STRIDE_1 else "stride1"


def small_image_resnet(
    name: str, n_classes: int, n_channels: int, width: int, stem: str = "stride1"
) -> SmallImageResNet:
    """A :class:`SmallImageResNet` by name: resnet18, resnet34, resnet50 or resnet101.

    Raises
    ------
    ValueError
        If there is no such network.
    """
    if name not in _BLOCKS_OF_STAGES:
        raise ValueError(
            f"there is no network {name!r} for small images: the nearest names are {suggest(name, NAMES)}."
        )
    block, blocks = _BLOCKS_OF_STAGES[name]
    return SmallImageResNet(block, blocks, n_classes, n_channels, width, stem)


def start_blocks_as_identity(model: nn.Module, name: str) -> None:
    """Set the scale of the last batch norm of each residual block to zero, in place.

    Raises
    ------
    ValueError
        If the model has no residual block of torchvision's.

    References
    ----------
    Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017, section 5.1.
    """
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock | Bottleneck)]
    if not blocks:
        raise ValueError(
            f"zero_init is for residual networks of torchvision's blocks, and {name} has none: leave it out."
        )
    for block in blocks:
        nn.init.zeros_((block.bn3 if isinstance(block, Bottleneck) else block.bn2).weight)
