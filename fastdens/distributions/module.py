"""Modules of torch whose numbers half precision would spoil."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from fastdens.kernels.surroundings import Undisturbed


class PreciseModule(Undisturbed, nn.Module):
    """A module that computes in float32 or float64, under autocast too; ``half()`` and its like leave it as it is."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        applied: Self = super()._apply(  # type: ignore[no-untyped-call]
            lambda tensor: _at_least_float32(fn(tensor), tensor), recurse
        )
        return applied


def _at_least_float32(moved: Tensor, tensor: Tensor) -> Tensor:
    """What has become of a tensor, on its device, but not in half precision."""
    return tensor.to(moved.device) if moved.dtype in (torch.float16, torch.bfloat16) else moved
