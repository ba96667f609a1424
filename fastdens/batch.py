"""Points of many models in one tensor, sorted by model, with the index back to the caller's rows."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.arrays import as_points, stack_points
from fastdens.io.activation_files import LABELS
from fastdens.io.grouping import grouped_copy
from fastdens.io.matrix_files import READING_BYTES, MatrixFile, open_matrix, read_column, read_rows
from fastdens.kernels.layout import offsets_of
from fastdens.labels import encode_classes, names_of_classes, read_labels, rows_by_class
from fastdens.memory import MemoryLimit, code_bytes, default_limit, parse_bytes
from fastdens.model_rows import ModelRows


@dataclass(frozen=True)
class RaggedBatch(ModelRows):
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
    weights : Tensor or None
        float64 [N], how often each (sorted) point counts; None where each counts once. See :meth:`weighted`.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> batch = fd.RaggedBatch.from_labels(torch.randn(6, 2), ["b", "a", "b", "c", "a", "b"])
    >>> batch.classes, batch.offsets.tolist(), batch.index.tolist()
    (('a', 'b', 'c'), [0, 2, 5, 6], [1, 4, 0, 2, 5, 3])
    >>> batch.n_models, batch.n_points, batch.n_features
    (3, 6, 2)
    """

    points: Tensor
    offsets: Tensor
    index: Tensor
    classes: tuple[Hashable, ...]
    layer: str | None = None
    weights: Tensor | None = None

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

        Returns
        -------
        RaggedBatch
            One model for each class, in the order of ``classes``.

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
        codes, names = encode_classes(labels, n_classes, classes)
        codes = codes.to(points.device)
        offsets, index, are_sorted = rows_by_class(codes, len(names))
        return cls(points if are_sorted else points[index], offsets, index, names, layer)

    @classmethod
    def from_files(
        cls,
        x: Any,
        y: ArrayLike | Tensor | str | os.PathLike[str],
        *,
        name: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        max_memory: MemoryLimit | None = None,
        n_classes: int | None = None,
        classes: Sequence[Hashable] | None = None,
        layer: str | None = None,
        overwrite: bool = False,
    ) -> BatchOnDisk:
        """One model for each class, the points of which stay in files: for more of them than memory holds.

        Where the rows are not sorted by class yet, they are copied to ``folder`` once, sorted; the same call finds that
        copy again.

        Parameters
        ----------
        x : path-like, zarr array, or sequence of path-likes
            [N, D]: an ``.npy`` file, a safetensors file, or a folder of zarr; or several of them with consecutive rows.
            Integers and floats of any width, byte order and order of axes.
        y : array, Tensor or path-like
            [N], labels as for :meth:`from_labels`, or an ``.npy`` file, a safetensors file or a zarr array of them; in
            a file of several arrays, the one called "labels".
        name : str, optional
            Which array of ``x``, if it holds several: the layer.
        folder : path-like, optional
            Where the sorted copy goes, as large as ``x``; by default beside ``x``, with ".by_class" after its name.
        max_memory : int or str, optional
            The most that the process may hold, in bytes or as "2GiB", while it sorts here and while it fits and scores
            the batch later on. By default, what it holds at this call and half of what the machine has free.
        n_classes, classes, layer : optional
            As for :meth:`from_labels`.
        overwrite : bool
            Replace a sorted copy of other files or labels.

        Returns
        -------
        BatchOnDisk
            A batch that reads its points when they are needed.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`from_labels`; if a file is damaged or holds something else; if ``folder`` holds a copy of
            other rows; or if ``max_memory`` is too little.
        OSError
            If a file is missing or cannot be read, or the disk is full.
        ImportError
            If a package that reads the format is missing.

        Examples
        --------
        >>> import numpy as np, fastdens as fd
        >>> np.save("layer4.npy", np.random.default_rng(0).normal(size=(300, 8)).astype("float32"))
        >>> np.save("labels.npy", np.arange(300) % 3)
        >>> batch = fd.RaggedBatch.from_files("layer4.npy", "labels.npy", max_memory="4GiB")
        >>> gm = fd.GaussianMixtures(2, max_iter=1, tol=0).fit(batch)
        >>> gm.means_.shape
        torch.Size([3, 2, 8])
        """
        limit = default_limit() if max_memory is None else parse_bytes("max_memory", max_memory)
        matrix = open_matrix(x, name)
        n_points = matrix.shape[0]
        labels = read_labels(
            read_column(y, LABELS) if isinstance(y, str | os.PathLike) else y, n_points, "y", "x has {} rows"
        )
        if n_points == 0:
            raise ValueError("x has no rows: pass at least one point.")
        codes, names = encode_classes(labels, n_classes, classes)
        codes = codes.cpu()
        offsets, index, are_sorted = rows_by_class(codes, len(names))
        if not are_sorted:
            if folder is None:
                of_name = "" if name is None else f".{quote(name, safe=' ')}"
                folder = matrix.path.with_name(f"{matrix.path.name}{of_name}.by_class")
            matrix = grouped_copy(matrix, codes, len(names), Path(folder), limit, overwrite)
        return BatchOnDisk(matrix, offsets[:-1], offsets, index, names, layer, limit)

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

        Returns
        -------
        RaggedBatch
            Model m is that of array m.

        Raises
        ------
        TypeError, ValueError
            If an array is not [N_m, D], or they disagree.

        Examples
        --------
        >>> import fastdens as fd
        >>> batch = fd.RaggedBatch.from_list([[[1.0], [2.0]], [[3.0]]], labels=["many", "few"])
        >>> batch.sizes
        tensor([2, 1])
        """
        points, sizes = stack_points(arrays)
        names: tuple[Hashable, ...] = tuple(range(len(sizes)))
        if labels is not None:
            names = names_of_classes(read_labels(labels, len(sizes), rows="there are {} arrays").tolist(), "labels")
        offsets = offsets_of(torch.tensor(sizes, device="cpu"))
        index = torch.arange(len(points), device=points.device)
        return cls(points, offsets.to(points.device), index, names, layer)

    @property
    def n_points(self) -> int:
        """Number of points N."""
        return len(self.points)

    @property
    def n_features(self) -> int:
        """Number of dimensions D."""
        return self.points.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the points, float32 or float64."""
        return self.points.dtype

    @property
    def device(self) -> torch.device:
        """Where the points are."""
        return self.points.device

    @property
    def max_memory(self) -> int | None:
        """Bytes that the process may hold while it works on the batch; None where its points are in memory anyway."""
        return None

    def load(self) -> RaggedBatch:
        """The batch with its points in memory: itself, unless it is on disk.

        Returns
        -------
        RaggedBatch
            The same models, and points that ``points`` holds.
        """
        return self

    def part(self, begin: int, end: int) -> RaggedBatch:
        """Some consecutive models, in memory.

        Parameters
        ----------
        begin, end : int
            The models ``begin`` to ``end - 1``.

        Returns
        -------
        RaggedBatch
            Of these models; ``index`` still counts all rows of the caller.
        """
        if (begin, end) == (0, self.n_models):
            return self
        start, stop = self.offsets[[begin, end]].tolist()
        return self._of_rows(slice(start, stop), self.offsets[begin : end + 1] - start, self.classes[begin:end])

    def groups(self, model_bytes: Tensor, purpose: str) -> list[tuple[int, int]]:
        """Runs ``begin, end`` of models to work on at a time: all at once where the points are in memory anyway.

        Parameters
        ----------
        model_bytes : Tensor
            [M], the memory that work on each model takes, its points included.
        purpose : str
            That work, for messages: "scoring".

        Returns
        -------
        list of (int, int)
            The first model of each run, and one past its last.

        Raises
        ------
        ValueError
            If a batch on disk has a model too large for its ``max_memory``; the message says what would do.
        """
        return [(0, self.n_models)]

    def select(self, models: Tensor) -> RaggedBatch:
        """Some of the models.

        Parameters
        ----------
        models : Tensor
            int64 [A], their numbers in ascending order.

        Returns
        -------
        RaggedBatch
            Of these models; ``index`` still counts all rows of the caller.
        """
        if len(models) == self.n_models:
            return self
        rows = torch.isin(self.model_of_row, models)
        classes = tuple(self.classes[m] for m in models.tolist())
        return self._of_rows(rows, offsets_of(self.sizes[models]), classes)

    def _of_rows(self, rows: Tensor | slice, offsets: Tensor, classes: tuple[Hashable, ...]) -> RaggedBatch:
        """Some of the (sorted) rows as a batch."""
        weights = None if self.weights is None else self.weights[rows]
        return RaggedBatch(self.points[rows], offsets, self.index[rows], classes, self.layer, weights)

    def without_zero_weights(self) -> RaggedBatch:
        """The batch without the points of weight zero.

        Returns
        -------
        RaggedBatch
            Itself where there are none, and where it is on disk: its parts lose them when they are read.
        """
        if self.weights is None or bool((self.weights > 0).all()):
            return self
        rows = self.weights > 0
        return self._of_rows(rows, offsets_of(self.layout.sum(rows).long()), self.classes)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> RaggedBatch:
        """The batch on another device or in another floating-point type.

        Parameters
        ----------
        device : torch.device or str, optional
            Where the points and their weights go; by default they stay.
        dtype : torch.dtype, optional
            float32 or float64, of the points; by default they keep theirs.

        Returns
        -------
        RaggedBatch
            Itself where nothing changes.
        """
        points = self.points.to(device=device, dtype=dtype)
        if points is self.points:
            return self
        weights = None if self.weights is None else self.weights.to(device=device)
        offsets, index = self.offsets.to(device=device), self.index.to(device=device)
        return RaggedBatch(points, offsets, index, self.classes, self.layer, weights)


