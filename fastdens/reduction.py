"""Projection of activations on their leading right singular vectors."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from fastdens.arrays import Matrix, check_points_shape
from fastdens.errors import NotFittedError, check_integer
from fastdens.io.arrays import NpyStream, map_npy
from fastdens.io.atomic import atomic_write
from fastdens.io.expected import check_tensors
from fastdens.io.matrix_files import is_in_files, open_matrix
from fastdens.io.state_file import write_state
from fastdens.kernels.surroundings import Undisturbed, is_differentiated, is_transformed, outside_inference

_ATTRIBUTES = {"components_": "float K D", "singular_values_": "float K", "explained_energy_ratio_": "float K"}

# Entries whose largest is beyond this, or its inverse, are scaled, for their squares would be out of range.
_SMALLEST = 1e-100
_TINY = torch.finfo(torch.float64).tiny

_BLOCK_ELEMENTS = 1 << 22
_PANEL_COLUMNS = 256
_MAX_ANGLE = 1e-7


class UncentredSVD(Undisturbed):
    """Projection on the leading right singular vectors of the activation matrix, which is not centred.

    The vectors come from the Gram matrix of the smaller side in float64, added up in blocks, so that a matrix on disk
    is never in memory whole, whatever its dtype, byte order and order of axes. Squaring the singular values costs half
    the digits: where the gap behind the last component is too small for that, the vectors come from the matrix itself
    (a blocked QR, then an SVD).

    Parameters
    ----------
    n_components : int
        Dimensions K to keep.

    Attributes
    ----------
    components_ : Tensor
        [K, D], orthonormal rows in the dtype of the points; the largest entry of each is positive.
    singular_values_ : Tensor
        float64 [K], descending.
    explained_energy_ratio_ : Tensor
        float64 [K], the share of each component in the sum of squares of all activations; of a matrix that is not
        centred, this is energy and not variance.

    References
    ----------
    Golub & Van Loan, Matrix Computations, 4th edition, 2013, sections 5.2 and 8.6.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> svd = fd.reduction.UncentredSVD(16).fit(torch.randn(1000, 64))
    >>> svd.transform(torch.randn(5, 64)).shape
    torch.Size([5, 16])

    Files that memory cannot hold, in and out:

    >>> import numpy as np
    >>> np.save("layer4.npy", np.random.default_rng(0).normal(size=(500, 64)))
    >>> svd = fd.reduction.UncentredSVD(8).fit("layer4.npy")
    >>> svd.transform("layer4.npy", path="layer4_8.npy").shape
    torch.Size([500, 8])
    """

    components_: Tensor
    singular_values_: Tensor
    explained_energy_ratio_: Tensor

    def __init__(self, n_components: int) -> None:
        self.n_components = n_components

    def __repr__(self) -> str:
        return f"UncentredSVD(n_components={self.n_components})"

    def fit(self, x: Any, *, name: str | None = None) -> UncentredSVD:
        """Find the components of a matrix.

        Parameters
        ----------
        x : array, Tensor or path-like
            A file, an ``.npy``, safetensors or zarr one, is read block by block, as are several with consecutive rows;
            of an array that is mapped into memory, the system may leave every page there.
        name : str, optional
            Which array of a file that holds several.

        Returns
        -------
        UncentredSVD
            Itself.

        Raises
        ------
        ValueError
            If ``x`` has fewer rows or columns than ``n_components``, or holds NaN or infinity.
        OSError
            If a file is missing or cannot be read.
        """
        k = check_integer("n_components", self.n_components, 1)
        points = _matrix(x, name)
        if k > min(points.shape):
            raise ValueError(
                f"n_components is {k}, but x has shape {points.shape}: it can be at most {min(points.shape)}."
            )
        scale = _scale(points)
        values, components = _from_gram(points, k, scale)
        if _gram_angle(values.square(), k) > _MAX_ANGLE:
            values, components = _from_matrix(points, scale)
        components = components[:k]
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        self.components_ = (components * torch.where(largest < 0, -1.0, 1.0)).to(points.dtype)
        self.singular_values_ = values[:k].abs() / scale
        self.explained_energy_ratio_ = values[:k].square() / values.square().sum().clamp_min(_TINY)
        return self

    def transform(
        self,
        x: Any,
        *,
        name: str | None = None,
        path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> Tensor:
        """Coordinates of points along the components; differentiable in a tensor ``x``.

        Parameters
        ----------
        x, name : optional
            As for :meth:`fit`.
        path : path-like, optional
            An ``.npy`` file to write the coordinates to, block by block; it appears when it is complete.
        overwrite : bool
            Replace a file of that name.

        Returns
        -------
        Tensor
            Mapped into memory if ``path`` is given.

        Raises
        ------
        ValueError
            If D differs from that of the fit.
        FileExistsError
            If ``path`` exists and ``overwrite`` is False.
        """
        self._check_fitted()
        if path is None and isinstance(x, Tensor) and (is_transformed() or is_differentiated(x)):
            # A matrix in blocks would leave the derivatives out.
            check_points_shape(tuple(x.shape), "x")
            self._check_width(x.shape[1])
            points = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            return points @ outside_inference(self.components_).to(points).mT
        matrix = _matrix(x, name)
        self._check_width(matrix.shape[1])
        components = outside_inference(self.components_).to(device=matrix.device, dtype=matrix.dtype)
        if path is not None:
            return _write_coordinates(matrix, components, Path(path), overwrite)
        coordinates = torch.empty(matrix.shape[0], len(components), dtype=components.dtype, device=components.device)
        row = 0
        for block in matrix.blocks(_BLOCK_ELEMENTS):
            torch.matmul(block, components.mT, out=coordinates[row : row + len(block)])
            row += len(block)
        return coordinates

    def get_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the fitted projection knows, as tensors and metadata.

        Returns
        -------
        (dict of str to Tensor, dict)
            What :meth:`from_state` takes; the metadata are what JSON can hold.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        self._check_fitted()
        metadata = {"estimator": type(self).__name__, "parameters": {"n_components": len(self.components_)}}
        return {name: getattr(self, name) for name in _ATTRIBUTES}, metadata

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], where: str = "the state") -> Self:
        """The fitted projection of a state that :meth:`get_state` returned.

        Parameters
        ----------
        tensors, metadata : mapping
            The two parts of the state.
        where : str
            A name for messages, such as that of a file.

        Returns
        -------
        UncentredSVD
            The same projection.

        Raises
        ------
        ValueError
            If something is missing, or the tensors are not those of a projection.
        """
        n_components = check_tensors(where, tensors, _ATTRIBUTES)["K"]
        if metadata.get("parameters") != {"n_components": n_components}:
            raise ValueError(f"{where} lacks n_components = {n_components} of its components: save the fit again.")
        svd = cls(n_components)
        for name in _ATTRIBUTES:
            setattr(svd, name, tensors[name])
        return svd

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the fit to one safetensors file with a JSON header; :func:`fastdens.load` reads it.

        Parameters
        ----------
        path : path-like
            The file to write.
        overwrite : bool
            Replace a file of that name.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        FileExistsError
            If ``path`` exists and ``overwrite`` is False.
        ImportError
            If safetensors is missing.
        """
        write_state(path, "fit", *self.get_state(), overwrite=overwrite)

    def _check_fitted(self) -> None:
        if not hasattr(self, "components_"):
            raise NotFittedError(self, "fit(x)")

    def _check_width(self, n_features: int) -> None:
        if n_features != self.components_.shape[1]:
            raise ValueError(
                f"x has {n_features} features, but the fit had {self.components_.shape[1]}: pass the same layer."
            )

    def fit_transform(self, x: Any) -> Tensor:
        """Find the components of a matrix, and return its coordinates along them.

        Parameters
        ----------
        x : array, Tensor or path-like
            [N, D], as for :meth:`fit`.

        Returns
        -------
        Tensor
            [N, K].

        Raises
        ------
        ValueError, OSError
            As for :meth:`fit`.
        """
        return self.fit(x).transform(x)


