"""The sampler against enumeration of all partitions, Geweke's test, quadrature, and itself on other backends."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from fastdens.kernels import gibbs_sweep, reference
from fastdens.kernels.counter_random import hashed_uniform
from fastdens.kernels.cpu._random import stream_of
from fastdens.kernels.cpu.gibbs.gibbs_sweep import _resample_concentration
from fastdens.kernels.gibbs.gibbs_sweep import scan_order

from tests.problems import ranges_of

CPU = pytest.param("cpu", "cpu", id="cpu")
INTERPRETER = pytest.param("triton", "cpu", id="triton-interpreter")
GPU = pytest.param("triton", "cuda", id="triton-gpu", marks=pytest.mark.gpu)

KAPPA0, NU0_OVER_D = 0.2, 2.5
CERTAIN = 1e-6


class Data(NamedTuple):
    points: torch.Tensor
    offsets: torch.Tensor
    prior_mean: torch.Tensor
    prior_scale: torch.Tensor


def stream(key, draw):
    return np.uint64(stream_of(key, draw))


def clustered(rng, sizes, d, scale=1.0, separation=3.0):
    """Models of three clusters; prior scales as a data prior would have them, times ``scale``."""
    x = rng.normal(size=(sum(sizes), d)) + separation * rng.integers(0, 3, size=(sum(sizes), 1))
    means, scales = [], []
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        means.append(part.mean(0))
        scales.append(np.maximum(part.var(0), 0.1) * scale)
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    return Data(torch.from_numpy(x), offsets, torch.from_numpy(np.stack(means)), torch.from_numpy(np.stack(scales)))


def chain_start(rng, data, n_chains, n_labels, alpha=None):
    n_models = len(data.prior_mean)
    labels = torch.from_numpy(rng.integers(0, n_labels, size=(n_chains, len(data.points)))).int()
    start = torch.from_numpy(rng.uniform(0.5, 1.5, size=(n_models, n_chains)))
    keys = torch.from_numpy(rng.integers(0, 2**62, size=(n_models, n_chains)))
    return labels, start if alpha is None else torch.full_like(start, alpha), keys


def run(data, labels, alpha, keys, backend, device="cpu", kappa0=KAPPA0, **options):
    d = data.points.shape[1]
    tensors = [t.to(device) for t in (data.points, data.offsets, labels, alpha, keys, *data[2:])]
    return gibbs_sweep(*tensors, kappa0=kappa0, nu0=d - 1 + NU0_OVER_D, backend=backend, **options)


@pytest.mark.parametrize(
    ("sizes", "d", "n_chains", "n_labels", "n_sweeps"),
    [
        ([1], 1, 1, 1, 2),
        ([1, 9, 14], 1, 2, 3, 3),
        ([12, 1], 2, 1, 12, 3),
        ([20], 7, 1, 3, 2),
        ([9], 33, 1, 2, 2),
    ],
)
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_same_chain_as_reference(rng, backend, device, sizes, d, n_chains, n_labels, n_sweeps):
    data = clustered(rng, sizes, d)
    start = chain_start(rng, data, n_chains, n_labels)
    options = {"n_sweeps": n_sweeps, "first_sweep": 7}
    want = run(data, *start, "reference", **options)
    got = run(data, *start, backend, device, **options)
    assert torch.equal(got.labels.cpu(), want.labels)
    assert torch.equal(got.n_components.cpu(), want.n_components)
    torch.testing.assert_close(got.alpha.cpu(), want.alpha, rtol=1e-10, atol=0)
    torch.testing.assert_close(got.log_joint.cpu(), want.log_joint, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(("sizes", "d", "n_labels", "n_sweeps"), [([90, 40], 20, 5, 4), ([150], 2, 60, 2)])
def test_cpu_same_chain_as_reference_on_larger_models(rng, sizes, d, n_labels, n_sweeps):
    data = clustered(rng, sizes, d)
    start = chain_start(rng, data, 1, n_labels)
    want, got = (run(data, *start, backend, n_sweeps=n_sweeps) for backend in ("reference", "cpu"))
    assert torch.equal(got.labels, want.labels)
    torch.testing.assert_close(got.log_joint, want.log_joint, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_points_that_carry_their_cluster(rng, backend, device):
    """A prior a billion times too narrow: without a far point almost nothing of its cluster's scatter is left."""
    data = clustered(rng, [14], 2, scale=1e-9)
    start = chain_start(rng, data, 1, 3)
    want, got = run(data, *start, "reference", n_sweeps=2), run(data, *start, backend, device, n_sweeps=2)
    assert torch.equal(got.labels.cpu(), want.labels)
    torch.testing.assert_close(got.log_joint.cpu(), want.log_joint, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
def test_drift_of_many_sweeps_in_one_launch(rng, backend, device):
    """200 sweeps of updates without rebuilding: the log-joint is still that of the labels, worked out anew."""
    data = clustered(rng, [120], 24)
    start = chain_start(rng, data, 1, 6)
    got = run(data, *start, backend, device, n_sweeps=200, thin=200)
    want = reference.log_joint(
        data.points - data.prior_mean,
        got.labels[0, 0].cpu(),
        float(got.alpha[0, 0, -1]),
        data.prior_scale[0],
        KAPPA0,
        23 + NU0_OVER_D,
        (1.0, 1.0),
    )
    assert float(got.log_joint[0, 0, -1]) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
def test_more_clusters_than_slots(rng, backend, device):
    """Points far apart under a large alpha: every point founds a cluster, from two at the start to all of 300."""
    points = torch.from_numpy(rng.normal(size=(300, 2)) * 1e3)
    data = Data(points, torch.tensor([0, 300]), points.mean(0)[None], torch.full((1, 2), 1e-3, dtype=torch.float64))
    labels, alpha, keys = chain_start(rng, data, 1, 2, alpha=1e100)
    got = run(data, labels, alpha, keys, backend, device, n_sweeps=2, alpha_prior=None)
    assert got.n_components.flatten().tolist() == [300, 300]
    assert got.labels[-1, 0].cpu().sort().values.tolist() == list(range(300))
    # And back again: with a tiny alpha and a wide prior one cluster takes them all.
    wide = data._replace(prior_scale=torch.full((1, 2), 1e7, dtype=torch.float64))
    tiny = torch.full_like(alpha, 1e-30)
    got = run(wide, got.labels[-1].cpu(), tiny, keys, backend, device, n_sweeps=20, alpha_prior=None)
    assert int(got.n_components[0, 0, -1]) < 5


def partitions(n):
    """All partitions of n points as labels in order of first appearance."""
    labels = [[0]]
    for _ in range(n - 1):
        labels = [[*z, k] for z in labels for k in range(max(z) + 2)]
    return np.array(labels)


def log_marginal(x, m0, s0, kappa0, nu0):
    """log p(x) of one cluster: each point under scipy's Student-t predictive given those before it."""
    d, total = len(m0), 0.0
    for n in range(len(x)):
        seen = x[:n]
        kappa, nu = kappa0 + n, nu0 + n
        mean = (kappa0 * m0 + seen.sum(0)) / kappa
        scatter = np.diag(s0) + kappa0 * np.outer(m0, m0) + seen.T @ seen - kappa * np.outer(mean, mean)
        df = nu - d + 1
        total += scipy.stats.multivariate_t(mean, scatter * (kappa + 1) / (kappa * df), df).logpdf(x[n])
    return total


def exact_posterior(data, alpha, kappa0=KAPPA0):
    """Probability of every partition, for a fixed alpha or (None) under its Gamma(1, 1) prior."""
    x, m0, s0 = data.points.numpy(), data.prior_mean[0].numpy(), data.prior_scale[0].numpy()
    n, d = x.shape
    log_prior = {}
    for k in range(1, n + 1):
        if alpha is None:

            def density(a, k=k):
                log_p = k * math.log(a) + math.lgamma(a) - math.lgamma(a + n) - a
                return math.exp(log_p)

            log_prior[k] = math.log(scipy.integrate.quad(density, 0, np.inf)[0])
        else:
            log_prior[k] = k * math.log(alpha) + math.lgamma(alpha) - math.lgamma(alpha + n)
    every = partitions(n)
    log_p = []
    for z in every:
        sizes = np.bincount(z)
        own = sum(log_marginal(x[z == k], m0, s0, kappa0, d - 1 + NU0_OVER_D) for k in range(len(sizes)))
        log_p.append(log_prior[len(sizes)] + scipy.special.gammaln(sizes).sum() + own)
    return every, np.exp(log_p - scipy.special.logsumexp(log_p))


def in_order_of_appearance(labels):
    """Labels [C, N] renamed so that equal partitions have equal labels."""
    out = np.zeros_like(labels)
    for i in range(1, labels.shape[1]):
        same = labels[:, :i] == labels[:, i : i + 1]
        first = np.where(same.any(1), same.argmax(1), -1)
        out[:, i] = np.where(first >= 0, out[np.arange(len(out)), first], out[:, :i].max(1) + 1)
    return out


def chi_square_pvalue(labels, every, probability):
    """Of independent draws of partitions; the rarest are counted together, ten of them expected at least."""
    code = {tuple(z): j for j, z in enumerate(every.tolist())}
    count = np.bincount([code[tuple(z)] for z in in_order_of_appearance(labels).tolist()], minlength=len(every))
    order = np.argsort(probability)
    expected, count = probability[order] * len(labels), count[order]
    # A cell begins where the ones before it have come to ten.
    cell = np.floor(np.cumsum(np.minimum(expected, 10)) / 10 - 1e-9).astype(int)
    cell = np.minimum(cell, int(np.minimum(expected, 10).sum() / 10) - 1)
    expected, count = np.bincount(cell, expected), np.bincount(cell, count)
    kept = expected > 0
    assert kept.sum() > 1
    return scipy.stats.chisquare(count[kept], expected[kept] * count.sum() / expected.sum()).pvalue


def final_partitions(rng, data, n_chains, n_sweeps, alpha, backend, device="cpu", kappa0=KAPPA0, alpha_prior=None):
    start = chain_start(rng, data, n_chains, 3, alpha)
    options = {"n_sweeps": n_sweeps, "thin": n_sweeps, "alpha_prior": alpha_prior, "kappa0": kappa0}
    return run(data, *start, backend, device, **options).labels[-1].cpu().numpy()


@pytest.mark.parametrize(("n", "d"), [(6, 1), (7, 2), (6, 5)])
@pytest.mark.parametrize("alpha", [0.7, None])
@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
def test_every_partition_as_often_as_it_should_be(rng, backend, device, n, d, alpha):
    data = clustered(rng, [n], d, separation=1.0)
    exact = exact_posterior(data, alpha)
    prior = None if alpha else (1.0, 1.0)
    labels = final_partitions(rng, data, 10_000, 100, alpha, backend, device, alpha_prior=prior)
    assert chi_square_pvalue(labels, *exact) > CERTAIN


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


def geweke_pvalues(rng, kappa0_of_sampler, backend="cpu", device="cpu", n_models=4000, n_rounds=12):
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
        done = run(data, *start, backend, device, kappa0=kappa0_of_sampler)
        labels, alpha = done.labels[0, 0].cpu().numpy().reshape(n_models, n), done.alpha[:, 0, 0].cpu().numpy()
        x = draw_points(rng, labels, d, s0, KAPPA0, nu0)

    def statistics(labels, alpha, x):
        spread = np.abs(x - np.median(x, 1, keepdims=True)).mean(1)
        return [labels.max(1), alpha, np.log(spread[:, 0]), np.log(spread[:, 1]), (labels == labels[:, :1]).sum(1)]

    fresh_labels, fresh_alpha = draw_prior(rng, n_models, n)
    fresh = statistics(fresh_labels, fresh_alpha, draw_points(rng, fresh_labels, d, s0, KAPPA0, nu0))
    return [scipy.stats.mannwhitneyu(a, b).pvalue for a, b in zip(statistics(labels, alpha, x), fresh, strict=True)]


@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
def test_geweke(rng, backend, device):
    assert min(geweke_pvalues(rng, KAPPA0, backend, device)) > CERTAIN


def test_geweke_catches_a_wrong_kappa(rng):
    assert min(geweke_pvalues(rng, KAPPA0 + 1)) < CERTAIN


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
        alpha = draws[t] = _resample_concentration(stream(key, t), alpha, n, k, 1.0, 1.0)
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
    from fastdens.kernels.cpu.gibbs.gibbs_sweep import _gamma

    key = int(rng.integers(2**62))
    draws = [_gamma(stream(key, t), np.int64(1) << 32, shape) for t in range(20_000)]
    assert scipy.stats.kstest(draws, scipy.stats.gamma(shape).cdf).pvalue > CERTAIN


def test_scan_order_is_a_fresh_permutation_of_each_model(rng):
    ranges = ranges_of(torch.tensor([0, 1, 40, 740]))
    keys = torch.from_numpy(rng.integers(0, 2**62, size=3))
    orders = [scan_order(ranges, keys, sweep) for sweep in range(3)]
    for start, stop in ranges.tolist():
        assert all(order[start:stop].sort().values.tolist() == list(range(start, stop)) for order in orders)
    assert not torch.equal(orders[0][1:], orders[1][1:])
    # Each of six orders of three points as often as another.
    three = ranges_of(torch.arange(6001) * 3)
    order = scan_order(three, torch.from_numpy(rng.integers(0, 2**62, size=6000)), 1) % 3
    count = torch.bincount(order.reshape(-1, 3) @ torch.tensor([9, 3, 1]))
    count = count[count > 0]
    assert len(count) == 6 and scipy.stats.chisquare(count.numpy()).pvalue > CERTAIN


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_same_bits_again_and_in_other_company(rng, backend, device):
    data = clustered(rng, [8, 15, 5], 3)
    labels, alpha, keys = chain_start(rng, data, 2, 3)
    first, again = (run(data, labels, alpha, keys, backend, device, n_sweeps=2) for _ in range(2))
    alone = Data(data.points[8:23], torch.tensor([0, 15]), data.prior_mean[1:2], data.prior_scale[1:2])
    own = run(alone, labels[:, 8:23], alpha[1:2], keys[1:2], backend, device, n_sweeps=2)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first.labels[..., 8:23], own.labels)
    for a, b in zip(first[1:], own[1:], strict=True):
        assert torch.equal(a[1:2], b)


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_float32_points_far_from_the_origin(rng, backend, device):
    data = clustered(rng, [30], 3)
    start = chain_start(rng, data, 1, 3)
    shifted = data._replace(points=(data.points + 4096).float(), prior_mean=data.prior_mean + 4096)
    rounded = data._replace(points=shifted.points.double() - 4096)
    want = run(rounded, *start, "reference", n_sweeps=2)
    got = run(shifted, *start, backend, device, n_sweeps=2)
    assert torch.equal(got.labels.cpu(), want.labels)


