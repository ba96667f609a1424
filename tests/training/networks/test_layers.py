"""Layers that are analysed by default."""

from __future__ import annotations

import pytest
from torch import nn

from fastdens.training import build_network, default_layers


def test_default_layers_are_equally_spaced_blocks():
    class Blocks(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.blocks = nn.Sequential(*(nn.Identity() for _ in range(n)))

    for n, expected in ((2, [0, 1]), (4, [0, 1, 2, 3]), (12, [2, 5, 8, 11]), (10, [1, 4, 6, 9])):
        assert default_layers(Blocks(n)) == [f"blocks.{i}" for i in expected]
    with pytest.raises(ValueError, match=r"--layers.* 'features', 'avgpool', 'classifier'"):
        default_layers(build_network("torchvision/vgg11", 2))
