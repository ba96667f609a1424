"""Random changes of training images, drawn anew for each batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# The affine transform: degrees, a share of the size, and a share of half the width.
_MAX_ROTATION, _MAX_SCALING, _MAX_SHIFT = 10, 0.1, 0.125
# Crops are shifted by up to an eighth: 4 pixels of 32, 10 of 84.
_PIXELS_PER_SHIFT = 8


def augmented(images: Tensor, augmentation: str, generator: torch.Generator) -> Tensor:
    """The images, each changed by random numbers of its own.

    Parameters
    ----------
    images : Tensor
        [B, channels, height, width], standardized.
    augmentation : {"affine", "crop_flip"}
        "affine" rotates an image by up to 10 degrees, scales it by up to a tenth and shifts it by up to an eighth of
        half its width. "crop_flip" pads it by an eighth of its size on each side (4 pixels of 32, 10 of 84) with zeros,
        which are the mean colour, cuts a window of the old size out at random, and mirrors every second one.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor
        As ``images``.
    """
    return _affine(images, generator) if augmentation == "affine" else _crop_flip(images, generator)


def _affine(images: Tensor, generator: torch.Generator) -> Tensor:
    n = len(images)

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(shape, dtype=torch.float32, device="cpu", generator=generator) - 1

    angle = uniform(n) * math.radians(_MAX_ROTATION)
    scale = 1 + uniform(n) * _MAX_SCALING
    shift = uniform(n, 2) * _MAX_SHIFT
    cos, sin = scale * angle.cos(), scale * angle.sin()
    affine = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    affine = torch.cat([affine, shift[:, :, None]], 2).to(images)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="border")


def _crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    n, _, height, width = images.shape
    rows = _window(n, height, generator)
    columns = _window(n, width, generator)
    mirrored = torch.rand(n, dtype=torch.float32, device="cpu", generator=generator) < 0.5
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = F.pad(images, [width // _PIXELS_PER_SHIFT] * 2 + [height // _PIXELS_PER_SHIFT] * 2)
    index = torch.arange(n, device=images.device)[:, None, None]
    # Indexed by example, row and column, the channels come last.
    windows = padded.movedim(1, -1)[index, rows.to(images.device)[:, :, None], columns.to(images.device)[:, None, :]]
    return windows.movedim(-1, 1)


def _window(n: int, length: int, generator: torch.Generator) -> Tensor:
    """Positions int64 [n, length] of a window in each padded axis."""
    start = torch.randint(2 * (length // _PIXELS_PER_SHIFT) + 1, (n, 1), device="cpu", generator=generator)
    return start + torch.arange(length, device="cpu")