def test_errors_name_what_is_wrong(rng):
    data = clustered(rng, [8, 5], 2)
    labels, alpha, keys = chain_start(rng, data, 1, 3)
    with pytest.raises(ValueError, match="labels has shape"):
        run(data, labels[:, :-1], alpha, keys, "cpu")
    with pytest.raises(ValueError, match="alpha must be positive"):
        run(data, labels, -alpha, keys, "cpu")
    with pytest.raises(ValueError, match="multiple of thin"):
        run(data, labels, alpha, keys, "cpu", n_sweeps=3, thin=2)
    with pytest.raises(ValueError, match="leave out some points"):
        run(data._replace(offsets=torch.tensor([0, 8, 12])), labels, alpha, keys, "cpu")
    with pytest.raises(TypeError, match="keys is"):
        run(data, labels, alpha, keys.int(), "cpu")
    with pytest.raises(ValueError, match="nu0"):
        gibbs_sweep(data.points, data.offsets, labels, alpha, keys, *data[2:], kappa0=0.1, nu0=1.0, backend="cpu")


def test_random_numbers_of_the_backends_agree(rng):
    from fastdens.kernels.cpu._random import uniform

    seed = int(rng.integers(2**62))
    numbers = hashed_uniform(seed, 9, torch.arange(50))
    assert numbers.tolist() == [uniform(stream(seed, 9), i) for i in range(50)]
