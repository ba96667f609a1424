"""Points of many models in one tensor, sorted by model, with the index back to the caller's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.kernels.layout import Layout, offsets_of
from fastdens.kernels.surroundings import is_differentiated, is_transformed


def as_points(x: ArrayLike | Tensor, name: str = "x") -> Tensor:
    """A tensor [N, D] of float32 or float64: integers become float64, half precision float32.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers.
    ValueError
        If ``x`` is not two-dimensional or has no columns.
    NotImplementedError
        If torch.func or forward mode differentiates ``x``; a gradient that autograd would record is left out.
    """
    tensor = _as_tensor(x, name)
    if is_transformed() and is_differentiated(tensor):
        raise NotImplementedError(
            f"{name} is differentiated, but its numbers are taken without derivatives here: log_prob of a density and "
            f"transform of a projection have derivatives; elsewhere pass {name}.detach()."
        )
    if tensor.is_complex():
        raise TypeError(f"{name} holds complex numbers, but a density needs real ones: pass its real part.")
    if tensor.ndim != 2:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, but points are [N, D]: reshape it, "
            "e.g. x[:, None] for one feature."
        )
    if tensor.shape[1] == 0:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but points need at least one feature.")
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    elif not tensor.is_floating_point():
        tensor = tensor.double()
    return tensor.detach().contiguous()


def _as_tensor(x: Any, name: str) -> Tensor:
    if isinstance(x, Tensor):
        return x
    try:
        array = np.asarray(x)
        # torch shares memory with the array and warns if it may not write; nothing here writes.
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} cannot be read as an array of numbers: {error}.") from None


@dataclass(frozen=True)
class RaggedBatch:
    """Points of M models of unequal size.

    Attributes
    ----------
    points : Tensor
        [N, D], sorted by model, float32 or float64.
    offsets : Tensor
        int64 [M + 1] on the device of the points: model m owns ``points[offsets[m]:offsets[m + 1]]``.
    index : Tensor
        int64 [N]: ``points[i]`` is row ``index[i]`` of what the caller gave.
    labels : tuple of int
        The class of each model, for messages.
    layer : str or None
        The network layer the points come from, for messages.
    """

    points: Tensor
    offsets: Tensor
    index: Tensor
    labels: tuple[int, ...]
    layer: str | None = None

    @classmethod
    def from_labels(
        cls, x: ArrayLike | Tensor, y: ArrayLike | Tensor, *, n_classes: int | None = None, layer: str | None = None
    ) -> RaggedBatch:
        """One model for each class 0, ..., ``n_classes - 1``.

        Parameters
        ----------
        x : array or Tensor
            [N, D].
        y : array or Tensor
            [N] integers from 0. A class without points stays in the batch; estimators report it by its name.
        n_classes : int, optional
            By default the largest label plus one.
        layer : str, optional
            Name of the layer, for messages.

        Raises
        ------
        TypeError, ValueError
            If ``x`` is not [N, D] or ``y`` not N integers in range.
        """
        points = as_points(x)
        labels = _as_tensor(y, "y")
        if labels.ndim != 1 or len(labels) != len(points):
            raise ValueError(
                f"y has shape {tuple(labels.shape)}, but x has {len(points)} rows: pass one label for each row."
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise TypeError(f"y has dtype {labels.dtype}, but labels are integers: pass y.long() or integer codes.")
        labels = labels.to(device=points.device, dtype=torch.int64)
        if len(labels) == 0:
            raise ValueError("x has no rows: pass at least one point.")
        low, high = int(labels.min()), int(labels.max())
        if low < 0:
            raise ValueError(f"y has the label {low}, but classes count from 0: drop or renumber those rows.")
        if n_classes is None:
            n_classes = high + 1
        elif high >= n_classes:
            raise ValueError(f"y has the label {high}, but n_classes is {n_classes}: it must be at least {high + 1}.")
        offsets = offsets_of(torch.bincount(labels, minlength=n_classes))
        if bool((labels[1:] >= labels[:-1]).all()):
            index = torch.arange(len(points), device=points.device)
        else:
            index = torch.argsort(labels, stable=True)
            points = points[index]
        return cls(points, offsets, index, tuple(range(n_classes)), layer)

    @classmethod
    def from_list(
        cls,
        arrays: Sequence[ArrayLike | Tensor],
        *,
        labels: Sequence[int] | None = None,
        layer: str | None = None,
    ) -> RaggedBatch:
        """One model for each array [N_m, D]; rows count through the arrays in their order.

        Parameters
        ----------
        arrays : sequence of array or Tensor
            All of the same D and on the same device.
        labels : sequence of int, optional
            The class of each array, for messages; by default its position.
        layer : str, optional
            Name of the layer, for messages.

        Raises
        ------
        TypeError, ValueError
            If an array is not [N_m, D], or they disagree.
        """
        parts = [as_points(x, f"array {m}") for m, x in enumerate(arrays)]
        if not parts:
            raise ValueError("arrays is empty: pass one array for each model.")
        for m, part in enumerate(parts):
            if part.shape[1] != parts[0].shape[1]:
                raise ValueError(
                    f"array {m} has {part.shape[1]} features and array 0 has {parts[0].shape[1]}: models of different "
                    "D belong in batches of their own."
                )
            if part.device != parts[0].device:
                raise ValueError(
                    f"array {m} is on {part.device} and array 0 on {parts[0].device}: move them to one device."
                )
        names = tuple(range(len(parts))) if labels is None else tuple(int(label) for label in labels)
        if len(names) != len(parts):
            raise ValueError(f"labels has {len(names)} entries for {len(parts)} arrays: pass one for each.")
        dtype = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
        points = torch.cat([part.to(dtype) for part in parts])
        offsets = offsets_of(torch.tensor([len(part) for part in parts], device="cpu"))
        index = torch.arange(len(points), device=points.device)
        return cls(points, offsets.to(points.device), index, names, layer)

    @property
    def n_models(self) -> int:
        """Number of models M."""
        return len(self.offsets) - 1

    @property
    def n_features(self) -> int:
        """Number of dimensions D."""
        return self.points.shape[1]

    @property
    def sizes(self) -> Tensor:
        """int64 [M], points of each model."""
        return self.offsets.diff()

    @cached_property
    def layout(self) -> Layout:
        """The rows of each model, as operations of :mod:`fastdens.kernels` take them; made once."""
        return Layout.from_offsets(self.offsets, len(self.points))

    @property
    def ranges(self) -> Tensor:
        """int64 [M, 2], first row and one past the last row of each model."""
        return self.layout.ranges

    @property
    def model_of_row(self) -> Tensor:
        """int64 [N], the model of each (sorted) row."""
        return torch.repeat_interleave(torch.arange(self.n_models, device=self.offsets.device), self.sizes)

    def describe(self, model: int) -> str:
        """The name of a model in messages."""
        layer = "" if self.layer is None else f", layer {self.layer!r}"
        return f"model {model} (class {self.labels[model]}{layer})"

    def select(self, models: Tensor) -> RaggedBatch:
        """Some of the models, int64 [A] in ascending order; ``index`` still counts all rows of the caller."""
        offsets = offsets_of(self.sizes[models])
        rows = torch.isin(self.model_of_row, models)
        labels = tuple(self.labels[m] for m in models.tolist())
        return RaggedBatch(self.points[rows], offsets, self.index[rows], labels, self.layer)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> RaggedBatch:
        """The batch on another device or in another floating-point type."""
        return RaggedBatch(
            self.points.to(device=device, dtype=dtype),
            self.offsets.to(device=device),
            self.index.to(device=device),
            self.labels,
            self.layer,
        )

    def in_caller_order(self, values: Tensor) -> Tensor:
        """Values of the sorted rows [N, ...], brought to the caller's row order."""
        out = torch.empty_like(values)
        out[self.index] = values
        return out
