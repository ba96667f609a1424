"""Points of many models in one tensor, sorted by model, with the index back to the caller's rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.arrays import as_tensor, check_points_shape
from fastdens.kernels.layout import Layout, offsets_of
from fastdens.kernels.surroundings import is_differentiated, is_transformed
from fastdens.labels import Labels, encode, encode_as, read_labels


def as_points(x: ArrayLike | Tensor, name: str = "x") -> Tensor:
    """A tensor [N, D] of float32 or float64: integers become float64, half precision float32.

    Every kind of array that :mod:`fastdens.arrays` knows is taken.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers.
    ValueError
        If ``x`` is not two-dimensional, has no columns, or has a masked or missing value.
    NotImplementedError
        If torch.func or forward mode differentiates ``x``; a gradient that autograd would record is left out.
    """
    tensor = as_tensor(x, name)
    if is_transformed() and is_differentiated(tensor):
        raise NotImplementedError(
            f"{name} is differentiated, but its numbers are taken without derivatives here: log_prob of a density and "
            f"transform of a projection have derivatives; elsewhere pass {name}.detach()."
        )
    check_points_shape(tuple(tensor.shape), name)
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float() if tensor.is_floating_point() else tensor.double()
    return tensor.detach().contiguous()


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
    classes : tuple
        The class of each model: a label as the caller had it.
    layer : str or None
        The network layer the points come from, for messages.
    """

    points: Tensor
    offsets: Tensor
    index: Tensor
    classes: tuple[Hashable, ...]
    layer: str | None = None

    @classmethod
    def from_labels(
        cls,
        x: ArrayLike | Tensor,
        y: ArrayLike | Tensor,
        *,
        n_classes: int | None = None,
        classes: Sequence[Hashable] | None = None,
        layer: str | None = None,
    ) -> RaggedBatch:
        """One model for each class.

        By default the classes are the labels that occur, sorted as :func:`numpy.unique` sorts them.

        Parameters
        ----------
        x : array or Tensor
            [N, D].
        y : array or Tensor
            [N] labels of any kind: integers of any size and with gaps, booleans, strings, dates, whole floats, or a
            column of a data frame, nullable or categorical. A missing label is an error.
        n_classes : int, optional
            The classes are 0, ..., ``n_classes - 1``, labels being integers. A class without points stays in the
            batch; estimators report it by its name.
        classes : sequence, optional
            The classes, in this order, such as ``batch.classes`` of the batch that was fitted; in place of
            ``n_classes``.
        layer : str, optional
            Name of the layer, for messages.

        Raises
        ------
        TypeError, ValueError
            If ``x`` is not [N, D], ``y`` does not hold N labels of one kind, a label is missing or none of the given
            classes, or a value of ``x`` is masked or missing.

        Examples
        --------
        >>> import fastdens as fd
        >>> batch = fd.RaggedBatch.from_labels([[1.0], [2.0], [3.0]], ["dog", "cat", "dog"])
        >>> batch.classes
        ('cat', 'dog')
        """
        points = as_points(x)
        labels = read_labels(y, len(points), "y", "x has {} rows")
        if len(points) == 0:
            raise ValueError("x has no rows: pass at least one point.")
        if n_classes is not None and classes is not None:
            raise ValueError("n_classes and classes both say what the classes are: pass one of the two.")
        names: tuple[Hashable, ...]
        if n_classes is not None:
            codes, names = _count_from_0(labels, n_classes), tuple(range(n_classes))
        elif classes is not None:
            names = tuple(classes)
            codes = encode_as(labels, names, "y")
        else:
            codes, names = encode(labels, "y")
        codes = codes.to(points.device)
        offsets = offsets_of(torch.bincount(codes, minlength=len(names)))
        if bool((codes[1:] >= codes[:-1]).all()):
            index = torch.arange(len(points), device=points.device)
        else:
            index = torch.argsort(codes, stable=True)
            points = points[index]
        return cls(points, offsets, index, names, layer)

    @classmethod
    def from_list(
        cls,
        arrays: Sequence[ArrayLike | Tensor],
        *,
        labels: Sequence[Hashable] | None = None,
        layer: str | None = None,
    ) -> RaggedBatch:
        """One model for each array [N_m, D]; rows count through the arrays in their order.

        Parameters
        ----------
        arrays : sequence of array or Tensor
            All of the same D and on the same device.
        labels : sequence, optional
            The class of each array, of any kind that ``from_labels`` takes; by default its position.
        layer : str, optional
            Name of the layer, for messages.

        Raises
        ------
        TypeError, ValueError
            If an array is not [N_m, D], or they disagree.
        """
        parts = [as_points(x, f"array {m}") for m, x in enumerate(_each(arrays))]
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
        names: tuple[Hashable, ...] = tuple(range(len(parts)))
        if labels is not None:
            if len(labels) != len(parts):
                raise ValueError(f"labels has {len(labels)} entries for {len(parts)} arrays: pass one for each.")
            names = tuple(read_labels(labels, len(parts), rows="there are {} arrays").tolist())
        dtype = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
        points = parts[0] if len(parts) == 1 else torch.cat([part.to(dtype) for part in parts])
        offsets = offsets_of(torch.tensor([len(part) for part in parts], device="cpu"))
        index = torch.arange(len(points), device=points.device)
        return cls(points, offsets.to(points.device), index, names, layer)

    @property
    def labels(self) -> tuple[Hashable, ...]:
        """The same as ``classes``, which earlier versions called so."""
        return self.classes

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
        return self.layout.sizes

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
        return f"model {model} (class {self.classes[model]!r}{layer})"

    def select(self, models: Tensor) -> RaggedBatch:
        """Some of the models, int64 [A] in ascending order; ``index`` still counts all rows of the caller."""
        offsets = offsets_of(self.sizes[models])
        rows = torch.isin(self.model_of_row, models)
        classes = tuple(self.classes[m] for m in models.tolist())
        return RaggedBatch(self.points[rows], offsets, self.index[rows], classes, self.layer)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> RaggedBatch:
        """The batch on another device or in another floating-point type; itself where it is so already."""
        points = self.points.to(device=device, dtype=dtype)
        if points is self.points:
            return self
        return RaggedBatch(
            points,
            self.offsets.to(device=device),
            self.index.to(device=device),
            self.classes,
            self.layer,
        )

    def in_caller_order(self, values: Tensor) -> Tensor:
        """Values of the sorted rows [N, ...], brought to the caller's row order."""
        out = torch.empty_like(values)
        out[self.index] = values
        return out


def _count_from_0(labels: Labels, n_classes: int) -> Tensor:
    """The labels themselves, if they are integers under ``n_classes``."""
    if isinstance(n_classes, bool) or not hasattr(n_classes, "__index__") or n_classes < 1:
        raise ValueError(f"n_classes is {n_classes!r}, but it must be an integer of at least 1.")
    if not isinstance(labels, Tensor):
        raise TypeError(f"y has labels as {labels[0]!r}, but n_classes counts integers from 0: leave n_classes out.")
    labels = labels.long()
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise ValueError(f"y has the label {low}, but classes count from 0: leave n_classes out, or renumber.")
    if high >= n_classes:
        raise ValueError(f"y has the label {high}, but n_classes is {n_classes}: it must be at least {high + 1}.")
    return labels


def _each(arrays: Sequence[ArrayLike | Tensor]) -> list[ArrayLike | Tensor]:
    try:
        return list(arrays)
    except TypeError:
        raise TypeError(f"arrays is {type(arrays).__name__}: pass a list of one array for each model.") from None
