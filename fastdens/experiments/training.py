"""Training of a classifier, with some labels flipped so that memorized examples are known."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdens.progress import progress_bar


class FlippedLabels(NamedTuple):
    """Labels int64 [N] and which of them were flipped, bool [N]."""

    labels: Tensor
    flipped: Tensor


def flip_labels(labels: Tensor, share: float, n_classes: int, generator: torch.Generator) -> FlippedLabels:
    """Give a random share of the examples another label, each other label as likely."""
    n_flipped = round(share * len(labels))
    chosen = torch.randperm(len(labels), generator=generator)[:n_flipped]
    flipped = torch.zeros(len(labels), dtype=torch.bool)
    flipped[chosen] = True
    step = torch.randint(1, n_classes, (n_flipped,), generator=generator)
    given = labels.clone()
    given[chosen] = (labels[chosen] + step) % n_classes
    return FlippedLabels(given, flipped)


def _jittered(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned by up to 10 degrees, scaled by up to a tenth and moved by up to an eighth of its half-width."""
    n = len(images)
    angle = (2 * torch.rand(n, generator=generator) - 1) * math.radians(10)
    scale = 1 + (2 * torch.rand(n, generator=generator) - 1) * 0.1
    shift = (2 * torch.rand(n, 2, generator=generator) - 1) * 0.125
    cos, sin = scale * angle.cos(), scale * angle.sin()
    affine = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    affine = torch.cat([affine, shift[:, :, None]], 2).to(images)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="border")


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    weight_decay: float = 5e-4,
    generator: torch.Generator,
    progress: bool = True,
) -> None:
    """Train in place: SGD with Nesterov momentum 0.9, one cycle of the learning rate, jittered images.

    Parameters
    ----------
    model : nn.Module
        On the device to train on.
    images, labels : Tensor
        [N, channels, height, width] and int64 [N], in main memory.
    epochs, batch_size : int
    learning_rate, weight_decay : float
        The largest rate of the cycle; the decay of weights.
    generator : torch.Generator
        Of the order of the examples and the jitter.
    progress : bool
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(
        model.parameters(), learning_rate, momentum=0.9, weight_decay=weight_decay, nesterov=True
    )
    n_batches = math.ceil(len(images) / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * n_batches)
    model.train()
    with progress_bar("Training", epochs, shown=progress) as advance:
        for _ in range(epochs):
            total, correct = 0.0, 0
            # Near-equal batches: one of a single example would have no variance to normalize by.
            for chosen in torch.randperm(len(images), generator=generator).tensor_split(n_batches):
                batch, target = _jittered(images[chosen], generator).to(device), labels[chosen].to(device)
                output = model(batch)
                loss = F.cross_entropy(output, target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += float(loss.detach()) * len(chosen)
                correct += int((output.argmax(1) == target).sum())
            advance(note=f"loss {total / len(images):.3f}, given labels fitted {correct / len(images):.3f}")
    model.eval()


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Labels that the network gives, int64 [N], in main memory."""
    device = next(model.parameters()).device
    model.eval()
    return torch.cat([model(batch.to(device)).argmax(1).cpu() for batch in images.split(batch_size)])
