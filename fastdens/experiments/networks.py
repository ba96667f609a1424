"""Residual networks for small images, as in the paper: torchvision's, with another stem and any width."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from fastdens.names import nearest_names

STAGES = ("layer1", "layer2", "layer3", "layer4")

_NETWORKS = {"resnet18": (BasicBlock, (2, 2, 2, 2)), "resnet50": (Bottleneck, (3, 4, 6, 3))}


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
    """The network of that name: resnet18 or resnet50."""
    if name not in _NETWORKS:
        raise ValueError(f"there is no network {name!r}: the nearest names are {nearest_names(name, _NETWORKS)}.")
    block, blocks = _NETWORKS[name]
    return SmallImageResNet(block, blocks, n_classes, n_channels, width)
