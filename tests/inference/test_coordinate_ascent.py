from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens.inference.coordinate_ascent import coordinate_ascent

TOL = 1e-6


class Approach(NamedTuple):
    """Each model halves the distance to its target; its bound is minus the square of the distance."""

    target: Tensor
    spoilt: Tensor

    def select(self, models: Tensor) -> Approach:
        return Approach(self.target[models], self.spoilt[models])


class State(NamedTuple):
    x: Tensor


class Info(NamedTuple):
    lower_bound: Tensor
    bad: Tensor


def init(problem):
    start = torch.full_like(problem.target, -torch.inf)
    return State(torch.zeros_like(problem.target)), Info(start, torch.zeros_like(problem.spoilt))


def expectation(problem, state):
    return problem.target - state.x


def maximization(problem, distance):
    return State(problem.target - distance / 2), Info(-(distance**2), problem.spoilt & (distance < 1))


def steps(target):
    """Step n starts at the distance target / 2^(n - 1), and its bound is 3/4 of the square before it higher."""
    return next(n for n in range(2, 99) if 3 * (target / 2 ** (n - 1)) ** 2 < TOL)


def test_each_model_stops_where_its_own_bound_does():
    target = torch.tensor([8.0, 1e-4, 100.0, 3.0], dtype=torch.float64)
    spoilt = torch.tensor([False, False, False, True])
    found = coordinate_ascent(Approach(target, spoilt), init, expectation, maximization, tol=TOL, max_iter=50)
    # Of the spoilt model the distances are 3, 1.5 and 0.75, and it turns bad in the third step.
    expected = [steps(8.0), 2, steps(100.0), 3]
    assert found.n_iter.tolist() == expected
    assert found.converged.tolist() == [True, True, True, False] and found.info.bad.tolist() == spoilt.tolist()
    torch.testing.assert_close(target - found.state.x, target / 2.0 ** torch.tensor(expected), rtol=1e-8, atol=1e-12)


def test_a_model_alone_is_the_same_and_no_iteration_keeps_the_start():
    target, spoilt = torch.tensor([8.0, 5.0], dtype=torch.float64), torch.zeros(2, dtype=torch.bool)
    both = coordinate_ascent(Approach(target, spoilt), init, expectation, maximization, tol=TOL, max_iter=50)
    own = coordinate_ascent(Approach(target[1:], spoilt[1:]), init, expectation, maximization, tol=TOL, max_iter=50)
    assert own.state.x.tolist() == both.select(torch.tensor([1])).state.x.tolist()
    none = coordinate_ascent(Approach(target, spoilt), init, expectation, maximization, tol=TOL, max_iter=0)
    assert none.state.x.tolist() == [0, 0] and none.n_iter.tolist() == [0, 0] and not none.converged.any()
    assert none.info.lower_bound.tolist() == [-math.inf] * 2
