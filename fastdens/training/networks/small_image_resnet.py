"""The residual networks of the paper: torchvision's, with a stem for images of 32 x 32 pixels or fewer."""

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


class SmallImageResNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet with a 3x3 first convolution of stride 1 and no max-pooling.

    Parameters
    ----------
    block : {BasicBlock, Bottleneck}
    blocks : sequence of int
        Blocks of each stage.
    n_classes, n_channels : int
        Number of outputs, and of channels of an image.
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
    return SmallImageResNet(block, blocks, n_classes, n_channels, width)
