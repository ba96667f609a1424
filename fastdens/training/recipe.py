"""Training of a classifier, with some labels flipped so that memorized examples are known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdens.progress import progress_bar

DTYPES = ("float32", "bfloat16")


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


def check_training(*, epochs: int, batch_size: int, noise: float | Tensor, dtype: str) -> None:
    """Refuse what :func:`train` cannot do.

    Raises
    ------
    ValueError
        If a number is out of range or there is no such dtype.
    """
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 2)):
        if value < least:
            raise ValueError(f"{name} is {value}, but training needs {least} or more: pass a larger number.")
    deviations = torch.as_tensor(noise)
    if not bool((deviations.isfinite() & (deviations >= 0)).all()):
        raise ValueError(f"noise is {noise}, but it is a standard deviation: pass 0 or a positive number.")
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, but it is one of {', '.join(map(repr, DTYPES))}: pass one.")


def _augmented(images: Tensor, generator: torch.Generator) -> Tensor:
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
    noise: float | Tensor = 0.0,
    augment: bool = True,
    dtype: str = "float32",
    examples: Tensor | None = None,
    generator: torch.Generator,
    progress: bool = True,
) -> None:
    """Train in place: SGD with Nesterov momentum 0.9 and one cycle of the learning rate.

    The same generator gives the same weights, bit for bit, on the same device with the same number of threads.

    Parameters
    ----------
    model : nn.Module
        On the device to train on.
    images, labels : Tensor
        [N, channels, height, width] and int64 [N], in main memory.
    epochs, batch_size : int
    learning_rate, weight_decay : float
        The largest rate of the cycle; the decay of weights.
    noise : float or Tensor
        Standard deviation, in the units of the images, of Gaussian noise that is added to them, drawn anew each time:
        what randomized smoothing wants a network to be trained with. One number, or [1, channels, 1, 1].
    augment : bool
        Turn, scale and move each image a little, each time otherwise.
    dtype : {"float32", "bfloat16"}
        "bfloat16" is torch's automatic mixed precision: faster, weights stay float32.
    examples : Tensor, optional
        int64, indices of the examples to train on; by default all N.
    generator : torch.Generator
        On the CPU; of the order of the examples, the augmentation and the noise.
    progress : bool

    Raises
    ------
    ValueError
        If a number is out of range, or there is no such dtype, or there are fewer than two examples.

    References
    ----------
    Cohen et al., Certified adversarial robustness via randomized smoothing, ICML 2019, section 3.3 (the noise).
    """
    check_training(epochs=epochs, batch_size=batch_size, noise=noise, dtype=dtype)
    examples = torch.arange(len(images)) if examples is None else examples
    n_examples = len(examples)
    if n_examples < 2:
        raise ValueError(f"there are {n_examples} examples to train on, but a network needs two or more: pass more.")
    device = next(model.parameters()).device
    memory_format = _fastest_memory_format(device)
    model.to(memory_format=memory_format)
    optimizer = torch.optim.SGD(
        model.parameters(), learning_rate, momentum=0.9, weight_decay=weight_decay, nesterov=True
    )
    n_batches = math.ceil(n_examples / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * n_batches, cycle_momentum=False
    )
    noise_generator = torch.Generator(device)
    deviation = torch.as_tensor(noise, dtype=torch.float32, device=device)
    noisy = bool(deviation.any())
    if noisy:
        noise_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")
    model.train()
    with progress_bar("Training", epochs, shown=progress) as advance, _deterministic_convolutions():
        for _ in range(epochs):
            # Summed on the device: reading them after each step would keep it waiting for the next.
            total, correct = torch.zeros((), device=device), torch.zeros((), device=device)
            # Near-equal batches: one of a single example would have no variance to normalize by.
            for chosen in examples[torch.randperm(n_examples, generator=generator)].tensor_split(n_batches):
                batch, target = images[chosen].to(device), labels[chosen].to(device)
                if augment:
                    batch = _augmented(batch, generator)
                if noisy:
                    batch = batch + deviation * torch.randn(batch.shape, generator=noise_generator, device=device)
                with mixed:
                    output = model(batch.contiguous(memory_format=memory_format))
                loss = F.cross_entropy(output.float(), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.detach() * len(chosen)
                correct += (output.argmax(1) == target).sum()
            advance(note=f"loss {total / n_examples:.3f}, given labels fitted {correct / n_examples:.3f}")
    model.to(memory_format=torch.contiguous_format)
    model.eval()


@contextmanager
def _deterministic_convolutions() -> Iterator[None]:
    """Convolutions on a GPU by algorithms that give the same bits each time."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def _fastest_memory_format(device: torch.device) -> torch.memory_format:
    """Channels last, except where several threads train on a CPU: torch 2.14 crashes there at some batch sizes."""
    if device.type == "cpu" and torch.get_num_threads() > 1:
        return torch.contiguous_format
    return torch.channels_last


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Labels that the network gives, int64 [N], in main memory."""
    device = next(model.parameters()).device
    model.eval()
    return torch.cat([model(batch.to(device)).argmax(1).cpu() for batch in images.split(batch_size)])
