"""Sums over the points of one model whose rows are divided over ranks.

The rows are cut into blocks, whose number depends on the number of rows alone. The sums of blocks are added up in pairs
by a binary tree, so that the bits of the result do not depend on the number of ranks; a rank adds up what lies within
its own blocks, and sends the rest of the way what its neighbour in the tree needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from fastdens.kernels import SufficientStatistics
from fastdens.process_group import Group

# A block is large enough for the operations on it to outweigh the calls.
_LEAST_ROWS, _MOST_BLOCKS = 1024, 1024

SumsT = TypeVar("SumsT", bound=tuple[Tensor, ...])


class PointBlocks:
    """The blocks of one model, and which of them this rank has.

    Parameters
    ----------
    n_points : int
        Rows of the model.
    group : Group

    Attributes
    ----------
    rows : slice
        Those of this rank's blocks.
    """

    def __init__(self, n_points: int, group: Group) -> None:
        self._group = group
        self._n_blocks = 1 << min(max(n_points // _LEAST_ROWS, 1).bit_length() - 1, int(math.log2(_MOST_BLOCKS)))
        self._bounds = [n_points * block // self._n_blocks for block in range(self._n_blocks + 1)]
        first, last = (self._n_blocks * rank // group.size for rank in (group.rank, group.rank + 1))
        self.rows = slice(self._bounds[first], self._bounds[last])
        # Within the rank's own rows.
        self.own = [self._within(block) for block in range(first, last)]

    def _within(self, block: int) -> slice:
        return slice(self._bounds[block] - self.rows.start, self._bounds[block + 1] - self.rows.start)

    def _owner(self, block: int) -> int:
        return ((block + 1) * self._group.size - 1) // self._n_blocks

    def sum(self, like: SumsT, of_block: Callable[[slice], SumsT], add: Callable[[SumsT, SumsT], SumsT]) -> SumsT:
        """The sums over all points, on every rank.

        Parameters
        ----------
        like : tuple of Tensor
            Sums, whose values do not matter: float64, on the device of the sums.
        of_block : callable
            The sums over a block, which is a slice of this rank's rows.
        add : callable
            The sums over two neighbouring runs of blocks.
        """
        total = self._sum_of_node(0, self._n_blocks, like, of_block, add)
        flat = _flat(like) if total is None else _flat(total)
        return _like(like, self._group.broadcast_tensor(flat, self._owner(0)))

    def _sum_of_node(
        self,
        first: int,
        width: int,
        like: SumsT,
        of_block: Callable[[slice], SumsT],
        add: Callable[[SumsT, SumsT], SumsT],
    ) -> SumsT | None:
        """The sums over a run of blocks, on the rank that has the first of them."""
        rank, owner = self._group.rank, self._owner(first)
        if not owner <= rank <= self._owner(first + width - 1):
            return None
        if width == 1:
            return of_block(self._within(first))
        half = width // 2
        neighbour = self._owner(first + half)
        left = self._sum_of_node(first, half, like, of_block, add)
        right = self._sum_of_node(first + half, half, like, of_block, add)
        if neighbour != owner and rank == neighbour:
            assert right is not None
            self._group.send(_flat(right), owner)
        if rank != owner:
            return None
        if neighbour != owner:
            right = _like(like, self._group.receive(_flat(like), neighbour))
        assert left is not None and right is not None
        return add(left, right)

    def first(self, clocks: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest of clocks float64 [T, n] of this rank's rows, over all ranks, and its row of the model, [T].

        The first row of equals.
        """
        n_clocks, n_rows = clocks.shape
        found = clocks.new_full((n_clocks, 2), math.inf)
        if n_rows:
            found[:, 0] = clocks.amin(1)
            # Float64 holds the number of any row.
            row = torch.arange(self.rows.start, self.rows.stop, dtype=torch.float64, device=clocks.device)
            found[:, 1] = torch.where(clocks == found[:, :1], row, math.inf).amin(1)
        of_ranks = self._group.all_gather_tensor(found)
        soonest = of_ranks[..., 0].amin(0)
        row = torch.where(of_ranks[..., 0] == soonest, of_ranks[..., 1], math.inf).amin(0)
        return soonest, row.long()

    def gather_rows(self, values: Tensor) -> Tensor:
        """Values [n, ...] of the rows of every rank, in their order."""
        longest = max(self._rows_of(rank) for rank in range(self._group.size))
        padded = values.new_zeros(longest, *values.shape[1:])
        padded[: len(values)] = values
        stacked = self._group.all_gather_tensor(padded)
        return torch.cat([own[: self._rows_of(rank)] for rank, own in enumerate(stacked)])

    def _rows_of(self, rank: int) -> int:
        first, last = (self._n_blocks * r // self._group.size for r in (rank, rank + 1))
        return self._bounds[last] - self._bounds[first]


class WeightedSums(NamedTuple):
    """Sums over points of one model, float64.

    Attributes
    ----------
    nk, means, scatter : Tensor
        [1, K], [1, K, D] and the scatter about the means in the shape of a covariance type; ``nk`` without the
        ``10 eps`` of :class:`fastdens.kernels.SufficientStatistics`.
    total : Tensor
        [1], the sum of one number of each point.
    """

    nk: Tensor
    means: Tensor
    scatter: Tensor
    total: Tensor

    @classmethod
    def zeros(cls, n_components: int, n_features: int, covariance_type: str, device: torch.device) -> WeightedSums:
        """Sums over no points."""
        k, d = n_components, n_features
        shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[covariance_type]
        shapes = ((1, k), (1, k, d), (1, *shape), (1,))
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    @classmethod
    def of_statistics(cls, statistics: SufficientStatistics, total: Tensor) -> WeightedSums:
        """Those of a block."""
        nk = (statistics.nk.double() - _ten_eps(statistics.nk)).clamp_min(0)
        return cls(nk, statistics.means.double(), statistics.scatter.double(), total)

    def statistics(self, dtype: torch.dtype) -> SufficientStatistics:
        """The same as the M step takes them."""
        nk = self.nk.to(dtype)
        return SufficientStatistics(nk + _ten_eps(nk), self.means.to(dtype), self.scatter.to(dtype))


def add_weighted(a: WeightedSums, b: WeightedSums, covariance_type: str) -> WeightedSums:
    """Sums over the points of both.

    ``S = S_a + S_b + n_a n_b / n (m_b - m_a)(m_b - m_a)'`` (Chan, Golub & LeVeque, Updating formulae and a pairwise
    algorithm for computing sample variances, COMPSTAT 1982).
    """
    nk = a.nk + b.nk
    share = torch.where(nk > 0, b.nk / nk, 0.5)
    delta = b.means - a.means
    means = a.means + share[..., None] * delta
    pull = (a.nk * share)[..., None]
    between = {
        "full": lambda: (pull * delta)[..., :, None] * delta[..., None, :],
        "tied": lambda: (pull * delta).mT @ delta,
        "diag": lambda: pull * delta.square(),
        "spherical": lambda: (pull * delta.square()).sum(-1),
    }[covariance_type]()
    return WeightedSums(nk, means, a.scatter + b.scatter + between, a.total + b.total)


def _ten_eps(nk: Tensor) -> float:
    return 10 * torch.finfo(nk.dtype).eps


def _flat(sums: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in sums])


def _like(like: SumsT, flat: Tensor) -> SumsT:
    values = torch.split(flat, [value.numel() for value in like])
    return type(like)(*(value.view(old.shape) for value, old in zip(values, like, strict=True)))