def _matrix(x: Any, name: str | None) -> Matrix:
    if is_in_files(x):
        return Matrix(open_matrix(x, name))
    if name is not None:
        raise ValueError(f"name is {name!r}, but x is no file: leave name out.")
    return Matrix(x)


def _write_coordinates(matrix: Matrix, components: Tensor, path: Path, overwrite: bool) -> Tensor:
    with atomic_write(path, overwrite=overwrite) as partial:
        stream = NpyStream(partial, (len(components),), components.new_empty(0).cpu().numpy().dtype)
        try:
            for block in matrix.blocks(_BLOCK_ELEMENTS):
                stream.append((block @ components.mT).cpu().numpy())
        finally:
            stream.close()
    return map_npy(path)


def _scaled(blocks: Iterator[Tensor], scale: float) -> Iterator[Tensor]:
    """Blocks in float64, times a power of two."""
    return blocks if scale == 1 else (block * scale for block in blocks)


def _scale(points: Matrix) -> float:
    """A power of two by which squares of the points neither overflow nor vanish, 1 in all but extreme cases."""
    largest, row = 0.0, 0
    for block in points.blocks(_BLOCK_ELEMENTS, torch.float64):
        own = float(block.abs().max())
        if not math.isfinite(own):
            bad = row + int((~torch.isfinite(block).all(1)).nonzero()[0])
            raise ValueError(f"x has NaN or infinity, first in row {bad}: remove or impute those rows.")
        largest, row = max(largest, own), row + len(block)
    if largest == 0 or _SMALLEST < largest < 1 / _SMALLEST:
        return 1.0
    # The exponents of the smallest numbers are out of the range of their inverses.
    return 2.0 ** min(-math.frexp(largest)[1], 1000)


