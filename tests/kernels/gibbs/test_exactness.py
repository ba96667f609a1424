"""The sampler against enumeration of all partitions, and Geweke's test."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from tests.kernels.gibbs.chains import CPU, GPU, chain_start, clustered, run
from tests.kernels.gibbs.posterior import (
    CERTAIN,
    KAPPA0,
    NU0_OVER_D,
    Data,
    chi_square_pvalue,
    exact_posterior,
    relative_total_variation,
)


def final_partitions(rng, data, n_chains, n_sweeps, alpha, backend, device="cpu", **options):
    start = chain_start(rng, data, n_chains, 3, alpha)
    options = {"n_sweeps": n_sweeps, "thin": n_sweeps, "alpha_prior": (1.0, 1.0) if alpha is None else None, **options}
    return run(data, *start, backend, device, **options).labels[-1].cpu().numpy()


@pytest.mark.parametrize(("n", "d"), [(6, 1), (7, 2), (6, 5)])
@pytest.mark.parametrize("alpha", [0.7, None])
@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
@pytest.mark.unsanitized
def test_every_partition_as_often_as_it_should_be(rng, backend, device, n, d, alpha):
    data = clustered(rng, [n], d, separation=1.0)
    exact = exact_posterior(data, alpha)
    labels = final_partitions(rng, data, 10_000, 60, alpha, backend, device)
    assert chi_square_pvalue(labels, *exact) > CERTAIN


@pytest.mark.parametrize(("n", "d"), [(7, 2), (6, 5)])
@pytest.mark.parametrize("alpha", [0.7, None])
@pytest.mark.parametrize(("moves", "n_sweeps"), [(1, 40), (5, 20)])
@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
@pytest.mark.unsanitized
def test_every_partition_with_moves_among_the_sweeps(rng, backend, device, moves, n_sweeps, n, d, alpha):
    data = clustered(rng, [n], d, separation=1.0)
    exact = exact_posterior(data, alpha)
    labels = final_partitions(rng, data, 10_000, n_sweeps, alpha, backend, device, split_merge=moves)
    assert chi_square_pvalue(labels, *exact) > CERTAIN
    # Of fewer partitions the distance varies too much by chance.
    assert n < 7 or relative_total_variation(labels, *exact) < 1.6


@pytest.mark.parametrize("alpha", [0.7, None])
@pytest.mark.parametrize(("backend", "n_chains"), [("triton", 40), ("reference", 90)])
def test_slow_backends_on_every_partition(rng, backend, n_chains, alpha):
    """Fewer chains, each long enough to have forgotten its start, and the labels are the CPU's."""
    data = clustered(rng, [4], 2, separation=1.0)
    exact = exact_posterior(data, alpha)
    prior = None if alpha else (1.0, 1.0)
    start = chain_start(rng, data, n_chains, 3, alpha)
    options = {"n_sweeps": 5, "thin": 5, "alpha_prior": prior}
    labels = run(data, *start, backend, **options).labels
    assert torch.equal(labels, run(data, *start, "cpu", **options).labels)
    assert chi_square_pvalue(labels[-1].numpy(), *exact) > CERTAIN


def test_wrong_samplers_are_caught(rng):
    """The chi-square test has the power it needs: wrong in kappa by one, in alpha by a half, it fails."""
    data = clustered(rng, [7], 2, separation=1.0)
    exact = exact_posterior(data, 0.7)
    assert chi_square_pvalue(final_partitions(rng, data, 20_000, 60, 0.7, "cpu", kappa0=KAPPA0 + 1), *exact) < CERTAIN
    assert chi_square_pvalue(final_partitions(rng, data, 20_000, 60, 1.05, "cpu"), *exact) < CERTAIN
    fixed_for_random = final_partitions(rng, data, 20_000, 60, 0.7, "cpu")
    assert chi_square_pvalue(fixed_for_random, *exact_posterior(data, None)) < CERTAIN


def draw_points(rng, labels, d, s0, kappa0, nu0):
    """Points [M, N, D] given labels [M, N], from the prior about the origin."""
    n_models, n_points = labels.shape
    sigma = scipy.stats.invwishart.rvs(nu0, np.diag(s0), size=n_models * n_points, random_state=rng)
    root = np.linalg.cholesky(np.reshape(sigma, (n_models, n_points, d, d)))
    mu = np.einsum("mkde,mke->mkd", root, rng.normal(size=(n_models, n_points, d))) / math.sqrt(kappa0)
    model = np.arange(n_models)[:, None]
    return mu[model, labels] + np.einsum("mnde,mne->mnd", root[model, labels], rng.normal(size=(n_models, n_points, d)))


def draw_prior(rng, n_models, n_points):
    """Labels from the Chinese restaurant process and alpha from Gamma(1, 1)."""
    alpha = rng.gamma(1.0, size=n_models)
    labels = np.zeros((n_models, n_points), np.int64)
    for i in range(1, n_points):
        table = rng.integers(0, i, size=n_models)
        fresh = rng.uniform(size=n_models) < alpha / (alpha + i)
        labels[:, i] = np.where(fresh, labels[:, :i].max(1) + 1, labels[np.arange(n_models), table])
    return labels, alpha


def geweke_pvalues(rng, kappa0_of_sampler, backend="cpu", device="cpu", split_merge=0, n_models=4000, n_rounds=12):
    """Geweke (2004): draws of the joint, sent through sweeps and new points in turn, are still draws of the joint."""
    n, d, nu0 = 6, 2, 1 + NU0_OVER_D
    s0 = np.array([1.0, 0.3])
    labels, alpha = draw_prior(rng, n_models, n)
    zeros = torch.zeros(n_models, d, dtype=torch.float64)
    scale = torch.from_numpy(s0).expand(n_models, d).contiguous()
    x = draw_points(rng, labels, d, s0, KAPPA0, nu0)
    for _ in range(n_rounds):
        data = Data(torch.from_numpy(x.reshape(-1, d)), torch.arange(n_models + 1) * n, zeros, scale)
        keys = torch.from_numpy(rng.integers(0, 2**62, size=(n_models, 1)))
        start = (torch.from_numpy(labels.reshape(1, -1)), torch.from_numpy(alpha[:, None]), keys)
        done = run(data, *start, backend, device, kappa0=kappa0_of_sampler, split_merge=split_merge)
        labels, alpha = done.labels[0, 0].cpu().numpy().reshape(n_models, n), done.alpha[:, 0, 0].cpu().numpy()
        x = draw_points(rng, labels, d, s0, KAPPA0, nu0)

    def statistics(labels, alpha, x):
        spread = np.abs(x - np.median(x, 1, keepdims=True)).mean(1)
        return [labels.max(1), alpha, np.log(spread[:, 0]), np.log(spread[:, 1]), (labels == labels[:, :1]).sum(1)]

    fresh_labels, fresh_alpha = draw_prior(rng, n_models, n)
    fresh = statistics(fresh_labels, fresh_alpha, draw_points(rng, fresh_labels, d, s0, KAPPA0, nu0))
    return [scipy.stats.mannwhitneyu(a, b).pvalue for a, b in zip(statistics(labels, alpha, x), fresh, strict=True)]


@pytest.mark.parametrize("split_merge", [0, 1, 5])
@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
@pytest.mark.unsanitized
def test_geweke(rng, backend, device, split_merge):
    assert min(geweke_pvalues(rng, KAPPA0, backend, device, split_merge)) > CERTAIN


def test_geweke_catches_a_wrong_kappa(rng):
    assert min(geweke_pvalues(rng, KAPPA0 + 1)) < CERTAIN
