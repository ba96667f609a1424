"""How time grows with models, points, dimensions and components: the exponents of power laws fitted to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import linear_regression

import torch

from fastdens.bench.cases import Case, Problem
from fastdens.bench.ours import OURS
from fastdens.bench.problems import clustered_points, start_of_em
from fastdens.bench.results import Exponent
from fastdens.bench.timing import quiet, seconds_of_run

BASE = Problem("base", 64, 1000, 32, 4)
"""Each axis is doubled from this size, all else fixed."""

AXES = {
    "M": ("n_models", (32, 64, 128, 256)),
    "N": ("n_points", (500, 1000, 2000, 4000)),
    "D": ("n_features", (16, 32, 64, 128)),
    "K": ("n_components", (2, 4, 8, 16)),
}
METHODS = {"em": ("EM, full covariances", 5), "gibbs": ("Gibbs sweeps", 4)}
"""By operation, its name and the iterations that are timed."""


def measure_exponents(*, quick: bool = False) -> Iterator[Exponent]:
    """The exponents of EM with full covariances and of Gibbs sweeps; quick, of EM alone and from fewer values."""
    for operation in list(METHODS)[: 1 if quick else None]:
        for axis, (name, values) in AXES.items():
            chosen = values[:3] if quick else values
            with quiet():
                cases = (_case(operation, _doubled(name, value)) for value in chosen)
                seconds = [seconds_of_run(OURS.operations[operation](case)) for case in cases]
            yield fit_exponent(METHODS[operation][0], axis, chosen, seconds)


def fit_exponent(method: str, axis: str, values: Sequence[int], seconds: Sequence[float]) -> Exponent:
    """The slope of the logarithm of the seconds over that of the values: one where time is linear."""
    slope = linear_regression([math.log(v) for v in values], [math.log(max(s, 1e-9)) for s in seconds]).slope
    return Exponent(method, axis, slope, tuple(values), tuple(seconds))


def _doubled(size: str, value: int) -> Problem:
    return Problem(**{**BASE._asdict(), size: value})


def _case(operation: str, problem: Problem) -> Case:
    points, labels = clustered_points(problem)
    n_iter = METHODS[operation][1]
    if operation == "em":
        start = start_of_em(points, labels, problem.n_components)
        return Case(operation, "full", problem, points, n_iter, start=start)
    # Clusters well apart, from which the chains start: their number is K, and stays so.
    centres = torch.zeros_like(points)
    for k in range(problem.n_components):
        centres[..., k % problem.n_features][labels == k] = 20.0 * (1 + k // problem.n_features)
    return Case(operation, "", problem, points + centres, n_iter, labels=labels)
