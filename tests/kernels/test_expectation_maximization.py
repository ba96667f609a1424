"""Steps of EM against the float64 reference, scikit-learn, and themselves in other portions and other company."""

from __future__ import annotations

import warnings

import pytest
import torch
from fastdens.kernels import em_steps
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from tests.kernels.counting import counted
from tests.problems import (
    COVARIANCE_TYPES,
    CPU,
    GPU,
    INTERPRETER,
    TOLERANCE,
    layout_of,
    mixture_problem,
    relative_error,
)

NO_BOUND = -torch.inf


def take(problem, n_steps, backend, *, models=slice(None), tol=0.0, reg_covar=1e-3, **options):
    """Steps of some of the models of a problem."""
    x, offsets, *parameters = problem
    layout = layout_of(offsets).select(models)
    bound = torch.full((layout.n_models,), NO_BOUND, dtype=torch.float64, device=x.device)
    parameters = [parameter[models] for parameter in parameters]
    options |= {"n_steps": n_steps, "backend": backend, "tol": tol, "reg_covar": reg_covar}
    return em_steps(x, layout, *parameters, bound, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(
    ("sizes", "n_features", "n_components"),
    # Tiny models, models of several tiles and chunks, both in one batch, dimensions past a block.
    [([1], 1, 1), ([33, 1, 20], 3, 3), ([8, 5], 4, 5), ([1060, 30], 2, 2), ([33, 1, 70], 5, 3), ([40, 25], 33, 2)],
)
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_agrees_with_reference(rng, backend, device, sizes, n_features, n_components, covariance_type, dtype):
    problem = mixture_problem(rng, sizes, n_features, n_components, covariance_type, dtype, device=device)
    # With regularisation large enough that models of few points are as well conditioned as the others.
    options = {"covariance_type": covariance_type, "reg_covar": 0.1}
    got = take(problem, 2, backend, **options)
    want = take(problem, 2, "reference", **options)
    for name, value, expected in zip(got._fields, got, want, strict=True):
        assert value.dtype == expected.dtype, name
        assert relative_error(value, expected) < TOLERANCE[dtype], name
    assert got.lower_bound.dtype == torch.float64
    assert got.n_steps.tolist() == [2] * len(sizes)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("n_features", [2, 6])
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_each_step_is_that_of_scikit_learn(rng, backend, device, n_features, covariance_type):
    problem = mixture_problem(rng, [50], n_features, 2, covariance_type, shift=5.0, device=device)
    x, _, weights, means, factor = (tensor.cpu().numpy() for tensor in problem)
    precisions = (
        factor[0] ** 2 if factor.ndim < 3 + (covariance_type != "tied") else factor[0] @ factor[0].swapaxes(-1, -2)
    )
    for n_steps in (1, 3):
        theirs = GaussianMixture(
            2,
            covariance_type=covariance_type,
            tol=0,
            reg_covar=1e-3,
            max_iter=n_steps,
            weights_init=weights[0],
            means_init=means[0],
            precisions_init=precisions,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            theirs.fit(x)
        ours = take(problem, n_steps, backend, covariance_type=covariance_type)
        for name in ("weights", "means", "covariances", "precisions_cholesky"):
            want = torch.from_numpy(getattr(theirs, f"{name}_"))
            assert relative_error(getattr(ours, name)[0], want) < 1e-10, name
        assert float(ours.lower_bound[0]) == pytest.approx(theirs.lower_bound_, rel=1e-10)


@pytest.mark.parametrize(
    ("covariance_type", "sizes", "n_features"),
    [*((kind, [12, 5, 9], n_features) for kind in COVARIANCE_TYPES for n_features in (3, 5)), ("full", [5, 140], 3)],
)
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_same_bits_in_other_portions_and_other_company(rng, backend, device, covariance_type, sizes, n_features):
    problem = mixture_problem(rng, sizes, n_features, 2, covariance_type, torch.float32, device=device)
    x, offsets, *parameters = problem
    layout, bound = layout_of(offsets), torch.full((len(sizes),), NO_BOUND, dtype=torch.float64, device=device)
    options = {"backend": backend, "covariance_type": covariance_type}
    # A change of the lower bound that stops one of the models after two steps, and may not stop the others.
    bounds = torch.stack([take(problem, n, **options).lower_bound for n in (1, 2)])
    options["tol"] = 1.001 * float((bounds[1] - bounds[0]).abs().min())
    together = take(problem, 4, **options)
    assert int(together.n_steps.min()) == 2
    for m in range(len(sizes)):
        alone = take(problem, 4, models=[m], **options)
        for name, a, b in zip(together._fields, together, alone, strict=True):
            assert torch.equal(a[m : m + 1], b), name
    for _ in range(2):
        one = em_steps(x, layout, *parameters, bound, n_steps=1, reg_covar=1e-3, **options)
        parameters, bound = [one.weights, one.means, one.precisions_cholesky], one.lower_bound
    for name, a, b in zip(together._fields, take(problem, 2, **options), one, strict=True):
        assert name == "n_steps" or torch.equal(a, b), name


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("n_features", [3, 5])
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_a_bad_model_stops_and_leaves_its_neighbours_alone(rng, backend, device, n_features, covariance_type):
    problem = mixture_problem(rng, [10, 15, 8], n_features, 2, covariance_type, torch.float32, device=device)
    options = {"backend": backend, "covariance_type": covariance_type}
    clean = take(problem, 3, **options)
    problem.points[15] = float("nan")
    spoilt = take(problem, 3, **options)
    assert spoilt.bad.tolist() == [False, True, False]
    assert spoilt.n_steps.tolist() == [3, 1, 3]
    assert not spoilt.converged.any()
    for name, a, b in zip(clean._fields, clean, spoilt, strict=True):
        assert torch.equal(a[[0, 2]], b[[0, 2]]), name


@pytest.mark.parametrize("n_features", [2, 5])
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_inputs_of_any_strides_stay_as_they_were(rng, backend, device, n_features):
    problem = mixture_problem(rng, [30, 12], n_features, 3, "full", device=device)
    strided = problem._replace(
        points=problem.points.T.contiguous().T,
        weights=problem.weights.T.contiguous().T,
        means=problem.means.mT.contiguous().mT,
        precisions_cholesky=problem.precisions_cholesky.mT.contiguous().mT,
    )
    before = [tensor.clone() for tensor in strided]
    plain, got = (take(of, 2, backend) for of in (problem, strided))
    for name, a, b in zip(plain._fields, plain, got, strict=True):
        assert torch.equal(a, b), name
    assert all(torch.equal(a, b) for a, b in zip(before, strided, strict=True))


@pytest.mark.parametrize("n_features", [2, 5])
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_a_model_without_points(rng, backend, device, n_features):
    problem = mixture_problem(rng, [20, 0, 9], n_features, 2, "full", device=device)
    steps = take(problem, 2, backend)
    alone = take(problem, 2, backend, models=[2])
    assert all(torch.equal(a[2:], b) for a, b in zip(steps, alone, strict=True))
    assert steps.lower_bound[1].isnan()


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(("n_features", "launches"), [(2, 0), (5, 7)])
def test_a_step_is_a_handful_of_launches_and_no_wait(rng, n_features, launches, covariance_type):
    problem = mixture_problem(rng, [9, 5], n_features, 2, covariance_type)
    counts = []
    for n_steps in (3, 2):
        with counted() as count:
            take(problem, n_steps, "triton", covariance_type=covariance_type)
        counts.append(count)
    of_a_step = counts[0] - counts[1]
    # Diagonal covariances need no factorisation.
    launches -= n_features == 5 and covariance_type in ("diag", "spherical")
    assert of_a_step.totals == (0, 0, launches), of_a_step


def test_errors_are_one_sentence(rng):
    problem = mixture_problem(rng, [6], 3, 2, "full")
    with pytest.raises(ValueError, match="n_steps is 0"):
        take(problem, 0, "cpu")
    x, offsets, *parameters = problem
    with pytest.raises(ValueError, match=r"lower_bound is torch.float32.*float64 \[1\]"):
        em_steps(x, offsets, *parameters, torch.zeros(1), n_steps=1, tol=0.0, reg_covar=0.0)
