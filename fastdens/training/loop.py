"""The training loop, which repeats bit for bit, and predictions of a trained network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdens.activations import evaluating, model_device, model_dtype, only_tensor
from fastdens.progress import progress_bar
from fastdens.training.augmentation import augmented
from fastdens.training.datasets import StreamedImages, reading
from fastdens.training.recipe import check_training

# The linear cycle: the learning rate of its ends, and the share of the steps in which it rises.
_END_RATE, _RISE = 1e-6, 0.15


def train(
    model: nn.Module,
    images: Tensor | StreamedImages,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    schedule: str = "cosine",
    weight_decay: float = 5e-4,
    noise: float | Tensor = 0.0,
    augment: bool = True,
    augmentation: str = "affine",
    dtype: str = "float32",
    examples: Tensor | None = None,
    generator: torch.Generator,
    progress: bool = True,
) -> None:
    """Train a classifier in place by SGD with Nesterov momentum 0.9 and a one-cycle learning rate.

    The same generator gives the same weights, bit for bit, on the same device with the same number of threads.

    Parameters
    ----------
    model : nn.Module
        On the device to train on; in evaluation mode afterwards.
    images : Tensor or StreamedImages
        [N, channels, height, width], in main memory or in files, which gives the same bits.
    labels : Tensor
        int64 [N], in main memory.
    epochs, batch_size : int
        Passes over the examples, and examples of one step.
    learning_rate : float
        The maximum of the cycle.
    schedule : {"cosine", "linear"}
        The cycle of the learning rate: half cosines, up from a 25th in three tenths of the steps, and down to nearly
        nothing; or straight lines, up from 1e-6 in 15% of the steps, and down to 1e-6.
    weight_decay : float
        Factor of half the squared norm of the weights.
    noise : float or Tensor
        Standard deviation of Gaussian noise, in the units of the images, added to each image anew each epoch, as
        randomized smoothing requires. One number, or [1, channels, 1, 1].
    augment : bool
        Change each image at random, differently each epoch.
    augmentation : {"affine", "crop_flip"}
        "affine" rotates an image by up to 10 degrees, scales it by up to a tenth and shifts it by up to an eighth of
        half its width. "crop_flip" pads it by an eighth of its size on each side with zeros, which are the mean colour,
        cuts a window of the old size out at random, and mirrors every second one.
    dtype : {"float32", "bfloat16"}
        "bfloat16" is torch's automatic mixed precision: faster, weights stay float32.
    examples : Tensor, optional
        int64, indices of the examples to train on; by default all N.
    generator : torch.Generator
        On the CPU; draws the order of the examples, the augmentation and the noise.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        If a number is out of range, there is no such dtype, schedule or augmentation, or there are fewer than two
        examples.
    OSError
        If a file of streamed images is missing or damaged, or a process that decodes them was killed.
    ImportError
        If ``progress`` is True and rich is not installed.

    References
    ----------
    Cohen et al., Certified adversarial robustness via randomized smoothing, ICML 2019, section 3.3 (the noise).

    Examples
    --------
    >>> import torch
    >>> from fastdens.training import predict, train
    >>> labels = torch.arange(64) % 2
    >>> images = torch.randn(64, 3, 8, 8) + 3 * labels[:, None, None, None]
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    >>> how = {"epochs": 5, "batch_size": 8, "learning_rate": 0.01, "augment": False, "progress": False}
    >>> train(model, images, labels, generator=torch.Generator().manual_seed(0), **how)
    >>> bool((predict(model, images) == labels).float().mean() > 0.9)
    True
    """
    check_training(
        epochs=epochs,
        batch_size=batch_size,
        noise=noise,
        dtype=dtype,
        schedule=schedule,
        augmentation=augmentation,
    )
    examples = torch.arange(len(images), device="cpu") if examples is None else examples
    n_examples = len(examples)
    if n_examples < 2:
        raise ValueError(f"there are {n_examples} examples to train on, but a network needs two or more: pass more.")
    device = model_device(model)
    memory_format = _memory_format(model, device)
    model.to(memory_format=memory_format)
    optimizer = torch.optim.SGD(
        model.parameters(), learning_rate, momentum=0.9, weight_decay=weight_decay, nesterov=True
    )
    n_batches = math.ceil(n_examples / batch_size)
    cycle = _one_cycle(optimizer, learning_rate, schedule, epochs * n_batches)
    noise_generator = torch.Generator(device)
    deviation = torch.as_tensor(noise, dtype=torch.float32, device=device)
    noisy = bool(deviation.any())
    if noisy:
        noise_generator.manual_seed(int(torch.randint(2**62, (), generator=generator, device="cpu")))
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")
    model.train()
    with (
        progress_bar("Training", epochs, shown=progress) as advance,
        _deterministic_convolutions(),
        reading(images) as batches,
    ):
        for _ in range(epochs):
            # Summed on the device: reading them after each step would keep it waiting for the next.
            total, correct = torch.zeros(2, dtype=torch.float32, device=device)
            # Near-equal batches: one of a single example would have no variance to normalize by.
            order = torch.randperm(n_examples, generator=generator, device="cpu")
            rows = examples[order].tensor_split(n_batches)
            for chosen, shown in zip(rows, batches(rows), strict=True):
                batch, target = shown.to(device), labels[chosen].to(device)
                if augment:
                    batch = augmented(batch, augmentation, generator)
                if noisy:
                    noise = torch.randn(batch.shape, dtype=torch.float32, device=device, generator=noise_generator)
                    batch = batch + deviation * noise
                with mixed:
                    output = model(batch.contiguous(memory_format=memory_format))
                loss = F.cross_entropy(output.float(), target)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                cycle.step()
                total += loss.detach() * len(chosen)
                correct += (output.argmax(1) == target).sum()
            advance(note=f"loss {total / n_examples:.3f}, training accuracy {correct / n_examples:.3f}")
    model.to(memory_format=torch.contiguous_format)
    model.eval()


def predict(model: nn.Module, images: Tensor | StreamedImages, batch_size: int = 256) -> Tensor:
    """Labels that the network assigns to images.

    Parameters
    ----------
    model : nn.Module
        On the device to compute on. From images to logits [B, classes], which may be the only tensor of a dict or a
        dataclass. It runs in evaluation mode and is given back as it was.
    images : Tensor or StreamedImages
        [N, channels, height, width].
    batch_size : int
        Images of one forward pass.

    Returns
    -------
    Tensor
        int64 [N], in main memory.

    Raises
    ------
    ValueError
        If the model gives no logits.
    OSError
        If a file of streamed images is missing or damaged, or a process that decodes them was killed.

    Examples
    --------
    >>> import torch
    >>> from fastdens.training import predict
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    >>> predict(model, torch.randn(5, 3, 8, 8)).shape
    torch.Size([5])
    """
    device, dtype = model_device(model), model_dtype(model)
    rows = torch.split(torch.arange(len(images), device="cpu"), batch_size)
    found = []
    with torch.inference_mode(False), torch.no_grad(), evaluating(model) as run, reading(images) as batches:
        for batch in batches(rows):
            # A copy: the model may work in place.
            logits = only_tensor(run(batch.to(device, dtype or batch.dtype, copy=True)))
            if logits is None or logits.ndim != 2:
                raise ValueError(
                    "the model does not give logits [batch, classes]: wrap it so that it does, or analyze activations."
                )
            found.append(logits.argmax(1).cpu())
    return torch.cat(found)


def _one_cycle(
    optimizer: torch.optim.Optimizer, learning_rate: float, schedule: str, n_steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    """The learning rate of each step, up to its maximum and down again."""
    shape: dict[str, Any] = {}
    if schedule == "linear":
        ends = {"div_factor": learning_rate / _END_RATE, "final_div_factor": 1.0}
        shape = {"anneal_strategy": "linear", "pct_start": _RISE, **ends}
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=n_steps, cycle_momentum=False, **shape
    )


@contextmanager
def _deterministic_convolutions() -> Iterator[None]:
    """Restrict convolutions on a GPU to deterministic algorithms."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def _memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last, which is the fastest, except on a CPU where torch 2.14 then corrupts memory.

    It does so when a convolution has fewer than 8 channels, and with several threads at some batch sizes.
    """
    narrow = any(isinstance(module, nn.Conv2d) and module.out_channels < 8 for module in model.modules())
    if device.type == "cpu" and (narrow or torch.get_num_threads() > 1):
        return torch.contiguous_format
    return torch.channels_last
