"""Which rows belong to which model of a batch, wherever the points are."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Hashable
from functools import cached_property
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.kernels.layout import Layout, bounded_runs
from fastdens.memory import room_under
from fastdens.sample_weights import read_weights


class ModelRows(ABC):
    """Base of batches: the rows of M models among N, their classes and weights, without the points."""

    offsets: Tensor
    index: Tensor
    classes: tuple[Hashable, ...]
    layer: str | None
    weights: Tensor | None

    @property
    @abstractmethod
    def n_points(self) -> int:
        """Number of points N."""

    @property
    def labels(self) -> tuple[Hashable, ...]:
        """The same as ``classes``, which earlier versions called so."""
        return self.classes

    @property
    def n_models(self) -> int:
        """Number of models M."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Tensor:
        """Number of points of each model, int64 [M]."""
        return self.layout.sizes

    @cached_property
    def layout(self) -> Layout:
        """The rows of each model, as operations of :mod:`fastdens.kernels` take them; made once."""
        return Layout.from_offsets(self.offsets, self.n_points)

    @property
    def ranges(self) -> Tensor:
        """First row of each model and one past its last, int64 [M, 2]."""
        return self.layout.ranges

    @property
    def total_weights(self) -> Tensor:
        """Sum of the weights of each model's points, float64 [M]; their number where they have no weights."""
        return self.sizes.double() if self.weights is None else self.layout.sum(self.weights)

    @property
    def model_of_row(self) -> Tensor:
        """Model of each (sorted) row, int64 [N]."""
        return torch.repeat_interleave(torch.arange(self.n_models, device=self.offsets.device), self.sizes)

    def groups_within(self, limit: int, model_bytes: Tensor, purpose: str, reserved: int) -> list[tuple[int, int]]:
        """Runs of models to work on at a time while the process stays below a limit.

        Parameters
        ----------
        limit : int
            Bytes that the process may hold.
        model_bytes : Tensor
            [M], the memory that work on each model takes, its points included.
        purpose : str
            That work, for messages: "scoring".
        reserved : int
            Bytes to keep in reserve for what does not belong to any model.

        Returns
        -------
        list of (int, int)
            The first model of each run, and one past its last.

        Raises
        ------
        ValueError
            If a model alone does not fit; the message says what limit would do.
        """
        largest = int(model_bytes.argmax())
        needed = reserved + int(model_bytes[largest])
        room = room_under(limit, needed, f"{purpose} {self.describe(largest)}")
        return bounded_runs(model_bytes.tolist(), room - reserved)

    def describe(self, model: int) -> str:
        """The name of a model in messages: its number, its class and its layer.

        Parameters
        ----------
        model : int
            From 0 to M - 1.

        Returns
        -------
        str
            Such as "model 3 (class 'cat', layer 'layer4')".

        Examples
        --------
        >>> import fastdens as fd
        >>> fd.RaggedBatch.from_labels([[1.0], [2.0]], ["dog", "cat"], layer="layer4").describe(0)
        "model 0 (class 'cat', layer 'layer4')"
        """
        layer = "" if self.layer is None else f", layer {self.layer!r}"
        return f"model {model} (class {self.classes[model]!r}{layer})"

    def in_caller_order(self, values: Tensor) -> Tensor:
        """Bring values of the sorted rows to the caller's row order.

        Parameters
        ----------
        values : Tensor
            [N, ...], one for each row of ``points``.

        Returns
        -------
        Tensor
            [N, ...], one for each row that the caller gave.
        """
        out = torch.empty_like(values)
        out[self.index] = values
        return out

    def weighted(self, sample_weight: ArrayLike | Tensor | None) -> Self:
        """The batch with weights: a point of weight w counts as w equal points would.

        Parameters
        ----------
        sample_weight : array or Tensor, or None
            [N] in the caller's row order, finite and not negative; they need not sum to anything. A point of weight
            zero counts as if it were absent. None takes the weights away.

        Returns
        -------
        RaggedBatch
            Of the same points, which are shared.

        Raises
        ------
        TypeError, ValueError
            If ``sample_weight`` does not hold such numbers, or the batch has some of the caller's rows only.

        Examples
        --------
        >>> import fastdens as fd
        >>> batch = fd.RaggedBatch.from_list([[[1.0], [2.0]], [[3.0]]]).weighted([0.5, 2.0, 1.0])
        >>> batch.total_weights
        tensor([2.5000, 1.0000], dtype=torch.float64)
        """
        weights = None
        if sample_weight is not None:
            weights = read_weights(sample_weight, self.n_points).to(self.offsets.device)
            if self.n_points and int(self.index.max()) >= self.n_points:
                raise ValueError("the batch has some of the caller's rows only: weigh the whole batch, then select.")
            weights = weights[self.index]
        made = copy.copy(self)
        object.__setattr__(made, "weights", weights)
        return made
