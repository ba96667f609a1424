"""Coordinate ascent on a lower bound of the log-likelihood, in many models at once: the loop of EM and of variational
inference (Neal & Hinton, A view of the EM algorithm that justifies incremental, sparse, and other variants, 1998).

An algorithm is a problem (what stays the same), a state, and two pure functions: ``expectation(problem, state)``
returns sums over the points, ``maximization(problem, sums)`` the next state and an info about the step. They are apart
so that the loop can free the matrices of one before the other makes its own.
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


class Info(Protocol):
    """What the loop asks of a step: a NamedTuple with these among its fields, each of A models."""

    @property
    def lower_bound(self) -> Tensor:
        """float64 [A], before the step; minus infinity at the start."""

    @property
    def bad(self) -> Tensor:
        """bool [A]: the model has lost a positive definite covariance and stops."""


P = TypeVar("P", bound=Problem)
S = TypeVar("S", bound=tuple[Tensor, ...])
I = TypeVar("I", bound=Any)
Sums = TypeVar("Sums")


class Ascent(NamedTuple, Generic[S, I]):
    """Where the ascent of M models has ended: the state and info of each model's last step.

    Attributes
    ----------
    state, info : NamedTuple of Tensor
    n_iter : Tensor
        int64 [M].
    converged : Tensor
        bool [M].
    """

    state: S
    info: I
    n_iter: Tensor
    converged: Tensor

    def select(self, models: Tensor) -> Ascent[S, I]:
        """Some of the models, by index or mask."""
        return Ascent(
            select(self.state, models), select(self.info, models), self.n_iter[models], self.converged[models]
        )


def coordinate_ascent(
    problem: P,
    init: Callable[[P], tuple[S, I]],
    expectation: Callable[[P, S], Sums],
    maximization: Callable[[P, Sums], tuple[S, I]],
    *,
    tol: float,
    max_iter: int,
) -> Ascent[S, I]:
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
    finished: list[tuple[Tensor, S, I]] = []
    for iteration in range(1, max_iter + 1):
        previous = info.lower_bound
        # The matrices of one half step are freed before the next makes its own: memory peaks here.
        del info
        sums = expectation(problem, state)
        del state
        state, info = maximization(problem, sums)
        del sums
        done = (info.lower_bound - previous).abs() < tol
        n_iter[active] = iteration
        converged[active] = done & ~info.bad
        leaving = done | info.bad
        if bool(leaving.any()):
            finished.append((active[leaving], select(state, leaving), select(info, leaving)))
            keep = ~leaving
            active, problem = active[keep], problem.select(keep)
            state, info = select(state, keep), select(info, keep)
            if len(active) == 0:
                break
    if len(active) or not finished:
        finished.append((active, state, info))
    del state, info
    order = torch.argsort(torch.cat([models for models, _, _ in finished]))
    _, states, infos = zip(*finished, strict=True)
    return Ascent(_join(states, order), _join(infos, order), n_iter, converged)


def select(values: S, models: Tensor) -> S:
    """The values of some of the models, by index or mask, of a NamedTuple of tensors [A, ...]."""
    return type(values)(*(value[models] for value in values))


def _join(parts: tuple[S, ...], order: Tensor) -> S:
    """All parts as one, reordered by ``order``."""
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(*(torch.cat(column)[order] for column in zip(*parts, strict=True)))
