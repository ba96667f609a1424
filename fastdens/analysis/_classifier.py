"""A network as a classifier, with checked inputs and outputs, for certificates and attacks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

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
        parameter = next(
            (p for p in model.parameters() if p.is_floating_point()), torch.empty(0, dtype=torch.float32, device="cpu")
        )
        self.model = model
        self.device = parameter.device if device is None else torch.device(device)
        self.dtype = torch.promote_types(parameter.dtype, torch.float32)
        self._model_dtype = parameter.dtype

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits [B, K] of inputs [B, ...]."""
        output = self.model(inputs.to(self._model_dtype))
        if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(inputs) or output.shape[1] < 2:
            what = f"shape {list(output.shape)}" if isinstance(output, Tensor) else f"type {type(output).__name__}"
            raise ValueError(
                f"the model gives an output of {what} for {len(inputs)} inputs, but a classifier gives "
                f"[{len(inputs)}, classes] with at least 2 classes: wrap the model so that it does."
            )
        return output.to(self.dtype)

    def n_classes(self, inputs: Tensor) -> int:
        """Number of classes, from the output for the first input."""
        return self(inputs[:1].to(self.device, self.dtype)).shape[1]


def predicted_classes(logits: Tensor) -> Tensor:
    """The class of the largest logit, int64 [B]; -1 where a logit is NaN."""
    return logits.argmax(1).masked_fill(logits.isnan().any(1), -1)


def as_inputs(x: ArrayLike | Tensor) -> Tensor:
    """Inputs [N, ...] of a network as a tensor.

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
