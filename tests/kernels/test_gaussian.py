"""Log-densities of Gaussian mixtures: the reference against scipy, derivatives, torch.library."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from fastdens.kernels import reference

from fastdens import kernels
from tests.problems import COVARIANCE_TYPES, CPU, GPU, INTERPRETER, mixture_problem


def test_reference_agrees_with_scipy(rng):
    x, _, weights, means, factor = mixture_problem(rng, [12], 3, 2, "full")
    covariance = torch.linalg.inv(factor @ factor.mT)
    density = sum(
        float(weights[0, k]) * scipy.stats.multivariate_normal(means[0, k], covariance[0, k]).pdf(x.numpy())
        for k in range(2)
    )
    np.testing.assert_allclose(reference.mixture_log_prob(x, weights, means, factor)[:, 0], np.log(density), rtol=1e-10)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_gradients_in_the_points(rng, backend, device, covariance_type):
    x, _, weights, means, factor = mixture_problem(rng, [5], 3, 2, covariance_type, device=device)
    x.requires_grad_()
    options = {"covariance_type": covariance_type, "backend": backend}
    assert torch.autograd.gradcheck(lambda p: kernels.mixture_log_prob(p, weights, means, factor, **options), x)
    assert torch.autograd.gradcheck(lambda p: kernels.gaussian_log_prob(p, means[0], factor[0], **options), x)
    with pytest.raises(NotImplementedError, match="means requires a gradient"):
        kernels.mixture_log_prob(x, weights, means.requires_grad_(), factor, **options)


def test_operators_are_registered_as_torch_library_wants(rng):
    x, _, weights, means, factor = mixture_problem(rng, [6], 3, 2, "full")
    x.requires_grad_()
    kernels.mixture_log_prob(x, weights, means, factor)
    torch.library.opcheck(torch.ops.fastdens.mixture_log_prob, (x, weights, means, factor, "full", "cpu", "ieee"))
    torch.library.opcheck(torch.ops.fastdens.gaussian_log_prob, (x, means[0], factor[0], "full", "cpu", "ieee"))


def test_torch_compile_traces_them(rng):
    x, _, weights, means, factor = mixture_problem(rng, [6], 3, 2, "full")
    compiled = torch.compile(
        lambda p: kernels.mixture_log_prob(p, weights, means, factor).sum(), fullgraph=True, backend="aot_eager"
    )
    x.requires_grad_()
    compiled(x).backward()
    got, x.grad = x.grad, None
    kernels.mixture_log_prob(x, weights, means, factor).sum().backward()
    assert torch.equal(got, x.grad)
