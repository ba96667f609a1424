"""Densities of kept draws, one at a time, and averages of their logs: the published definitions by scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

import fastdens as fd
from fastdens.analysis import kl_matrix, mean_over_draws, relative_entropy
from tests.mixtures.problems import QUICK, clusters, quiet_fit, ragged, scipy_log_density

KAPPA0, K0 = 0.01, 4
SIZES = (26, 3, 1, 17)


@pytest.fixture
def fit(rng):
    """Models of many points, in shuffled rows, and two that fail: one has NaN, and one point does not vary."""
    parts = [clusters(rng, n, 2) for n in SIZES]
    parts[1][0] = torch.nan
    order = torch.from_numpy(rng.permutation(sum(SIZES)))
    y = torch.repeat_interleave(torch.arange(4), torch.tensor(SIZES))[order]
    batch = fd.RaggedBatch.from_labels(torch.cat(parts)[order], y)
    dp = fd.DirichletProcessMixtures(n_chains=2, init_components=K0, kappa0=KAPPA0, on_error="skip", **QUICK)
    return quiet_fit(dp, batch), batch, y.numpy()


def draws_of(dp, model, rows):
    """Labels and alpha of a model's points in each draw, chain after chain."""
    labels = dp.sampled_labels_[..., torch.from_numpy(rows)].transpose(0, 1).flatten(0, 1).numpy()
    return list(zip(labels, dp.alpha_[model].flatten().tolist(), strict=True))


@pytest.mark.parametrize("weighting", ["exact", "published"])
def test_each_draw_is_a_density_of_its_own(rng, fit, weighting):
    dp, batch, y = fit
    x = rng.normal(size=(7, 2)) * 4
    densities = list(dp.draw_densities(weighting))
    assert len(densities) == dp.alpha_[0].numel() == 8
    expected = np.full((8, 7, 4), np.nan)
    for m in (0, 3):
        train = batch.points[batch.offsets[m] : batch.offsets[m + 1]].numpy()
        rows = batch.index[batch.offsets[m] : batch.offsets[m + 1]].numpy()
        for at, (labels, alpha) in enumerate(draws_of(dp, m, rows)):
            expected[at, :, m] = scipy_log_density(x, train, [labels], [alpha], KAPPA0, 4, K0, weighting)
    assert dp.failed_.tolist() == [False, True, True, False]
    found = np.stack([density.log_prob(torch.from_numpy(x)) for density in densities])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(dp.log_prob(x, weighting, "log_density"), expected.mean(0), rtol=1e-9)
    np.testing.assert_allclose(dp.log_prob(x, weighting), np.log(np.exp(expected).mean(0)), rtol=1e-9)
    for average in ("density", "log_density"):
        own = dp.score_samples(batch, weighting, average).numpy()
        by_class = dp.log_prob(batch.points[batch.index.argsort()], weighting, average).numpy()
        np.testing.assert_allclose(own, by_class[np.arange(len(y)), y], rtol=1e-12)


def student(points, at, m0, s0):
    """Predictive density of a cluster's posterior, by its formula."""
    n, d = len(points), len(at)
    kappa, df = KAPPA0 + n, n + 3
    location = (KAPPA0 * m0 + points.sum(0)) / kappa
    scatter = s0 + KAPPA0 * np.outer(m0, m0) + points.T @ points - kappa * np.outer(location, location)
    assert df == d + 2 + n - d + 1
    return scipy.stats.multivariate_t(location, scatter * (kappa + 1) / (kappa * df), df).pdf(at)


@pytest.mark.parametrize("average", ["density", "log_density"])
@pytest.mark.parametrize("weighting", ["exact", "published"])
def test_a_point_is_left_out_of_its_own_cluster(fit, weighting, average):
    dp, batch, y = fit
    x = batch.points[batch.index.argsort()].numpy()
    got = dp.leave_one_out(weighting, average).numpy()
    assert np.isnan(got[(y == 1) | (y == 2)]).all()
    for i in np.flatnonzero((y == 0) | (y == 3)):
        own = np.flatnonzero(y == y[i])
        m0, s0 = x[own].mean(0), np.diag(x[own].var(0) / K0 ** (2 / 2))
        others = own != i
        values = []
        for labels, alpha in draws_of(dp, y[i], own):
            z, points = labels[others], x[own[others]]
            names, sizes = np.unique(z, return_counts=True)
            weights = sizes if weighting == "exact" else alpha + sizes
            parts = [w * student(points[z == k], x[i], m0, s0) for k, w in zip(names, weights, strict=True)]
            total = weights.sum()
            if weighting == "exact":
                parts.append(alpha * student(points[:0], x[i], m0, s0))
                total = total + alpha
            values.append(sum(parts) / total)
        expected = np.log(np.mean(values)) if average == "density" else np.mean(np.log(values))
        assert got[i] == pytest.approx(expected, rel=1e-8)