def _from_gram(points: Matrix, k: int, scale: float) -> tuple[Tensor, Tensor]:
    """Singular values, descending, and the first right singular vectors [K, D], by the smaller Gram matrix."""
    n_rows, n_columns = points.shape
    tall = n_rows >= n_columns
    gram = torch.zeros(min(points.shape), min(points.shape), dtype=torch.float64, device=points.device)
    blocks = points.blocks if tall else points.column_blocks
    for block in _scaled(blocks(_BLOCK_ELEMENTS, torch.float64), scale):
        # The matrix is symmetric: its upper triangle will do.
        for begin in range(0, len(gram), _PANEL_COLUMNS):
            end = begin + _PANEL_COLUMNS
            gram[:end, begin:end].addmm_(block[:, :end].mT, block[:, begin:end])
    gram = gram.triu() + gram.triu(1).mT
    squares, vectors = torch.linalg.eigh(gram)
    values, vectors = squares.flip(0).clamp_min(0).sqrt(), vectors.flip(1)[:, :k]
    if tall:
        return values, vectors.mT
    sides = _scaled(points.column_blocks(_BLOCK_ELEMENTS, torch.float64), scale)
    return values, torch.linalg.qr(torch.cat([block @ vectors for block in sides])).Q.mT


def _gram_angle(squares: Tensor, k: int) -> float:
    """Bound on the angle by which rounding turns the subspace of the first K eigenvectors (Davis & Kahan 1970)."""
    behind = float(squares[k]) if k < len(squares) else 0.0
    gap = float(squares[k - 1]) - behind
    rounding = len(squares) ** 0.5 * torch.finfo(torch.float64).eps * float(squares[0])
    return rounding / gap if gap > 0 else float("inf")


def _from_matrix(points: Matrix, scale: float) -> tuple[Tensor, Tensor]:
    """Singular values, descending, and all right singular vectors, without squaring the matrix."""
    blocks = _scaled(points.blocks(_BLOCK_ELEMENTS, torch.float64), scale)
    if points.shape[0] < points.shape[1]:
        _, values, components = torch.linalg.svd(torch.cat(list(blocks)), full_matrices=False)
        return values, components
    # R of the rows so far and the next block has the singular values and right vectors of both.
    triangle = torch.zeros(0, points.shape[1], dtype=torch.float64, device=points.device)
    for block in blocks:
        triangle = torch.linalg.qr(torch.cat([triangle, block]), mode="r").R
    _, values, components = torch.linalg.svd(triangle, full_matrices=False)
    return values, components
