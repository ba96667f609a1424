"""Factor analysers: densities against scipy, sums against the reference, the M step against the likelihood."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from fastdens import kernels
from tests.problems import CPU, GPU, INTERPRETER, REFERENCE, TOLERANCE

BACKENDS = pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, REFERENCE, GPU])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def problem(rng, sizes, d, k, q, dtype=torch.float64, device="cpu", snr=1.0, shift=0.0):
    """Points, offsets and mixtures of overlapping components; ``snr`` scales loadings against a noise of about one."""
    m = len(sizes)
    values = (
        rng.normal(size=(sum(sizes), d)) * snr**0.5 + shift,
        rng.dirichlet(np.ones(k), size=m),
        rng.normal(size=(m, k, d)) + shift,
        rng.normal(size=(m, k, d, q)) * snr**0.5,
        rng.uniform(0.1, 2.0, size=(m, k, d)),
    )
    x, *parameters = (torch.from_numpy(value).to(device, dtype) for value in values)
    offsets = torch.from_numpy(np.cumsum([0, *sizes])).to(device)
    return x, offsets, parameters


def dense_log_joint(x, weights, means, loadings, noise):
    """``log pi_k N(x | k)`` of one model [N, K], by scipy."""
    return np.stack(
        [
            np.log(pi) + scipy.stats.multivariate_normal(mu, a @ a.T + np.diag(psi)).logpdf(x)
            for pi, mu, a, psi in zip(
                *(t.double().cpu().numpy() for t in (weights, means, loadings, noise)), strict=True
            )
        ],
        -1,
    ).reshape(len(x), -1)


@BACKENDS
@DTYPES
@pytest.mark.parametrize(("d", "k", "q"), [(2, 1, 1), (5, 3, 2), (17, 2, 16), (70, 2, 5), (130, 1, 9)])
def test_densities_are_those_of_the_dense_covariance(rng, backend, device, dtype, d, k, q):
    sizes = [1, 0, 40, 67]
    x, offsets, parameters = problem(rng, sizes, d, k, q, dtype, device)
    log_prob = kernels.factor_mixture_log_prob(x, *parameters, backend=backend)
    resp, own = kernels.factor_responsibilities(x, offsets, *parameters, backend=backend)
    assert log_prob.dtype == own.dtype == resp.dtype == dtype
    for m in range(len(sizes)):
        joint = dense_log_joint(x.double().cpu().numpy(), *(value[m] for value in parameters))
        expected = np.logaddexp.reduce(joint, 1)
        rtol = TOLERANCE[dtype]
        np.testing.assert_allclose(log_prob[:, m].cpu(), expected, rtol=rtol, atol=10 * rtol)
        rows = slice(*offsets[m : m + 2].tolist())
        np.testing.assert_allclose(own[rows].cpu(), expected[rows], rtol=rtol, atol=10 * rtol)
        np.testing.assert_allclose(resp[rows].cpu(), np.exp(joint - expected[:, None])[rows], atol=100 * rtol)


@BACKENDS
def test_strong_factors_and_points_far_out_lose_no_digits(rng, backend, device):
    # Features that the factors explain but for 1e-10, about 1e4: what is left of them decides the density.
    x, _, (weights, means, loadings, noise) = problem(rng, [1], 6, 1, 2, device=device, shift=1e4)
    noise = 1e-10 * noise
    z = torch.from_numpy(rng.normal(size=(30, 2))).to(device)
    x = means[0, 0] + z @ loadings[0, 0].mT + torch.from_numpy(rng.normal(size=(30, 6))).to(device) * noise[0, 0].sqrt()
    log_prob = kernels.factor_mixture_log_prob(x, weights, means, loadings, noise, backend=backend)[:, 0]
    a, b, offset = loadings[0, 0].double(), noise[0, 0].double(), x - means[0, 0]
    # Minus twice the joint log-density of point and factors is least, and the form, at the expected factors.
    stacked = torch.cat([a / b.sqrt()[:, None], torch.eye(2, dtype=a.dtype, device=device)])
    target = torch.cat([(offset / b.sqrt()).mT, torch.zeros(2, 30, dtype=a.dtype, device=device)])
    form = (target - stacked @ torch.linalg.lstsq(stacked.cpu(), target.cpu()).solution.to(device)).square().sum(0)
    log_det = b.log().sum() + torch.linalg.slogdet(stacked.mT @ stacked).logabsdet
    expected = -0.5 * (6 * np.log(2 * np.pi) + log_det + form)
    np.testing.assert_allclose(log_prob.cpu(), expected.cpu(), rtol=1e-7)


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(("sizes", "d", "k", "q"), [([3, 0, 50], 7, 3, 2), ([2500, 1], 20, 2, 5), ([70], 600, 1, 1)])
def test_sums_are_those_of_the_reference(rng, backend, device, sizes, d, k, q, given):
    x, offsets, parameters = problem(rng, sizes, d, k, q, device=device)
    options = {"sample_weight": torch.from_numpy(rng.integers(0, 3, len(x))).to(device)} if given else {}
    if given:
        options["resp"] = torch.from_numpy(rng.dirichlet(np.ones(k), len(x)) * rng.integers(0, 2, (len(x), 1))).to(
            device
        )
    sums = kernels.factor_statistics(x, offsets, *parameters, backend=backend, **options)
    expected = kernels.factor_statistics(x, offsets, *parameters, backend="reference", **options)
    for name, value, other in zip(sums._fields, sums, expected, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(value, other, rtol=0, atol=1e-11 * scale, msg=name)
    new = kernels.factor_update(sums, *parameters[1:], min_noise_variance=0.01, backend=backend)
    other = kernels.factor_update(expected, *parameters[1:], min_noise_variance=0.01, backend="reference")
    torch.testing.assert_close(new.means, other.means, rtol=0, atol=1e-11)
    # Loadings of fewer points than factors are rounding.
    many = offsets.diff() >= 50
    products = [parameters.loadings[many] @ parameters.loadings[many].mT for parameters in (new, other)]
    torch.testing.assert_close(*products, rtol=0, atol=1e-8)
    torch.testing.assert_close(new.noise_variances[many], other.noise_variances[many], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
@pytest.mark.parametrize("elements", [1, 3000, 1 << 18])
@pytest.mark.parametrize(("d", "k", "q"), [(7, 3, 2), (33, 1, 5)])
def test_a_model_is_the_same_to_the_bit_beside_others(rng, monkeypatch, backend, device, elements, d, k, q):
    for name in ("_ELEMENTS_CPU", "_ELEMENTS_CUDA"):
        monkeypatch.setattr(f"fastdens.kernels.factor_batches.{name}", elements)
    sizes = [40, 0, 1, 150, 3, 70, 32]
    x, offsets, parameters = problem(rng, sizes, d, k, q, device=device)
    # One model has failed, and another a point that is not a number.
    parameters[2][4] = torch.nan
    x[offsets[5] + 1] = torch.nan

    def results(x, offsets, parameters):
        log_prob = kernels.factor_mixture_log_prob(x, *parameters, backend=backend)
        resp = kernels.factor_responsibilities(x, offsets, *parameters, backend=backend)
        sums = kernels.factor_statistics(x, offsets, *parameters, backend=backend)
        new = kernels.factor_update(sums, *parameters[1:], min_noise_variance=0.01, backend=backend)
        return log_prob, resp, (*sums, *new, kernels.canonical_loadings(*parameters[2:], backend=backend))

    log_prob, by_row, by_model = results(x, offsets, parameters)
    for m, size in enumerate(sizes):
        rows = slice(*offsets[m : m + 2].tolist())
        alone = torch.tensor([0, size], device=device)
        own_log_prob, own_by_row, own_by_model = results(x[rows], alone, [value[m : m + 1] for value in parameters])
        same = {"rtol": 0, "atol": 0, "equal_nan": True}
        torch.testing.assert_close(own_log_prob[:, 0], log_prob[rows, m], **same)
        torch.testing.assert_close(own_by_row, type(by_row)(*(value[rows] for value in by_row)), **same)
        torch.testing.assert_close(own_by_model, tuple(value[m : m + 1] for value in by_model), **same)
        if m not in (4, 5):
            assert all(bool(value.isfinite().all()) for value in own_by_model)


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, REFERENCE])
@pytest.mark.parametrize("start", ["near", "far", "faint"])
def test_a_step_never_lowers_the_likelihood(rng, backend, device, start):
    x, offsets, (weights, means, loadings, noise) = problem(rng, [60, 9], 12, 2, 4, device=device)
    x += torch.from_numpy(rng.normal(size=(len(x), 3)) @ rng.normal(size=(3, 12)) * 2)
    loadings, noise = loadings * {"near": 1.0, "far": 30.0, "faint": 1e-6}[start], noise * 3
    before = -torch.inf
    for _ in range(25):
        sums = kernels.factor_statistics(x, offsets, weights, means, loadings, noise, backend=backend)
        assert bool((sums.log_likelihood >= before - 1e-9 * sums.log_likelihood.abs()).all())
        before = sums.log_likelihood
        weights = sums.nk / sums.nk.sum(1, keepdim=True)
        means, loadings, noise = kernels.factor_update(
            sums, means, loadings, noise, min_noise_variance=1e-3, backend=backend
        )
        assert float(noise.min()) >= 1e-3


@pytest.mark.parametrize("backend", ["cpu", "triton", "reference"])
def test_canonical_loadings_are_the_same_factors_in_one_order(rng, backend):
    _, _, (_, _, loadings, noise) = problem(rng, [1, 1], 9, 2, 4)
    canonical = kernels.canonical_loadings(loadings, noise, backend=backend)
    torch.testing.assert_close(canonical @ canonical.mT, loadings @ loadings.mT)
    inner = canonical.mT @ (canonical / noise[..., None])
    strengths = inner.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(inner, torch.diag_embed(strengths))
    assert bool((strengths.diff() <= 0).all())
    rotation = torch.linalg.qr(torch.from_numpy(rng.normal(size=(4, 4)))).Q
    torch.testing.assert_close(kernels.canonical_loadings(loadings @ rotation, noise, backend=backend), canonical)


@BACKENDS
@pytest.mark.parametrize("kind", ["graded", "repeated", "absent"])
def test_loadings_of_any_rank_and_size_have_one_density(rng, backend, device, kind):
    x, _, (weights, means, loadings, noise) = problem(rng, [20], 9, 2, 4, device=device)
    if kind == "graded":
        loadings = loadings * torch.tensor([1e-6, 100.0, 1.0, 1e-3], dtype=x.dtype, device=device)
    else:
        loadings[..., 1] = loadings[..., 2] if kind == "repeated" else 0.0
    log_prob = kernels.factor_mixture_log_prob(x, weights, means, loadings, noise, backend=backend)[:, 0]
    joint = dense_log_joint(x.cpu().numpy(), *(value[0] for value in (weights, means, loadings, noise)))
    np.testing.assert_allclose(log_prob.cpu(), np.logaddexp.reduce(joint, 1), rtol=1e-9)


def test_wrong_shapes_are_named(rng):
    x, offsets, (weights, means, loadings, noise) = problem(rng, [4], 5, 2, 2)
    with pytest.raises(ValueError, match=r"noise_variances have shape \(1, 5\)"):
        kernels.factor_mixture_log_prob(x, weights, means, loadings, noise[:, 0])
    with pytest.raises(ValueError, match=r"must be \[N, D\], \[M, K, D\] and \[M, K, D, Q\]"):
        kernels.factor_responsibilities(x, offsets, weights, means, loadings[..., 0], noise)
    with pytest.raises(TypeError, match=r"loadings is torch\.float32"):
        kernels.factor_mixture_log_prob(x, weights, means, loadings.float(), noise)
    sums = kernels.factor_statistics(x, offsets, weights, means, loadings, noise)
    for others in (loadings[..., :1], loadings[:, :1], loadings[..., :4, :]):
        with pytest.raises(ValueError, match=r"sums\.directions is \(1, 2, 2, 5\), but loadings"):
            kernels.factor_update(sums, means, others, noise, min_noise_variance=1e-6)