def test_divergences_of_draws_are_averages_within_their_error(rng, seed):
    """In one dimension, where integrals over each draw are sums over a grid."""
    batch = ragged(rng, (30, 21), 1)
    dp = quiet_fit(fd.DirichletProcessMixtures(n_chains=2, **QUICK), batch)
    grid = np.tan(np.linspace(-np.pi / 2, np.pi / 2, 40_001)[1:-1])
    step = np.gradient(grid)
    kl, relative = [], []
    for density in dp.draw_densities("published"):
        log_p = density.log_prob(torch.from_numpy(grid[:, None])).numpy()
        weight = np.exp(log_p) * step[:, None]
        kl.append([[(weight[:, i] * (log_p[:, i] - log_p[:, j])).sum() for j in (0, 1)] for i in (0, 1)])
        normal = [scipy.stats.norm(own.mean(), own.std()) for own in np.split(batch.points.numpy(), [30])]
        relative.append([(weight[:, m] * (log_p[:, m] - normal[m].logpdf(grid))).sum() for m in (0, 1)])
    generator = torch.Generator().manual_seed(seed)
    draws = list(dp.draw_densities("published"))
    for found, expected in (
        (mean_over_draws(kl_matrix(own, 1000, generator) for own in draws), np.mean(kl, 0)),
        (mean_over_draws(relative_entropy(own, batch, 1000, generator) for own in draws), np.mean(relative, 0)),
    ):
        assert (np.abs(found.value.numpy() - expected) <= 5 * found.standard_error.numpy() + 1e-4).all()
        assert found.standard_error.max() < 0.1


def test_the_error_of_a_mean_over_draws_is_what_repetitions_spread(rng, seed):
    batch = ragged(rng, (30, 21), 2)
    draws = list(quiet_fit(fd.DirichletProcessMixtures(n_chains=2, **QUICK), batch).draw_densities())
    generator = torch.Generator().manual_seed(seed)
    found = [mean_over_draws(kl_matrix(own, 40, generator) for own in draws) for _ in range(200)]
    spread = torch.stack([own.value for own in found]).std(0)
    claimed = torch.stack([own.standard_error for own in found]).square().mean(0).sqrt()
    ratio = (spread / claimed)[~torch.eye(2, dtype=torch.bool)]
    assert ((ratio > 0.7) & (ratio < 1.4)).all()
    with pytest.raises(ValueError, match="no estimate to average"):
        mean_over_draws([])


def test_averages_that_there_are_not(rng):
    batch = ragged(rng)
    dp = quiet_fit(fd.DirichletProcessMixtures(**QUICK), batch)
    for ask in (lambda **a: dp.log_prob(batch.points, **a), lambda **a: dp.score_samples(batch, **a), dp.leave_one_out):
        with pytest.raises(ValueError, match="average is 'log', but it must be one of 'density', 'log_density'"):
            ask(average="log")
        with pytest.raises(ValueError, match=r"weighting is 'publishd'.*did you mean 'published'"):
            ask(weighting="publishd")
    with pytest.raises(fd.NotFittedError):
        fd.DirichletProcessMixtures().draw_densities()


def test_autocast_and_inference_mode_leave_no_mark_on_draws(rng):
    batch = ragged(rng).to(dtype=torch.float32)
    dp = quiet_fit(fd.DirichletProcessMixtures(**QUICK), batch)
    with torch.inference_mode(), torch.autocast("cpu"):
        disturbed = [density.log_prob(batch.points) for density in dp.draw_densities()]
    for got, density in zip(disturbed, dp.draw_densities(), strict=True):
        assert torch.equal(got, density.log_prob(batch.points))


def test_the_mean_of_logs_has_derivatives(rng):
    batch = ragged(rng)
    dp = quiet_fit(fd.DirichletProcessMixtures(**QUICK), batch)
    x = torch.from_numpy(rng.normal(size=(3, 3))).requires_grad_()
    assert torch.autograd.gradcheck(lambda own: dp.log_prob(own, average="log_density"), x)
