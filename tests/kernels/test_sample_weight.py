"""Weights of points in steps of EM: integers against repeated rows, others against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdens.kernels import em_steps

from fastdens import kernels
from tests.problems import (
    COVARIANCE_TYPES,
    CPU,
    GPU,
    INTERPRETER,
    layout_of,
    mixture_problem,
    relative_error,
)

# Tiny models of a GPU, and others.
SHAPES = [([9, 1, 5], 3, 3), ([12, 2, 30], 5, 2)]
STEPS = {"n_steps": 2, "tol": 0.0, "reg_covar": 0.1}


def repeated(problem, times):
    """The problem with its rows repeated, integers [N]."""
    sums = torch.cat([times.new_zeros(1), times.cumsum(0)])
    return problem._replace(
        points=problem.points.repeat_interleave(times, 0), offsets=sums[problem.offsets].to(problem.offsets)
    )


def take(problem, **options):
    x, offsets, *state = problem
    bound = torch.full((len(offsets) - 1,), -torch.inf, dtype=torch.float64, device=x.device)
    return em_steps(x, layout_of(offsets), *state, bound, **STEPS, **options)


def check_alike(steps, expected, tolerance):
    for name, value, want in zip(steps._fields, steps, expected, strict=True):
        assert relative_error(value, want) < tolerance, name


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(("sizes", "n_features", "n_components"), SHAPES)
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_integers_repeat_rows(rng, backend, device, sizes, n_features, n_components, covariance_type):
    problem = mixture_problem(rng, sizes, n_features, n_components, covariance_type, device=device)
    times = torch.from_numpy(rng.integers(1, 4, sum(sizes))).to(device)
    options = {"covariance_type": covariance_type, "backend": backend}
    got = take(problem, sample_weight=times.double(), **options)
    check_alike(got, take(repeated(problem, times), **options), 1e-10)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("shared", [False, True], ids=["a thread each", "shared by threads"])
def test_any_weights_on_the_cpu(rng, monkeypatch, covariance_type, shared):
    if shared:
        monkeypatch.setattr("fastdens.kernels.cpu.expectation_maximization._MOST_WORK", 0)
    # The last model has several tiles.
    problem = mixture_problem(rng, [33, 2, 300], 5, 3, covariance_type, torch.float32)
    weight = torch.from_numpy(rng.gamma(0.5, size=335) + 1e-3).float()
    got, want = (
        take(problem, sample_weight=weight, covariance_type=covariance_type, backend=b) for b in ("cpu", "reference")
    )
    check_alike(got, want, 1e-4)


def test_a_model_that_settles_keeps_its_weights(monkeypatch):
    # Of these data one model settles before the other.
    rng = np.random.default_rng(0)
    monkeypatch.setattr("fastdens.kernels.cpu.expectation_maximization._MOST_WORK", 0)
    problem = mixture_problem(rng, [40, 300], 3, 2, "full")
    weight = torch.from_numpy(rng.gamma(0.5, size=340) + 1e-3)
    options = {"n_steps": 30, "reg_covar": 1e-3, "sample_weight": weight}
    x, offsets, *state = problem
    start = x, layout_of(offsets), *state, torch.full((2,), -torch.inf, dtype=torch.float64)
    got, want = (em_steps(*start, tol=1e-2, backend=b, **options) for b in ("cpu", "reference"))
    assert len(set(want.n_steps.tolist())) == 2
    check_alike(got, want, 1e-10)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_statistics_of_weighted_points(rng, covariance_type):
    problem = mixture_problem(rng, [33, 1, 20], 3, 2, covariance_type)
    times = torch.from_numpy(rng.integers(1, 4, 54))
    x, offsets, *state = problem
    got = kernels.em_statistics(x, offsets, *state, covariance_type=covariance_type, sample_weight=times.double())
    x, offsets, *state = repeated(problem, times)
    check_alike(got, kernels.em_statistics(x, offsets, *state, covariance_type=covariance_type), 1e-10)


@pytest.mark.parametrize("wrong", ["shape", "dtype"])
def test_weights_that_do_not_fit(rng, wrong):
    problem = mixture_problem(rng, [5], 2, 1, "full")
    weight = torch.ones(4, dtype=torch.float64) if wrong == "shape" else torch.ones(5, dtype=torch.float32)
    with pytest.raises((TypeError, ValueError), match="sample_weight"):
        take(problem, sample_weight=weight)
