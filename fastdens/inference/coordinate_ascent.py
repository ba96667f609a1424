"""Coordinate ascent on a lower bound in many models at once: the loop of EM and of variational inference.

An algorithm is a problem (the data and options), a state, and the two halves of a step, which are pure functions:
``expectation(problem, state)`` returns sums over the points, ``maximization(problem, sums)`` the next state and an info
about the step. The loop frees the matrices of one half before the other makes its own (Neal & Hinton, A view of the EM
algorithm that justifies incremental, sparse, and other variants, 1998).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor


class Problem(Protocol):
    """The data and options of A models."""

    def select(self, models: Tensor) -> Self:
        """The problem of some of the models, by mask."""


ProblemT = TypeVar("ProblemT", bound=Problem)
StateT = TypeVar("StateT", bound=tuple[Tensor, ...])
# A NamedTuple of tensors of A models. Among them are ``lower_bound``, float64 [A], the bound before the step or, at the
# start, minus infinity; and ``bad``, bool [A], True for a model that has lost a positive definite covariance.
InfoT = TypeVar("InfoT", bound=Any)
Sums = TypeVar("Sums")


class Ascent(NamedTuple, Generic[StateT, InfoT]):
    """Result of the ascent of M models: the state and info of each model's last step.

    Attributes
    ----------
    state, info : NamedTuple of Tensor
    n_iter : Tensor
        int64 [M].
    converged : Tensor
        bool [M].
    """

    state: StateT
    info: InfoT
    n_iter: Tensor
    converged: Tensor

    def select(self, models: Tensor) -> Ascent[StateT, InfoT]:
        """Some of the models, by index or mask."""
        return Ascent(
            select(self.state, models), select(self.info, models), self.n_iter[models], self.converged[models]
        )


def coordinate_ascent(
    problem: ProblemT,
    init: Callable[[ProblemT], tuple[StateT, InfoT]],
    expectation: Callable[[ProblemT, StateT], Sums],
    maximization: Callable[[ProblemT, Sums], tuple[StateT, InfoT]],
    *,
    tol: float,
    max_iter: int,
) -> Ascent[StateT, InfoT]:
    """Iterate until each model's lower bound changes by less than ``tol``.

    A model that has converged, or turned bad, leaves the work; the others go on.

    Parameters
    ----------
    problem : Problem
        Of M models.
    init, expectation, maximization : callable
        The algorithm.
    tol : float
    max_iter : int
        0 keeps the initial state.
    """
    state, info = init(problem)
    n_models, device = len(info.bad), info.bad.device
    n_iter = torch.zeros(n_models, dtype=torch.int64, device=device)
    converged = torch.zeros(n_models, dtype=torch.bool, device=device)
    active = torch.arange(n_models, device=device)
    finished: list[tuple[Tensor, Ascent[StateT, InfoT]]] = []
    for iteration in range(1, max_iter + 1):
        previous = info.lower_bound
        # The matrices of one half step are freed before the next makes its own: memory peaks here.
        del info
        sums = expectation(problem, state)
        del state
        state, info = maximization(problem, sums)
        del sums
        converged = ((info.lower_bound - previous).abs() < tol) & ~info.bad
        n_iter = torch.full_like(active, iteration)
        leaving = converged | info.bad
        if bool(leaving.any()):
            finished.append((active[leaving], Ascent(state, info, n_iter, converged).select(leaving)))
            keep = ~leaving
            active, problem, n_iter, converged = active[keep], problem.select(keep), n_iter[keep], converged[keep]
            state, info = select(state, keep), select(info, keep)
            if len(active) == 0:
                break
    if len(active) or not finished:
        finished.append((active, Ascent(state, info, n_iter, converged)))
    del state, info
    return join_ascents(finished)


def select(values: StateT, models: Tensor | slice) -> StateT:
    """The values of some of the models, by index, mask or slice, of a NamedTuple of tensors [A, ...]."""
    return type(values)(*(value[models] for value in values))


def join_ascents(parts: list[tuple[Tensor, Ascent[StateT, InfoT]]]) -> Ascent[StateT, InfoT]:
    """The ascents of all models, from those of some: each with the numbers of its models, int64 [A], in order."""
    if len(parts) == 1:
        return parts[0][1]
    models, ascents = zip(*parts, strict=True)
    order = torch.argsort(torch.cat(models))
    states, infos, n_iter, converged = zip(*ascents, strict=True)
    return Ascent(_join(states, order), _join(infos, order), torch.cat(n_iter)[order], torch.cat(converged)[order])


def _join(parts: tuple[StateT, ...], order: Tensor) -> StateT:
    """All parts as one, reordered by ``order``."""
    return type(parts[0])(*(torch.cat(column)[order] for column in zip(*parts, strict=True)))
