"""Distance to the k-th nearest training example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.mixtures.base import integer
from fastdens.ood.base import Detector

# Candidates before and behind the k-th whose distances are computed anew.
_MARGIN = 4
# Rounding of a squared distance that is expanded into products, in units of the rounding of its terms: beyond what
# sums of thousands of products show.
_ROUNDING = 8
# Of the distances that exist at a time, and numbers of neighbours that are converted at a time.
_BLOCK_BYTES, _BLOCK_ELEMENTS = 1 << 25, 1 << 22
# Columns of a row of which the smallest is found first, and groups of them for each number that is looked for.
_GROUP, _GROUPS_FOR_EACH = 16, 4


class NearestNeighbours(Detector):
    """Euclidean distance to the k-th nearest training example, between features of length one.

    It takes no part in a score to which class the neighbours belong.

    Parameters
    ----------
    k : int
        Which neighbour; Sun et al. take 50 for CIFAR-10, 200 for CIFAR-100 and 1,000 for ImageNet.
    normalize : bool
        Scale features to length one, as Sun et al. do; features that are all zero stay zero.
    on_error : {"raise", "skip"}
        "raise" names classes that hold NaN or infinity in a :class:`~fastdens.ModelError`. "skip" leaves those out,
        notes them in ``failures_``, and scores features with NaN or infinity NaN.

    Attributes
    ----------
    neighbours_ : Tensor
        [N, D], the training examples, scaled, in their dtype.
    classes_ : tuple
        The classes that the labels named.
    failures_ : dict of int to str
        Why, for each class that was left out.

    References
    ----------
    Sun, Ming, Zhu & Li, Out-of-distribution detection with deep nearest neighbors, ICML 2022.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> fd.ood.NearestNeighbours(k=5).fit(torch.randn(1000, 8)).score(torch.randn(3, 8)).shape
    torch.Size([3])
    """

    _parameter_constraints: ClassVar = {**Detector._parameter_constraints, "k": integer(1)}
    _needs_labels: ClassVar = False

    neighbours_: Tensor

    # Their squared lengths [N].
    _squares: Tensor

    def __init__(self, k: int = 50, *, normalize: bool = True, on_error: str = "raise") -> None:
        self.k = k
        self.normalize = normalize
        self.on_error = on_error

    def _fit(self, batch: RaggedBatch) -> None:
        valid = self._partition(batch)
        points = valid.batch.points
        if len(points) < self.k:
            where = "" if batch.layer is None else f" of layer {batch.layer!r}"
            raise ValueError(
                f"k is {self.k}, but there are {len(points)} training examples{where}: lower k or add examples."
            )
        self._set_fitted_tensors({"neighbours_": _of_length_one(points) if self.normalize else points.clone()})
        self.failures_ = valid.failures

    def _score(self, points: Tensor) -> Tensor:
        points = points.to(self.neighbours_.dtype)
        points = _of_length_one(points) if self.normalize else points
        return kth_distance(points, self.neighbours_, self._squares, self.k)

    @property
    def _fitted_features(self) -> tuple[int, torch.device]:
        return self.neighbours_.shape[1], self.neighbours_.device

    @property
    def _row_elements(self) -> int:
        # Distances to the neighbours exist block by block.
        return self.neighbours_.shape[1]

    def _fitted_tensors(self) -> dict[str, Tensor]:
        return {"neighbours_": self.neighbours_}

    def _expected_tensors(self) -> dict[str, str]:
        return {"neighbours_": "float N D"}

    def _set_fitted_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.neighbours_ = tensors["neighbours_"]
        self._squares = self.neighbours_.square().sum(1)


def kth_distance(points: Tensor, neighbours: Tensor, squares: Tensor, k: int) -> Tensor:
    """Euclidean distance of each point to the k-th nearest of the neighbours, float64 [n].

    ``|y|^2 - 2 x'y``, in the dtype of the points, finds the candidates; the distances of those around the k-th are
    computed anew from differences in float64. Rows where rounding may have confused more candidates than these are
    searched in float64.

    Parameters
    ----------
    points : Tensor
        [n, D].
    neighbours : Tensor
        [N, D] in the same dtype, at least k.
    squares : Tensor
        [N], the squared lengths of the neighbours.
    k : int
    """
    n_rows = max(1, _BLOCK_BYTES // (neighbours.element_size() * len(neighbours)))
    # Memory that is touched once for all blocks: pages that are new take longer than the products.
    order = points.new_empty(min(n_rows, len(points)), len(neighbours))
    blocks = [_kth_distance(rows, neighbours, squares, k, order[: len(rows)]) for rows in torch.split(points, n_rows)]
    return torch.cat(blocks)


def _kth_distance(points: Tensor, neighbours: Tensor, squares: Tensor, k: int, order: Tensor) -> Tensor:
    """As :func:`kth_distance`, of some points, with ``order`` [n, N] as scratch."""
    torch.addmm(squares, points, neighbours.mT, alpha=-2, out=order)
    distance, doubtful = _kth_of(order, points, neighbours, k)
    if points.dtype != torch.float64 and bool(doubtful.any()):
        rows = points[doubtful].double()
        step = max(1, _BLOCK_ELEMENTS // neighbours.shape[1])
        blocks = (neighbours[begin : begin + step].double() for begin in range(0, len(neighbours), step))
        order = torch.cat([torch.addmm(block.square().sum(1), rows, block.mT, alpha=-2) for block in blocks], 1)
        distance[doubtful] = _kth_of(order, rows, neighbours, k)[0]
    return distance


def _kth_of(order: Tensor, points: Tensor, neighbours: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k-th distance of each row, float64 [n], and whether rounding of its order may have hidden it, bool [n].

    The order [n, N] is that of the squared distances, less the squared length of the point.
    """
    first, last = max(k - _MARGIN, 0), min(k + _MARGIN, len(neighbours))
    found, index = smallest(order, last)
    differences = neighbours[index[:, first:]].double() - points[:, None].double()
    distances = torch.linalg.vector_norm(differences, dim=2).sort(1).values
    # |y| <= |x| + |x - y| for the candidates.
    terms = 3 * points.double().square().sum(1) + 2 * distances[:, -1].square()
    rounding = 2 * _ROUNDING * torch.finfo(order.dtype).eps * terms
    # Where squares come near an overflow, nothing is sure.
    doubtful = terms > torch.finfo(order.dtype).max / 8
    if first > 0:
        doubtful |= found[:, k - 1] - found[:, first] < rounding
    if last < len(neighbours):
        doubtful |= found[:, last - 1] - found[:, k - 1] < rounding
    return distances[:, k - 1 - first], doubtful


