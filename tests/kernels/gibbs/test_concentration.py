"""Gamma numbers, and draws of alpha against quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from fastdens.kernels import reference
from fastdens.kernels.counter_random import hashed_uniform
from fastdens.kernels.cpu._random import uniform
from fastdens.kernels.cpu.gibbs.concentration import gamma, resample_concentration

from tests.kernels.gibbs.chains import stream
from tests.kernels.gibbs.posterior import CERTAIN


def test_alpha_given_the_number_of_clusters(rng):
    """N = 500, K = 6 held fixed: the exact mean of alpha is 0.883 (DESIGN section 5), not the published 1.045."""
    n, k = 500, 6

    def density(a):
        return math.exp(k * math.log(a) + math.lgamma(a) - math.lgamma(a + n) + math.lgamma(n) - a)

    mass, first, second = (scipy.integrate.quad(lambda a, p=p: a**p * density(a), 0, 30)[0] for p in (0, 1, 2))
    mean, variance = first / mass, second / mass - (first / mass) ** 2
    assert mean == pytest.approx(0.883, abs=5e-4)
    draws = np.empty(100_000)
    alpha = 1.0
    key = int(rng.integers(2**62))
    for t in range(len(draws)):
        alpha = draws[t] = resample_concentration(stream(key, t), alpha, n, k, 1.0, 1.0)
    # Successive draws are correlated: chains of 100, their means independent enough.
    means = draws[1000:].reshape(-1, 100).mean(1)
    assert abs(means.mean() - mean) < 5 * means.std() / len(means) ** 0.5
    assert draws.var() == pytest.approx(variance, rel=0.1)
    tensor = torch.tensor(key)
    alpha = 1.0
    for t in range(20):
        alpha = reference.resample_concentration(tensor, t, alpha, n, k, 1.0, 1.0)
        assert alpha == pytest.approx(draws[t], rel=1e-12)


@pytest.mark.parametrize("shape", [0.05, 0.6, 1.0, 3.0, 700.0])
def test_gamma_numbers(rng, shape):
    key = int(rng.integers(2**62))
    draws = [gamma(stream(key, t), np.int64(1) << 32, shape) for t in range(20_000)]
    assert scipy.stats.kstest(draws, scipy.stats.gamma(shape).cdf).pvalue > CERTAIN


def test_random_numbers_of_the_backends_agree(rng):
    seed = int(rng.integers(2**62))
    numbers = hashed_uniform(seed, 9, torch.arange(50))
    assert numbers.tolist() == [uniform(stream(seed, 9), i) for i in range(50)]
