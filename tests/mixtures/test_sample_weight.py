"""Weights of points: integers repeat rows, zeros leave them out, others weigh the sums of EM and variational updates.

Fits start by themselves: what is compared includes the start.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans

import fastdens as fd

STARTS = ("kmeans++", "kmeans", "random", "random_from_data")
# A dimension that is no power of two, and one.
OF_GAUSSIANS = ("weights_", "means_", "covariances_", "precisions_cholesky_", "lower_bound_", "n_iter_", "converged_")
OF_PROCESSES = ("weights_", "means_", "covariances_", "lower_bound_", "alpha_", "n_iter_", "degrees_of_freedom_")

pytestmark = pytest.mark.filterwarnings("ignore::fastdens.ConvergenceWarning")


def labelled(rng, sizes=(40, 1, 70, 25), n_features=3, shift=0.0):
    """Two clusters in each class, rows in no order, some of them twice."""
    y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = rng.normal(size=(len(y), n_features)) + 4.0 * rng.integers(0, 2, (len(y), 1)) + shift
    x[::9] = x[rng.integers(len(x))]
    return x, y


def fitted(estimator, x, y, sample_weight=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(fd.RaggedBatch.from_labels(x, y), sample_weight=sample_weight, **options)


def check_alike(got, want, names, rtol=1e-10):
    for name in names:
        value, expected = getattr(got, name).double(), getattr(want, name).double()
        scale = float(expected[expected.isfinite()].abs().max())
        torch.testing.assert_close(value, expected, rtol=rtol, atol=rtol * scale, equal_nan=True, msg=name)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_integers_repeat_rows_and_zeros_leave_them_out(rng, covariance_type, start):
    x, y = labelled(rng, n_features=int(rng.integers(1, 4)), shift=10.0)
    times = rng.integers(0, 4, len(y))
    # A model of one row, which counts as several.
    times[y == 1] = 3
    options = {"covariance_type": covariance_type, "init_params": start, "max_iter": 8, "reg_covar": 1e-3}
    options |= {"random_state": int(rng.integers(100))}
    got = fitted(fd.GaussianMixtures(2, **options), x, y, times)
    want = fitted(fd.GaussianMixtures(2, **options), np.repeat(x, times, 0), np.repeat(y, times))
    check_alike(got, want, OF_GAUSSIANS)
    batch, repeated = fd.RaggedBatch.from_labels(x, y), fd.RaggedBatch.from_labels(x.repeat(times, 0), y.repeat(times))
    for ask in ("score", "bic", "aic"):
        torch.testing.assert_close(getattr(got, ask)(batch, times), getattr(want, ask)(repeated), rtol=1e-10, atol=0)
        torch.testing.assert_close(
            getattr(got, ask)(batch.weighted(times)), getattr(want, ask)(repeated), rtol=1e-10, atol=0
        )


@pytest.mark.parametrize("truncation", [3, 30])
def test_variational_fits_of_repeated_rows(rng, truncation):
    x, y = labelled(rng, sizes=(40, 2, 70, 25), shift=10.0)
    # Two equal points would have no variance.
    x[y == 1] += np.arange(2)[:, None]
    times = rng.integers(0, 4, len(y))
    times[y == 1] = 3
    options = {"truncation": truncation, "random_state": int(rng.integers(100)), "max_iter": 30}
    got = fitted(fd.VariationalDirichletProcessMixtures(**options), x, y, times)
    x_repeated, y_repeated = x.repeat(times, 0), y.repeat(times)
    want = fitted(fd.VariationalDirichletProcessMixtures(**options), x_repeated, y_repeated)
    check_alike(got, want, OF_PROCESSES)
    assert torch.equal(got.labels_[0][times > 0].repeat_interleave(torch.from_numpy(times[times > 0])), want.labels_[0])
    assert bool((got.labels_[0][times == 0] == -1).all())
    scores = (
        got.score(fd.RaggedBatch.from_labels(x, y), times),
        want.score(fd.RaggedBatch.from_labels(x_repeated, y_repeated)),
    )
    torch.testing.assert_close(*scores, rtol=1e-10, atol=0)


@pytest.mark.parametrize("estimator", [fd.GaussianMixtures(2), fd.VariationalDirichletProcessMixtures(truncation=4)])
def test_points_without_weight_may_hold_anything(rng, estimator):
    x, y = labelled(rng, sizes=(30, 40))
    weight = np.where(rng.random(len(y)) < 0.3, 0.0, rng.random(len(y)))
    names = OF_PROCESSES if hasattr(estimator, "truncation") else OF_GAUSSIANS
    kept = weight > 0
    want = fitted(estimator, x[kept], y[kept], weight[kept])
    expected = {name: getattr(want, name) for name in names}
    x[~kept] = np.nan
    got = fitted(estimator, x, y, weight)
    for name, value in expected.items():
        assert torch.equal(getattr(got, name), value), name
    assert bool(torch.isfinite(got.score(fd.RaggedBatch.from_labels(x, y), weight)).all())


def weighted_em(x, w, weights, means, covariances, n_steps, reg_covar):
    """EM with full covariances as a textbook has it, every sum times the weights of the points."""
    for _ in range(n_steps):
        log_joint = np.log(weights) + np.stack(
            [multivariate_normal(m, c).logpdf(x) for m, c in zip(means, covariances, strict=True)], 1
        )
        norm = logsumexp(log_joint, axis=1)
        r = w[:, None] * np.exp(log_joint - norm[:, None])
        weights, means = r.sum(0) / w.sum(), r.T @ x / r.sum(0)[:, None]
        centred = x[:, None] - means
        covariances = np.einsum("nk,nki,nkj->kij", r, centred, centred) / r.sum(0)[:, None, None]
        covariances += reg_covar * np.eye(x.shape[1])
    return weights, means, covariances, (w * norm).sum() / w.sum()


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_weights_in_any_unit(rng, dtype, unit):
    x, w = rng.normal(size=(200, 3)) + 4.0 * rng.integers(0, 2, (200, 1)) + 1e4, rng.gamma(0.5, size=200)
    start = np.full(2, 0.5), x[:2] - x[:2].mean(0) + 1e4, np.stack([np.eye(3)] * 2)
    weights, means, covariances, bound = weighted_em(x, w, *start, 5, 1e-3)
    gm = fd.GaussianMixtures(
        2,
        weights_init=start[0][None],
        means_init=start[1][None],
        precisions_init=start[2][None],
        max_iter=5,
        tol=0,
        reg_covar=1e-3,
    )
    fitted(gm, torch.from_numpy(x).to(dtype), np.zeros(200, int), unit * w)
    assert gm.means_.dtype == dtype
    tolerance = {torch.float32: 2e-2, torch.float64: 1e-8}[dtype]
    np.testing.assert_allclose(gm.weights_[0], weights, rtol=tolerance)
    np.testing.assert_allclose(gm.means_[0] - 1e4, means - 1e4, atol=tolerance)
    np.testing.assert_allclose(gm.covariances_[0], covariances, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(gm.lower_bound_[0], bound, rtol=tolerance)


@pytest.mark.parametrize("start", STARTS)
def test_one_component_has_the_weighted_moments(rng, start):
    x, y = labelled(rng, sizes=(30, 2, 50), n_features=2)
    w = rng.gamma(0.5, size=len(y)) + 1e-3
    gm = fitted(fd.GaussianMixtures(1, init_params=start, reg_covar=0, max_iter=2, tol=0, on_error="skip"), x, y, w)
    for m in (0, 2):
        own, weight = x[y == m], w[y == m]
        np.testing.assert_allclose(gm.means_[m, 0], np.average(own, axis=0, weights=weight), rtol=1e-10)
        np.testing.assert_allclose(gm.covariances_[m, 0], np.cov(own.T, aweights=weight, ddof=0), rtol=1e-9, atol=1e-12)


def test_the_variational_prior_weighs_points(rng):
    x, y = labelled(rng, sizes=(60,))
    w = rng.gamma(0.5, size=len(y)) + 1e-3
    prior = fitted(fd.VariationalDirichletProcessMixtures(init_components=1), x, y, w).prior_
    np.testing.assert_allclose(prior.mean[0], np.average(x, axis=0, weights=w), rtol=1e-12)
    np.testing.assert_allclose(prior.scale_diagonal[0], np.cov(x.T, aweights=w, ddof=0).diagonal(), rtol=1e-12)


@pytest.mark.parametrize("start", STARTS)
def test_weights_of_one_change_nothing_and_neighbours_neither(rng, start):
    x, y = labelled(rng)
    w = np.where(y == 0, 1.0, rng.random(len(y)))
    options = {"init_params": start, "max_iter": 5, "on_error": "skip"}
    plain = fitted(fd.GaussianMixtures(2, **options), x, y)
    ones = fitted(fd.GaussianMixtures(2, **options), x, y, np.ones(len(y)))
    check_alike(ones, plain, OF_GAUSSIANS)
    together = fitted(fd.GaussianMixtures(2, **options), x, y, w)
    for m in (0, 2, 3):
        alone = fitted(fd.GaussianMixtures(2, **options), x[y == m], y[y == m], w[y == m])
        for name in OF_GAUSSIANS:
            assert torch.equal(getattr(together, name)[[m]], getattr(alone, name)), (m, name)


def test_a_k_means_start_is_that_of_its_labels(rng):
    # Clusters so far apart that every k-means finds them.
    centres = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 90.0]])
    labels = rng.integers(0, 3, 300)
    x, w = centres[labels] + rng.normal(size=(300, 2)), rng.gamma(0.5, size=300) + 1e-3
    theirs = KMeans(3, n_init=1, random_state=0).fit(x, sample_weight=w)
    gm = fitted(fd.GaussianMixtures(3, init_params="kmeans", max_iter=0), x, np.zeros(300, int), w)
    order, expected = np.argsort(gm.means_[0, :, 0] + gm.means_[0, :, 1]), np.argsort(theirs.cluster_centers_.sum(1))
    np.testing.assert_allclose(gm.means_[0, order], theirs.cluster_centers_[expected], rtol=1e-10, atol=1e-10)
    shares = np.bincount(theirs.labels_, w)[expected] / w.sum()
    np.testing.assert_allclose(gm.weights_[0, order], shares, rtol=1e-10)
    for c, k in zip(order, expected, strict=True):
        own = theirs.labels_ == k
        want = np.cov(x[own].T, aweights=w[own], ddof=0) + 1e-6 * np.eye(2)
        np.testing.assert_allclose(gm.covariances_[0, c], want, rtol=1e-8, atol=1e-10)


def test_weighted_draws_have_the_frequencies_of_their_weights(rng):
    # Fractions, so that rows compete by their weights; models of equal points start alike, but for their seeds.
    x, w = np.arange(4.0)[:, None], np.array([0.4, 0.1, 1.2, 0.3])
    layout = fd.kernels.Layout.from_ranges(torch.tensor([[0, 4]]), 4)
    options = {"sample_weight": torch.from_numpy(w)}
    first = [int(fd.kernels.random_rows(layout, 1, seed, **options)) for seed in range(300)]
    also = [
        int(fd.kernels.kmeans_plusplus(torch.from_numpy(x), layout, 1, seed + 5000, **options)) for seed in range(300)
    ]
    for drawn in (first, also):
        np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 300, w / 2, atol=0.13)


@pytest.mark.parametrize("on_disk", [False, True], ids=["in memory", "on disk"])
@pytest.mark.parametrize("estimator", [fd.GaussianMixtures(2), fd.VariationalDirichletProcessMixtures(truncation=4)])
def test_fits_in_groups_and_saved_fits(rng, tmp_path, estimator, on_disk):
    x, y = labelled(rng, sizes=(30, 20, 40))
    w = np.where(rng.random(len(y)) < 0.2, 0.0, rng.random(len(y)))
    names = OF_PROCESSES if hasattr(estimator, "truncation") else OF_GAUSSIANS
    whole = fitted(estimator, x, y, w)
    expected, _ = whole.get_state()
    batch = fd.RaggedBatch.from_labels(x, y)
    if on_disk:
        np.save(tmp_path / "x.npy", x)
        batch = fd.RaggedBatch.from_files(tmp_path / "x.npy", y, max_memory="64GiB")
    estimator.fit(batch, sample_weight=w, max_memory="64GiB")
    got, _ = estimator.get_state()
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(got[name], value), name
    estimator.save(tmp_path / "fit.safetensors")
    again = fd.load(tmp_path / "fit.safetensors")
    for name in names:
        assert torch.equal(getattr(again, name), getattr(whole, name)), name


def test_what_cannot_be_weighted(rng):
    x, y = labelled(rng, sizes=(9, 9))
    batch = fd.RaggedBatch.from_labels(x, y)
    w = np.where(y == 1, 0.0, 1.0)
    with pytest.raises(fd.ModelError, match=r"model 1 \(class 1\) has no point of positive weight"):
        fd.GaussianMixtures(2).fit(batch, sample_weight=w)
    skipped = fd.GaussianMixtures(2, on_error="skip").fit(batch, sample_weight=w)
    assert skipped.failures_.keys() == {1} and bool(skipped.means_[1].isnan().all())
    assert skipped.score(batch.weighted(w)).isnan().tolist() == [False, True]
    with pytest.raises(ValueError, match="pass one of them"):
        fd.GaussianMixtures(2).fit(batch.weighted(w), sample_weight=w)
    for given in (batch.weighted(np.ones(18)), batch):
        weight = np.ones(18) if given is batch else None
        with pytest.raises(ValueError, match="repeat rows"):
            fd.DirichletProcessMixtures(progress=False).fit(given, sample_weight=weight)
