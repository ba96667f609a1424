"""Log-densities in plain operations against the reference, in every shape, and far from the origin."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from fastdens.kernels import portable, reference
from fastdens.kernels.gaussian import mixture_components
from fastdens.kernels.mixture import Components

from tests.problems import mixture_problem, relative_error, student_t_problem

SHAPES = [(1, 1, 1), (5, 3, 2), (1, 17, 3)]
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


def student_t_components(offsets, log_weights, locations, factors, dof) -> Components:
    d = locations.shape[1]
    nu, log_det = dof.double(), factors.double().diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_gammas = portable.log_gamma((nu + d) / 2) - portable.log_gamma(nu / 2)
    norm = log_weights.double() + log_gammas - d / 2 * (nu * np.pi).log() + log_det
    return Components(offsets, norm, locations, factors, True, False, dof)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize(("n", "d", "k"), SHAPES)
def test_gaussian_mixtures(rng, n, d, k, covariance_type, dtype):
    x, _, weights, means, factors = mixture_problem(rng, [n, n], d, k, covariance_type, dtype, shift=1e4)
    got = portable.log_prob(x, mixture_components(weights.double().log(), means, factors, covariance_type))
    want = reference.mixture_log_prob(x, weights, means, factors, covariance_type=covariance_type)
    assert got.dtype == dtype and relative_error(got, want) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n", "d", "k"), SHAPES)
def test_student_t_mixtures(rng, n, d, k, dtype):
    x, offsets, *parameters = student_t_problem(rng, n, d, [k, 1, k + 2], dtype, shift=1e4)
    want = reference.student_t_log_prob(x, offsets, *parameters)
    got = portable.log_prob(x, student_t_components(offsets, *parameters))
    assert got.dtype == dtype and relative_error(got, want) < TOLERANCE[dtype]


def test_models_without_components_and_components_without_weight(rng):
    x, offsets, *parameters = student_t_problem(rng, 4, 2, [2, 0, 3, 1])
    parameters[0][[2, 5]] = -torch.inf
    # What a component is whose weight is zero is of no account.
    parameters[1][2], parameters[3][2] = torch.nan, 1e-300
    x.requires_grad_()
    got = portable.log_prob(x, student_t_components(offsets, *parameters))
    want = reference.student_t_log_prob(x.detach(), offsets, *parameters)
    torch.testing.assert_close(got.detach(), want, equal_nan=True)
    assert got[:, 1].isnan().all() and (got[:, 3] == -torch.inf).all()


def test_gradients(rng):
    x, offsets, *parameters = student_t_problem(rng, 3, 2, [2, 3])
    components = student_t_components(offsets, *parameters)
    assert torch.autograd.gradcheck(lambda p: portable.log_prob(p, components), x.requires_grad_())


def test_log_gamma(rng):
    x = torch.from_numpy(np.exp(rng.uniform(-8, 12, size=1000)))
    exact = scipy.special.gammaln(x.numpy())
    np.testing.assert_allclose(portable.log_gamma(x), exact, rtol=1e-13, atol=1e-13)
