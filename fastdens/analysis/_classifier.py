"""A network as a classifier, with checked inputs and outputs, for certificates and attacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from fastdens.activations import Passes, evaluating, model_device, model_dtype, only_tensor
from fastdens.analysis.arguments import as_numpy


class Classifier:
    """A model that maps inputs to checked logits.

    Parameters
    ----------
    model : nn.Module
    device : torch.device or str, optional
        Device of the inputs; by default that of the model's parameters.

    Attributes
    ----------
    device : torch.device
    dtype : torch.dtype
        Type of inputs and logits: that of the model, or float32 for a model in half precision, whose inputs are rounded
        last.
    """

    def __init__(self, model: nn.Module, device: torch.device | str | None = None) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is {type(model).__name__}, but it must be a torch.nn.Module.")
        self.model = model
        self.device = model_device(model) if device is None else torch.device(device)
        self._model_dtype = model_dtype(model) or torch.float32
        self.dtype = torch.promote_types(self._model_dtype, torch.float32)
        self._run: Passes

    @contextmanager
    def evaluating(self, *, gradients: bool = False) -> Iterator[None]:
        """Evaluation mode, as of :func:`fastdens.activations.evaluating`, in which the classifier is called."""
        with evaluating(self.model, gradients=gradients) as self._run:
            yield

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits [B, K] of inputs [B, ...]."""
        # A copy: the model may work in place. Outside of inference mode, or it could not.
        with torch.inference_mode(False):
            own = inputs.to(self._model_dtype, copy=True)
        output = self._run(own)
        if not isinstance(output, Tensor | tuple | list):
            tensor = only_tensor(output)
            output = output if tensor is None else tensor
        if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(inputs) or output.shape[1] < 2:
            what = f"shape {list(output.shape)}" if isinstance(output, Tensor) else f"type {type(output).__name__}"
            raise ValueError(
                f"the model gives an output of {what} for {len(inputs)} inputs, but a classifier gives "
                f"[{len(inputs)}, classes] with at least 2 classes: wrap the model so that it does."
            )
        return output.to(self.dtype)

    def begin(self, number: int) -> None:
        """Let the random numbers of a model that draws some follow from a number, and not from the calls before."""
        self._run.begin(number)

    def first_logits(self, inputs: Tensor) -> Tensor:
        """Logits [1, K] of the first input, which tell the number of classes."""
        return self(inputs[:1].to(self.device, self.dtype))


def predicted_classes(logits: Tensor) -> Tensor:
    """The class of the largest logit, int64 [B]; -1 where a logit is NaN."""
    return logits.argmax(1).masked_fill(logits.isnan().any(1), -1)


def as_inputs(x: ArrayLike | Tensor) -> Tensor:
    """Inputs [N, ...] of a network as a tensor; half precision becomes float32.

    Raises
    ------
    ValueError
        If there are no inputs, or one holds NaN or infinity.
    TypeError
        If they are not floating-point numbers.
    """
    # torch warns about read-only arrays and rejects negative strides.
    tensor = x.detach() if isinstance(x, Tensor) else torch.from_numpy(np.require(as_numpy(x), requirements=["C", "W"]))
    if not tensor.is_floating_point():
        raise TypeError(f"x is {tensor.dtype}, but noise can only be added to floating-point numbers: pass x.float().")
    if tensor.element_size() < 4:
        tensor = tensor.float()
    if tensor.ndim < 2 or tensor.numel() == 0:
        raise ValueError(f"x has shape {list(tensor.shape)}, but it must be [N, ...] with at least one example.")
    finite = torch.isfinite(tensor).flatten(1).all(1)
    if not finite.all():
        raise ValueError(f"example {int(finite.int().argmin())} of x holds NaN or infinity: leave it out.")
    return tensor


def random_generator(device: torch.device, *key: int) -> torch.Generator:
    """A generator on the device, seeded by non-negative integers."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(seed)
