"""EM for one model whose rows are divided over ranks: every rank has the same state, and sums over its own rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.inference.coordinate_ascent import Ascent, coordinate_ascent
from fastdens.inference.em import (
    EMInfo,
    EMProblem,
    EMState,
    Start,
    initial_parameters,
    parameters_of_points,
    with_given,
)
from fastdens.inference.point_blocks import PointBlocks, WeightedSums, add_weighted
from fastdens.inference.split_seeding import kmeans_plusplus, random_rows
from fastdens.kernels.counter_random import hashed_uniform
from fastdens.kernels.layout import Layout


@dataclass(frozen=True)
class SplitProblem:
    """One model.

    Attributes
    ----------
    blocks : PointBlocks
    total_weight : float
        How many rows there are, or the sum of their weights.
    own : EMProblem
        The points [n, D] of this rank, and the options of the fit.
    coordinates : callable
        The points [T, D] at some rows of the model int64 [T], which may be other ranks'.
    whole : callable
        Makes the problem of all rows, for starts that are not divided over ranks.
    """

    blocks: PointBlocks
    total_weight: float
    own: EMProblem
    coordinates: Callable[[Tensor], Tensor]
    whole: Callable[[], EMProblem]

    def select(self, models: Tensor) -> SplitProblem:
        """Itself: there is one model."""
        return self

    def sum(self, n_components: int, of_block: Callable[[slice], WeightedSums]) -> WeightedSums:
        """The sums over all rows."""
        points, kind = self.own.points, self.own.covariance_type
        like = WeightedSums.zeros(n_components, points.shape[1], kind, points.device)
        return self.blocks.sum(like, of_block, lambda a, b: add_weighted(a, b, kind))


def layout_of_block(points: Tensor) -> Layout:
    """The layout of a block as a model of its own."""
    return Layout.from_offsets(torch.tensor([0, len(points)], device=points.device), len(points))


def expectation_maximization(
    problem: SplitProblem, start: Start, *, tol: float, max_iter: int
) -> Ascent[EMState, EMInfo]:
    """The ascent of :func:`fastdens.inference.em.expectation_maximization`, on every rank."""
    return coordinate_ascent(
        problem, lambda problem: init(problem, start), expectation, maximization, tol=tol, max_iter=max_iter
    )


def init(problem: SplitProblem, start: Start) -> tuple[EMState, EMInfo]:
    """The initial state, as :func:`fastdens.inference.em.init` chooses it."""
    initial = None if start.is_given else _initial_parameters(problem, start)
    return with_given(start, initial, problem.own.covariance_type)


def expectation(problem: SplitProblem, state: EMState) -> WeightedSums:
    """The sums of the M step, and the log-likelihood."""

    def of_block(rows: slice) -> WeightedSums:
        own, weight = problem.own.points[rows], problem.own.sample_weight
        weight = None if weight is None else weight[rows]
        total, *statistics = kernels.em_statistics(
            own, layout_of_block(own), *state, sample_weight=weight, **problem.own.kernel_options
        )
        return WeightedSums.of_statistics(kernels.SufficientStatistics(*statistics), total)

    return problem.sum(state.weights.shape[1], of_block)


def maximization(problem: SplitProblem, sums: WeightedSums) -> tuple[EMState, EMInfo]:
    """The next state (Bishop 2006, eqs. 9.24 to 9.27)."""
    new = _parameters_of_sums(problem, sums)
    state = EMState(new.weights, new.means, new.precisions_cholesky)
    return state, EMInfo(sums.total / problem.total_weight, new.covariances, new.bad)


def _parameters_of_sums(problem: SplitProblem, sums: WeightedSums) -> kernels.GaussianParameters:
    return kernels.gaussian_parameters(
        sums.statistics(problem.own.points.dtype),
        problem.own.points.shape[1],
        reg_covar=problem.own.reg_covar,
        covariance_type=problem.own.covariance_type,
        backend=problem.own.backend,
    )


def _initial_parameters(problem: SplitProblem, start: Start) -> kernels.GaussianParameters:
    blocks, points, k = problem.blocks, problem.own.points, start.n_components
    if start.init_params == "kmeans" or problem.own.sample_weight is not None:
        return initial_parameters(problem.whole(), start)
    if start.init_params == "random":
        centres = problem.coordinates(torch.zeros(k, dtype=torch.int64, device=points.device))[None]
        none = torch.zeros(1, dtype=torch.float64, device=points.device)

        def of_block(rows: slice) -> WeightedSums:
            own, first = points[rows], blocks.rows.start
            position = torch.arange(first + rows.start, first + rows.stop, device=points.device)
            draws = torch.stack([hashed_uniform(start.seed, c, position).to(points.dtype) for c in range(k)], 1)
            resp = draws / draws.sum(1, keepdim=True)
            options = problem.own.kernel_options
            sums = kernels.sufficient_statistics(own, layout_of_block(own), resp, centres, **options)
            return WeightedSums.of_statistics(sums, none)

        return _parameters_of_sums(problem, problem.sum(k, of_block))
    if start.init_params == "random_from_data":
        chosen = random_rows(blocks, k, start.seed, points.device)
    else:
        chosen = kmeans_plusplus(blocks, points, problem.coordinates, k, start.seed)
    return parameters_of_points(problem.coordinates(chosen)[None], problem.own.covariance_type, problem.own.reg_covar)
