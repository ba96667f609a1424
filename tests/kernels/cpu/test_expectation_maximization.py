"""EM steps of small and large models on the CPU: those of the reference and of scikit-learn, on any threads."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from fastdens.kernels import em_steps
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from tests.problems import COVARIANCE_TYPES, TOLERANCE, layout_of, mixture_problem, relative_error

# Models of one point, of a lane, of a tail of a tile, of several tiles; D and K of every kind.
SHAPES = [
    ([1], 1, 1),
    ([20, 3, 32, 33], 2, 2),
    ([90, 5, 264], 1, 6),
    ([33, 64], 3, 3),
    ([600, 70], 17, 2),
    ([300], 65, 1),
    ([530], 300, 2),
]


def unsettled(sizes):
    return torch.full((len(sizes),), -torch.inf, dtype=torch.float64)


def check_alike(steps, expected, tolerance):
    for name, value, want in zip(steps._fields, steps, expected, strict=True):
        if value.is_floating_point():
            assert relative_error(value, want) < tolerance, name
        else:
            assert torch.equal(value.cpu(), want.cpu()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(("sizes", "n_features", "n_components"), SHAPES)
def test_agrees_with_reference(rng, sizes, n_features, n_components, covariance_type, dtype):
    x, offsets, *state = mixture_problem(rng, sizes, n_features, n_components, covariance_type, dtype)
    options = {"n_steps": 3, "tol": 0.0, "reg_covar": 0.1, "covariance_type": covariance_type}
    layout = layout_of(offsets)
    steps = em_steps(x, layout, *state, unsettled(sizes), backend="cpu", **options)
    check_alike(steps, em_steps(x, layout, *state, unsettled(sizes), backend="reference", **options), TOLERANCE[dtype])


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_takes_the_steps_of_scikit_learn_until_each_model_settles(rng, covariance_type):
    sizes, d, k, tol = [200, 40, 900], 3, 2, 1e-3
    x, offsets, weights, means, factor = mixture_problem(rng, sizes, d, k, covariance_type)
    x[:40] += 4
    options = {"n_steps": 60, "tol": tol, "reg_covar": 1e-6, "covariance_type": covariance_type}
    steps = em_steps(x, layout_of(offsets), weights, means, factor, unsettled(sizes), **options)
    for m, own in enumerate(x.split(sizes)):
        u = factor[m]
        precision = u @ u.mT if covariance_type in ("full", "tied") else u**2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fit = GaussianMixture(
                k,
                covariance_type=covariance_type,
                tol=tol,
                max_iter=60,
                weights_init=weights[m].numpy(),
                means_init=means[m].numpy(),
                precisions_init=precision.numpy(),
            ).fit(own.numpy())
        assert (int(steps.n_steps[m]), bool(steps.converged[m])) == (fit.n_iter_, fit.converged_)
        np.testing.assert_allclose(steps.means[m], fit.means_, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(steps.weights[m], fit.weights_, rtol=1e-8)
        np.testing.assert_allclose(steps.covariances[m], fit.covariances_, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(float(steps.lower_bound[m]), fit.lower_bound_, rtol=1e-10)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_in_other_company_in_other_portions_and_on_other_threads(rng, covariance_type, dtype):
    # One model is large enough for the threads to share it.
    sizes, d, k = [50, 120_000, 700, 0], 4, 9
    x, offsets, *state = mixture_problem(rng, sizes, d, k, covariance_type, dtype)
    layout = layout_of(offsets)
    options = {"tol": 1e-2, "reg_covar": 1e-3, "covariance_type": covariance_type, "backend": "cpu"}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        steps = em_steps(x, layout, *state, unsettled(sizes), n_steps=4, **options)
        torch.set_num_threads(2)
        again = em_steps(x, layout, *state, unsettled(sizes), n_steps=4, **options)
    finally:
        torch.set_num_threads(threads)
    for name, value, other in zip(steps._fields, steps, again, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=0, equal_nan=True, msg=name)
    for m in range(len(sizes)):
        now, bound, own = [value[[m]] for value in state], unsettled([0]), layout.select([m])
        for taken in range(1, int(steps.n_steps[m]) + 1):
            one = em_steps(x, own, *now, bound, n_steps=1, **options)
            now, bound = [one.weights, one.means, one.precisions_cholesky], one.lower_bound
            assert bool(one.converged) == (bool(steps.converged[m]) and taken == int(steps.n_steps[m]))
        for name in ("weights", "means", "covariances", "precisions_cholesky", "lower_bound", "converged", "bad"):
            value, other = getattr(steps, name)[[m]], getattr(one, name)
            torch.testing.assert_close(value, other, rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("n_features", [1, 2])
def test_a_lane_does_not_know_its_neighbours(rng, n_features, covariance_type):
    # More models than lanes; one of them is lost, one has no points, and they settle at different steps.
    sizes = rng.integers(1, 33, 70).tolist()
    sizes[40] = 0
    x, offsets, *state = mixture_problem(rng, sizes, n_features, 3, covariance_type, torch.float32)
    layout, share = layout_of(offsets), torch.from_numpy(rng.uniform(0.5, 1.5, len(x))).float()
    x[offsets[7]] = torch.nan
    options = {"n_steps": 9, "tol": 1e-2, "reg_covar": 1e-3, "covariance_type": covariance_type, "sample_weight": share}
    steps = em_steps(x, layout, *state, unsettled(sizes), **options)
    assert bool(steps.bad[7]) and int(steps.bad.sum()) == 1 and len(steps.n_steps.unique()) > 2
    for models in ([0], [39, 69, 3], [40, 7, 12]):
        alone = em_steps(x, layout.select(models), *(value[models] for value in state), unsettled(models), **options)
        for name, value, other in zip(steps._fields, steps, alone, strict=True):
            torch.testing.assert_close(value[models], other, rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_far_from_the_origin_with_a_component_far_from_all_points(rng, covariance_type):
    x, offsets, *state = mixture_problem(rng, [300], 6, 3, covariance_type, torch.float32, shift=1e4)
    state[1][0, 2] += 1e6
    options = {"n_steps": 2, "tol": 0.0, "reg_covar": 1e-3, "covariance_type": covariance_type}
    steps = em_steps(x, offsets, *state, unsettled([1]), **options)
    in_double = [value.double() for value in (x, *state)]
    want = em_steps(in_double[0], offsets, *in_double[1:], unsettled([1]), **options)
    # It owns no point, stays where it is, and is left with no variance of its own.
    assert torch.equal(steps.means[0, 2], state[1][0, 2])
    assert relative_error(steps.means[:, :2] - 1e4, want.means[:, :2] - 1e4) < 2e-3
    assert relative_error(steps.covariances, want.covariances) < 1e-3
