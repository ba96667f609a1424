"""Variational inference for one model whose rows are divided over ranks: every rank has the same posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastdens.inference import variational
from fastdens.inference.coordinate_ascent import Ascent, coordinate_ascent
from fastdens.inference.point_blocks import PointBlocks, WeightedSums, add_weighted
from fastdens.inference.split_em import layout_of_block
from fastdens.inference.variational import (
    VariationalInfo,
    VariationalProblem,
    VariationalState,
    VariationalSums,
    first_state,
    maximization,
)


@dataclass(frozen=True)
class SplitVariational:
    """One model: its blocks, and a problem that holds this rank's points [n, D], the prior and the options."""

    blocks: PointBlocks
    own: VariationalProblem

    def select(self, models: Tensor) -> SplitVariational:
        """Itself: there is one model."""
        return self

    def of_block(self, rows: slice) -> VariationalProblem:
        """A block as a model of its own."""
        points, weight = self.own.points[rows], self.own.sample_weight
        weight = None if weight is None else weight[rows]
        return replace(self.own, points=points, layout=layout_of_block(points), sample_weight=weight)


def variational_inference(
    problem: SplitVariational, resp: Tensor, *, tol: float, max_iter: int
) -> Ascent[VariationalState, VariationalInfo]:
    """The ascent of :func:`fastdens.inference.variational.variational_inference`, on every rank.

    ``resp`` [n, T] are the responsibilities of this rank's rows.
    """
    return coordinate_ascent(
        problem,
        lambda problem: _init(problem, resp),
        _expectation,
        lambda problem, sums: maximization(problem.own, sums),
        tol=tol,
        max_iter=max_iter,
    )


def _init(problem: SplitVariational, resp: Tensor) -> tuple[VariationalState, VariationalInfo]:
    none = torch.zeros(1, dtype=torch.float64, device=resp.device)

    def of_block(rows: slice) -> WeightedSums:
        return WeightedSums.of_statistics(variational.statistics(problem.of_block(rows), resp[rows]), none)

    return first_state(problem.own, _sum(problem, resp.shape[1], of_block).statistics(resp.dtype))


def _expectation(problem: SplitVariational, state: VariationalState) -> VariationalSums:
    def of_block(rows: slice) -> WeightedSums:
        sums = variational.expectation(problem.of_block(rows), state)
        return WeightedSums.of_statistics(sums.statistics, sums.entropy)

    sums = _sum(problem, state.means.shape[1], of_block)
    return VariationalSums(sums.statistics(state.means.dtype), sums.total, state.alpha, state.bad)


def _sum(problem: SplitVariational, n_components: int, of_block: Callable[[slice], WeightedSums]) -> WeightedSums:
    points = problem.own.points
    like = WeightedSums.zeros(n_components, points.shape[1], "full", points.device)
    return problem.blocks.sum(like, of_block, lambda a, b: add_weighted(a, b, "full"))


def labels_of(problem: SplitVariational, state: VariationalState) -> Tensor:
    """The component of each row of all ranks, int64 [N]."""
    own = [variational.responsibilities(problem.of_block(rows), state).argmax(1) for rows in problem.blocks.own]
    none = torch.empty(0, dtype=torch.int64, device=problem.own.points.device)
    return problem.blocks.gather_rows(torch.cat([none, *own]))


def nearest_labels(problem: SplitVariational, centres: Tensor) -> Tensor:
    """The nearest of centres [K, D] of each of this rank's rows, int64 [n]."""
    counts = torch.tensor([len(centres)], device=centres.device)
    blocks = [problem.of_block(rows) for rows in problem.blocks.own]
    own = [variational.nearest_centres(b.points, b.layout, centres[None], counts, b.backend) for b in blocks]
    none = torch.empty(0, dtype=torch.int64, device=centres.device)
    return torch.cat([none, *own])
