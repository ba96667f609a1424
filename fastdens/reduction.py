"""Projection of activations on their leading right singular vectors."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.arrays import Matrix
from fastdens.errors import NotFittedError, check_integer

_BLOCK_ELEMENTS = 1 << 22
_MAX_ANGLE = 1e-7


class UncentredSVD:
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
    """

    components_: Tensor
    singular_values_: Tensor
    explained_energy_ratio_: Tensor

    def __init__(self, n_components: int) -> None:
        self.n_components = n_components

    def __repr__(self) -> str:
        return f"UncentredSVD(n_components={self.n_components})"

    def fit(self, x: ArrayLike | Tensor) -> UncentredSVD:
        """Find the components of ``x`` [N, D].

        Raises
        ------
        ValueError
            If ``x`` has fewer rows or columns than ``n_components``, or holds NaN or infinity.
        """
        k = check_integer("n_components", self.n_components, 1)
        points = Matrix(x)
        if k > min(points.shape):
            raise ValueError(
                f"n_components is {k}, but x has shape {points.shape}: it can be at most {min(points.shape)}."
            )
        total = _sum_of_squares(points)
        squares, components = _from_gram(points, k)
        if _gram_angle(squares, k) > _MAX_ANGLE:
            squares, components = _from_matrix(points)
        components = components[:k]
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        self.components_ = (components * torch.where(largest < 0, -1.0, 1.0)).to(points.dtype)
        self.singular_values_ = squares[:k].clamp_min(0).sqrt()
        self.explained_energy_ratio_ = squares[:k].clamp_min(0) / total if total > 0 else torch.zeros_like(squares[:k])
        return self

    def transform(self, x: ArrayLike | Tensor) -> Tensor:
        """Coordinates of ``x`` [N, D] along the components, [N, K].

        Raises
        ------
        ValueError
            If D differs from that of the fit.
        """
        if not hasattr(self, "components_"):
            raise NotFittedError(self, "fit(x)")
        points = Matrix(x)
        if points.shape[1] != self.components_.shape[1]:
            raise ValueError(
                f"x has {points.shape[1]} features, but the fit had {self.components_.shape[1]}: pass the same layer."
            )
        components = self.components_.to(device=points.device, dtype=points.dtype)
        coordinates = torch.empty(points.shape[0], len(components), dtype=components.dtype, device=components.device)
        row = 0
        for block in points.blocks(_BLOCK_ELEMENTS):
            torch.matmul(block, components.mT, out=coordinates[row : row + len(block)])
            row += len(block)
        return coordinates

    def fit_transform(self, x: ArrayLike | Tensor) -> Tensor:
        """``fit(x)``, then ``transform(x)``."""
        return self.fit(x).transform(x)


def _sum_of_squares(points: Matrix) -> float:
    total, row = 0.0, 0
    for block in points.blocks(_BLOCK_ELEMENTS, torch.float64):
        own = block.square().sum()
        if not torch.isfinite(own):
            finite = torch.isfinite(block).all(1)
            if bool(finite.all()):
                raise ValueError("x is too large to be squared in float64: scale it down.")
            bad = row + int((~finite).nonzero()[0])
            raise ValueError(f"x has NaN or infinity, first in row {bad}: remove or impute those rows.")
        total, row = total + float(own), row + len(block)
    return total


def _from_gram(points: Matrix, k: int) -> tuple[Tensor, Tensor]:
    """Squared singular values, descending, and the first right singular vectors [K, D], by the smaller Gram matrix."""
    n_rows, n_columns = points.shape
    tall = n_rows >= n_columns
    gram = torch.zeros(min(points.shape), min(points.shape), dtype=torch.float64, device=points.device)
    blocks = points.blocks if tall else points.column_blocks
    for block in blocks(_BLOCK_ELEMENTS, torch.float64):
        gram.addmm_(block.mT, block)
    squares, vectors = torch.linalg.eigh(gram)
    squares, vectors = squares.flip(0), vectors.flip(1)[:, :k]
    if tall:
        return squares, vectors.mT
    components = torch.cat([block @ vectors for block in points.column_blocks(_BLOCK_ELEMENTS, torch.float64)])
    return squares, torch.linalg.qr(components).Q.mT


def _gram_angle(squares: Tensor, k: int) -> float:
    """Bound on the angle by which rounding turns the subspace of the first K eigenvectors (Davis & Kahan 1970)."""
    behind = float(squares[k]) if k < len(squares) else 0.0
    gap = float(squares[k - 1]) - behind
    rounding = len(squares) ** 0.5 * torch.finfo(torch.float64).eps * float(squares[0])
    return rounding / gap if gap > 0 else float("inf")


def _from_matrix(points: Matrix) -> tuple[Tensor, Tensor]:
    """Squared singular values, descending, and all right singular vectors, without squaring the matrix."""
    if points.shape[0] < points.shape[1]:
        _, values, components = torch.linalg.svd(
            torch.cat(list(points.blocks(_BLOCK_ELEMENTS, torch.float64))), full_matrices=False
        )
        return values.square(), components
    # R of the rows so far and the next block has the singular values and right vectors of both.
    triangle = torch.zeros(0, points.shape[1], dtype=torch.float64, device=points.device)
    for block in points.blocks(_BLOCK_ELEMENTS, torch.float64):
        triangle = torch.linalg.qr(torch.cat([triangle, block]), mode="r").R
    _, values, components = torch.linalg.svd(triangle, full_matrices=False)
    return values.square(), components