class BatchOnDisk(RaggedBatch):
    """Points of M models in a file, read when they are needed: :meth:`fastdens.RaggedBatch.from_files` makes one.

    Estimators and densities read as many models at a time as ``max_memory`` allows. ``load()`` and ``to(device)`` read
    all of them, and ``select(models).load()`` some. Everything else is as in a :class:`~fastdens.RaggedBatch`.
    """

    _limit: int
    _matrix: MatrixFile
    _starts: Tensor

    def __init__(
        self,
        matrix: MatrixFile,
        starts: Tensor,
        offsets: Tensor,
        index: Tensor,
        classes: tuple[Hashable, ...],
        layer: str | None,
        max_memory: int,
        weights: Tensor | None = None,
    ) -> None:
        for name, value in (
            ("_matrix", matrix),
            # The row of the file where each model begins, int64 [M].
            ("_starts", starts),
            ("offsets", offsets),
            ("index", index),
            ("classes", classes),
            ("layer", layer),
            ("_limit", max_memory),
            ("weights", weights),
        ):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"BatchOnDisk({self._matrix.path}, {self.n_models} models, {self.n_points} points)"

    def __getattr__(self, name: str) -> Any:
        """Explain where the points are; all other attributes are there, or are not."""
        if name == "points":
            raise ValueError(
                f"the points of this batch are in {self._matrix.path}: read them with batch.load(), or "
                "those of some models with batch.select(models).load()."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def max_memory(self) -> int:
        """Bytes that the process may hold while it works on the batch."""
        return self._limit

    @property
    def n_points(self) -> int:
        """Number of points N."""
        return len(self.index)

    @property
    def n_features(self) -> int:
        """Number of dimensions D."""
        return self._matrix.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the points once they are read, float32 or float64."""
        return torch.float32 if self._matrix.dtype.kind == "f" and self._matrix.dtype.itemsize <= 4 else torch.float64

    @property
    def device(self) -> torch.device:
        """Where the points are once they are read."""
        return self.offsets.device

    def load(self) -> RaggedBatch:
        """The batch with its points in memory."""
        points = torch.empty(self.n_points, self.n_features, dtype=self.dtype, device="cpu")
        for first, last in self._runs():
            begin, end = self.offsets[[first, last]].tolist()
            read_rows(self._matrix, int(self._starts[first]), points[begin:end])
        return RaggedBatch(points, self.offsets, self.index, self.classes, self.layer, self.weights)

    def without_zero_weights(self) -> BatchOnDisk:
        """Itself: its points are not at hand."""
        return self

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Runs of models that lie one after the other in the file."""
        apart = self._starts[1:] != self._starts[:-1] + self.sizes[:-1]
        return pairwise([0, *(torch.nonzero(apart)[:, 0] + 1).tolist(), self.n_models] if self.n_models else [])

    def part(self, begin: int, end: int) -> RaggedBatch:
        """The models ``begin:end`` in memory; ``index`` still counts all rows of the caller."""
        return self.select(torch.arange(begin, end, device=self.device)).load()

    def groups(self, model_bytes: Tensor, purpose: str) -> list[tuple[int, int]]:
        """Runs ``begin, end`` of models to work on at a time, within ``max_memory``."""
        return self.groups_within(self.max_memory, model_bytes, purpose, code_bytes())

    def groups_within(self, limit: int, model_bytes: Tensor, purpose: str, reserved: int) -> list[tuple[int, int]]:
        """Runs of models to work on at a time while the process stays below a limit, with some bytes in reserve."""
        return super().groups_within(limit, model_bytes, purpose, reserved + READING_BYTES + self._matrix.reading_bytes)

    def select(self, models: Tensor) -> BatchOnDisk:
        """Some of the models, int64 [A] in ascending order, on disk as before."""
        rows = torch.isin(self.model_of_row, models)
        weights = None if self.weights is None else self.weights[rows]
        classes = tuple(self.classes[m] for m in models.tolist())
        starts, offsets = self._starts[models], offsets_of(self.sizes[models])
        return BatchOnDisk(
            self._matrix, starts, offsets, self.index[rows], classes, self.layer, self.max_memory, weights
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> RaggedBatch:
        """The batch in memory, on a device and in a floating-point type."""
        return self.load().to(device, dtype)
