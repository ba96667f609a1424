"""Where the rows of each model lie: a :class:`Layout`, made once a batch and handed to every operation.

What follows from the row ranges alone (the model of each row, tiles of rows for the programs of a launch) is computed
on first use and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

_MIN_CHUNK_ROWS = 1024


class Rows(NamedTuple):
    """Of the rows of all ranges, one range after the other, int64 [N]: their model, and their place within it."""

    model: Tensor
    position: Tensor


class Tiles(NamedTuple):
    """Runs of at most ``size`` rows of one model each, on the device: the programs of a launch."""

    model: Tensor  # int64 [T]
    start: Tensor  # int64 [T]
    stop: Tensor  # int64 [T]
    first: Tensor  # int64 [M + 1]: the tiles of model m are first[m]:first[m + 1]


class Layout:
    """Rows of M models among N points, checked; :meth:`Layout.from_offsets` or :meth:`Layout.from_ranges` makes one.

    Attributes
    ----------
    ranges : Tensor
        int64 [M, 2], contiguous: first row and one past the last row of each model.
    n_points : int
        Number of points N of the tensor that the ranges index.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import Layout
    >>> layout = Layout.from_offsets(torch.tensor([0, 2, 5]), n_points=5)
    >>> layout.sizes, layout.sum(torch.ones(5))
    (tensor([2, 3]), tensor([2., 3.], dtype=torch.float64))
    """

    def __init__(self, ranges: Tensor, n_points: int) -> None:
        self.ranges: Tensor = ranges.contiguous()
        self.n_points = n_points
        self._tiles: dict[int, Tiles] = {}

    @classmethod
    def from_offsets(cls, offsets: Tensor, n_points: int) -> Layout:
        """The layout of models that lie one after the other: model m owns rows ``offsets[m]:offsets[m + 1]``.

        Parameters
        ----------
        offsets : Tensor
            int64 [M + 1], ascending.
        n_points : int
            N, rows of the tensor of points.

        Returns
        -------
        Layout
            Of M models.

        Raises
        ------
        TypeError, ValueError
            If the offsets are not int64 [M + 1], descend, or leave the points.
        """
        return cls.from_ranges(ranges_of_offsets(offsets), n_points)

    @classmethod
    def from_ranges(cls, ranges: Tensor, n_points: int) -> Layout:
        """The layout of models whose rows may lie apart, in any order.

        Parameters
        ----------
        ranges : Tensor
            int64 [M, 2]: the first row of each model, and one past its last.
        n_points : int
            N, rows of the tensor of points.

        Returns
        -------
        Layout
            Of M models.

        Raises
        ------
        TypeError, ValueError
            If the ranges are not int64 [M, 2] or leave the points.
        """
        if ranges.dtype != torch.int64:
            raise TypeError(f"row ranges are {ranges.dtype}, but must be int64.")
        if ranges.ndim != 2 or ranges.shape[1] != 2:
            raise ValueError(f"row ranges have shape {tuple(ranges.shape)}, but must be [M, 2].")
        start, stop = ranges.unbind(1)
        inside = (start >= 0) & (start <= stop) & (stop <= n_points)
        if not bool(inside.all()):
            m = int((~inside).nonzero()[0])
            raise ValueError(f"the rows of model {m} are {ranges[m].tolist()}, no range of {n_points} points.")
        return cls(ranges, n_points)

    @property
    def n_models(self) -> int:
        """Number of models M."""
        return len(self.ranges)

    @cached_property
    def sizes(self) -> Tensor:
        """Points of each model, int64 [M]."""
        return self.ranges[:, 1] - self.ranges[:, 0]

    @cached_property
    def rows(self) -> Rows:
        """Model and position of the rows of all models, one model after the other."""
        model = torch.repeat_interleave(self.sizes)
        first = offsets_of(self.sizes)
        return Rows(model, torch.arange(len(model), device=model.device) - first[model])

    @cached_property
    def span(self) -> slice | None:
        """The rows of all models as one slice; None where a model does not begin where the one before it ends."""
        if not bool((self.ranges[1:, 0] == self.ranges[:-1, 1]).all()):
            return None
        return slice(int(self.ranges[0, 0]), int(self.ranges[-1, 1])) if self.n_models else slice(0, 0)

    def select(self, models: Tensor | list[int] | slice) -> Layout:
        """The layout of some of the models.

        Parameters
        ----------
        models : Tensor, list of int, or slice
            Their indices, or a mask.

        Returns
        -------
        Layout
            Of these models, in this order.
        """
        return Layout(self.ranges[models], self.n_points)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of each model's rows.

        Parameters
        ----------
        values : Tensor
            [N, ...].

        Returns
        -------
        Tensor
            float64 [M, ...]; the order of the summation depends on the model alone.
        """
        own = self.ranges[self.rows.model, 0] + self.rows.position if self.span is None else self.span
        # Unsafe: a look at the sizes, which are right, would wait for the device.
        return torch.segment_reduce(values[own].double(), "sum", lengths=self.sizes, unsafe=True)

    def tiles(self, size: int) -> Tiles:
        """Each model cut into tiles of at most some number of rows; how depends on its own size only.

        Parameters
        ----------
        size : int
            Rows of a tile at most.

        Returns
        -------
        Tiles
            The rows of each tile and its model.
        """
        if size not in self._tiles:
            row, end = self.ranges.unbind(1)
            counts = ((end - row + (size - 1)) // size).clamp_min_(1)
            model, first = torch.repeat_interleave(counts), offsets_of(counts)
            start = torch.arange(0, len(model) * size, size, device=row.device).add_((row - first[:-1] * size)[model])
            self._tiles[size] = Tiles(model, start, torch.minimum(start + size, end[model]), first)
        return self._tiles[size]

    def chunks(self, n_components: int, n_features: int) -> Tiles:
        """Each model cut into chunks whose sums are added up one after the other.

        Their size depends on K and D alone, so that the sums of one model are formed in the same order whatever else
        is in the batch. With K * D rows or more, the partial sums of a chunk (K * D * D numbers) take no more memory
        than its points.

        Parameters
        ----------
        n_components, n_features : int
            K and D.

        Returns
        -------
        Tiles
            The rows of each chunk and its model.
        """
        return self.tiles(max(_MIN_CHUNK_ROWS, n_components * n_features))


def as_layout(layout: Layout | Tensor, n_models: int, n_points: int) -> Layout:
    """A layout, from itself or from the offsets of models that lie one after the other.

    Parameters
    ----------
    layout : Layout or Tensor
        A layout, or offsets int64 [M + 1].
    n_models, n_points : int
        M and N, which it must have.

    Returns
    -------
    Layout
        The same one where it is a layout.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or belongs to other models or points.
    """
    made = layout if isinstance(layout, Layout) else Layout.from_offsets(layout, n_points)
    if made.n_models != n_models or made.n_points != n_points:
        raise ValueError(
            f"the layout is of {made.n_models} models and {made.n_points} points, but there are {n_models} models and "
            f"{n_points} points."
        )
    return made


def ranges_of_offsets(offsets: Tensor) -> Tensor:
    """Row ranges int64 [M, 2] of offsets int64 [M + 1], whose values are not checked.

    Raises
    ------
    TypeError, ValueError
        If the dtype or the shape is wrong.
    """
    if offsets.dtype != torch.int64:
        raise TypeError(f"offsets are {offsets.dtype}, but must be int64.")
    if offsets.ndim != 1 or len(offsets) == 0:
        raise ValueError(f"offsets have shape {tuple(offsets.shape)}, but must be [M + 1].")
    return torch.stack([offsets[:-1], offsets[1:]], 1)


def offsets_of(sizes: Tensor) -> Tensor:
    """Offsets of M consecutive pieces, where each begins and where the last ends: int64 [M + 1]."""
    return torch.nn.functional.pad(sizes.cumsum(0), (1, 0))


def bounded_runs(sizes: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Runs of consecutive models whose sizes sum to ``limit`` at most, or that are one model."""
    runs, begin, total = [], 0, 0
    for m, size in enumerate(sizes):
        if m > begin and total + size > limit:
            runs.append((begin, m))
            begin, total = m, 0
        total += size
    return [*runs, (begin, len(sizes))]