def smallest(order: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n smallest numbers of each row, ascending, and their columns: what ``topk`` finds, in fewer comparisons.

    They all lie in the n groups of columns that have the smallest minima.
    """
    n_groups = order.shape[1] // _GROUP
    if n_groups < _GROUPS_FOR_EACH * n:
        return order.topk(n, largest=False)
    n_grouped = n_groups * _GROUP
    least = order[:, :n_grouped].reshape(len(order), _GROUP, n_groups).amin(1)
    if bool(least.isnan().any()):
        # Infinite less infinite, which would hide the group that it is in.
        return order.topk(n, largest=False)
    groups = least.topk(n, largest=False, sorted=False).indices
    column = torch.arange(order.shape[1], device=order.device)
    columns = groups[:, None] + column[:n_grouped:n_groups, None]
    candidates = torch.cat([columns.flatten(1), column[n_grouped:].expand(len(order), -1)], 1)
    found, at = order.gather(1, candidates).topk(n, largest=False)
    return found, candidates.gather(1, at)


def _of_length_one(points: Tensor) -> Tensor:
    """Rows scaled to length one; rows that are all zero stay zero."""
    # In units of their largest entry, squares neither overflow nor vanish.
    largest = torch.linalg.vector_norm(points, torch.inf, dim=1, keepdim=True)
    scaled = points / torch.where(largest > 0, largest, 1.0)
    length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / torch.where(length > 0, length, 1.0)
