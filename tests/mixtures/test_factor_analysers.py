"""Mixtures of factor analysers: against scikit-learn at K = 1, and what an estimator promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import FactorAnalysis

import fastdens as fd
from tests.mixtures.problems import quiet_fit


def of_factors(rng, n, d, q, scale=1.0):
    """Points of q factors, in features of unlike variances."""
    noise = rng.normal(size=(n, d)) * rng.uniform(0.3, 1.5, size=d)
    return rng.normal(size=(n, q)) @ rng.normal(size=(q, d)) * scale + noise + rng.normal(size=d)


def two_groups(rng, n, d, q):
    """Points of two factor analysers, one after the other, and the groups."""
    sizes = n // 3, n - n // 3
    return np.concatenate([of_factors(rng, size, d, q) + 4 * i for i, size in enumerate(sizes)]), np.repeat(
        [0, 1], sizes
    )


def covariances(fit):
    return fit.loadings_ @ fit.loadings_.mT + torch.diag_embed(fit.noise_variances_)


def test_one_component_is_scikit_learns_factor_analysis(rng):
    data = [of_factors(rng, n, 24, 3) for n in (400, 150, 60)]
    batch = fd.RaggedBatch.from_list(data)
    fit = fd.FactorAnalyserMixtures(n_factors=3, tol=1e-13, max_iter=20_000).fit(batch)
    scores, factors = fit.score(batch), fit.transform(batch)[:, 0]
    for m, x in enumerate(data):
        peer = FactorAnalysis(3, tol=1e-11, max_iter=20_000, svd_method="lapack").fit(x)
        np.testing.assert_allclose(scores[m], peer.score(x), rtol=1e-9)
        np.testing.assert_allclose(fit.noise_variances_[m, 0], peer.noise_variance_, rtol=1e-3)
        np.testing.assert_allclose(covariances(fit)[m, 0], peer.get_covariance(), atol=1e-3)
        own = factors[batch.model_of_row == m].numpy()
        np.testing.assert_allclose(own @ own.T, (z := peer.transform(x)) @ z.T, atol=0.02 * np.square(z).max())
        np.testing.assert_allclose(fit.lower_bound_[m], scores[m], rtol=1e-10)


def test_more_dimensions_than_points(rng):
    x = of_factors(rng, 40, 300, 2)
    batch = fd.RaggedBatch.from_list([x])
    fit = fd.FactorAnalyserMixtures(n_factors=2, tol=1e-12, max_iter=5000).fit(batch)
    peer = FactorAnalysis(2, tol=1e-10, max_iter=5000, svd_method="lapack").fit(x)
    np.testing.assert_allclose(fit.score(batch)[0], peer.score(x), rtol=1e-9)


def test_groups_are_found_and_the_bound_never_falls(rng):
    batch = fd.RaggedBatch.from_list([two_groups(rng, 240, 15, 2)[0] for _ in range(2)])
    groups = [two_groups(rng, 240, 15, 2)[1]] * 2
    bounds = [
        quiet_fit(fd.FactorAnalyserMixtures(2, 2, tol=0, max_iter=n), batch).lower_bound_ for n in (1, 2, 3, 5, 9, 20)
    ]
    assert bool((torch.stack(bounds).diff(dim=0) > -1e-10).all())
    fit = fd.FactorAnalyserMixtures(2, 2, n_init=2).fit(batch)
    for labels, own in zip(groups, fit.predict(batch).split(240), strict=True):
        assert max((own.numpy() == labels).mean(), (own.numpy() != labels).mean()) > 0.99
    torch.testing.assert_close(fit.predict_proba(batch).sum(1), torch.ones(480, dtype=torch.float64))
    torch.testing.assert_close(
        fit.weights_.sort(1).values, torch.tensor([[1 / 3, 2 / 3]] * 2).double(), rtol=0, atol=0.01
    )


def test_far_from_the_origin_in_float32(rng):
    x = np.float32(two_groups(rng, 200, 20, 3)[0])
    near, far = (
        quiet_fit(fd.FactorAnalyserMixtures(2, 3, max_iter=30), fd.RaggedBatch.from_list([np.float32(x + shift)]))
        for shift in (0, 1e4)
    )
    assert far.loadings_.dtype == torch.float32
    np.testing.assert_allclose(covariances(far), covariances(near), atol=0.02)
    np.testing.assert_allclose(far.lower_bound_, near.lower_bound_, rtol=1e-3)


def test_a_model_does_not_depend_on_the_others_nor_on_threads(rng):
    data = [two_groups(rng, n, 33, 2)[0] for n in (50, 1500, 90)]
    make = lambda: fd.FactorAnalyserMixtures(2, 3, max_iter=15, random_state=5)  # noqa: E731
    together = quiet_fit(make(), fd.RaggedBatch.from_list(data))
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        alone = [quiet_fit(make(), fd.RaggedBatch.from_list([x])) for x in data]
    finally:
        torch.set_num_threads(n_threads)
    for name in ("weights_", "means_", "loadings_", "noise_variances_", "lower_bound_", "n_iter_"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(a, name) for a in alone])), name


@pytest.mark.parametrize("k", [1, 2])
def test_weights_count_points(rng, k):
    x, _ = two_groups(rng, 120, 8, 2)
    counts = rng.integers(0, 4, len(x))
    # Of well-parted groups, the clusters of k-means are the same whatever the weights are.
    repeated, weighted = (
        quiet_fit(fd.FactorAnalyserMixtures(k, 2, max_iter=40, tol=0), fd.RaggedBatch.from_list([points]), **options)
        for points, options in ((np.repeat(x, counts, 0), {}), (x, {"sample_weight": counts}))
    )
    for fit in (repeated, weighted):
        order = fit.weights_[0].argsort()
        fit.summary = fit.weights_[:, order], fit.means_[:, order], covariances(fit)[:, order], fit.lower_bound_
    for one, other in zip(weighted.summary, repeated.summary, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)


def test_degenerate_points(rng):
    d = 6
    constant = of_factors(rng, 30, d, 1)
    constant[:, 2] = 3.0
    twice = of_factors(rng, 30, d, 1)
    twice[:, 1] = twice[:, 0]
    batch = fd.RaggedBatch.from_list([constant, np.ones((9, d)), twice, of_factors(rng, 4, d, 1)])
    fit = quiet_fit(fd.FactorAnalyserMixtures(2, 3, min_noise_variance=1e-4), batch)
    assert not bool(fit.failed_.any())
    for name in ("weights_", "means_", "loadings_", "noise_variances_", "lower_bound_"):
        assert bool(getattr(fit, name).isfinite().all()), name
    assert float(fit.noise_variances_.min()) == pytest.approx(1e-4)
    torch.testing.assert_close(fit.noise_variances_[0, :, 2], torch.full((2,), 1e-4, dtype=torch.float64))
    assert bool(fit.score_samples(batch).isfinite().all())


def test_models_that_cannot_be_fitted_are_named(rng):
    data = [of_factors(rng, n, 5, 1) for n in (30, 3, 0, 20)]
    data[3][4, 1] = np.nan
    batch = fd.RaggedBatch.from_list(data, labels=["a", "b", "c", "d"], layer="layer4")
    with pytest.raises(fd.ModelError, match=r"'b'.* has 3 points, but 3 factors need at least 4.*'c'.* has 0 points"):
        fd.FactorAnalyserMixtures(1, 3).fit(batch)
    fit = quiet_fit(fd.FactorAnalyserMixtures(1, 3, on_error="skip"), batch)
    assert fit.failed_.tolist() == [False, True, True, True] and "NaN" in fit.failures_[3]
    alone = quiet_fit(fd.FactorAnalyserMixtures(1, 3), fd.RaggedBatch.from_list(data[:1]))
    assert torch.equal(fit.loadings_[:1], alone.loadings_) and bool(fit.loadings_[1:].isnan().all())
    log_prob = fit.log_prob(torch.zeros(2, 5, dtype=torch.float64, requires_grad=True))
    assert log_prob.isnan().tolist() == [[False, True, True, True]] * 2
    (slope,) = torch.autograd.grad(log_prob[:, 0].sum(), log_prob.grad_fn.next_functions[0][0].variable)
    assert bool(slope.isfinite().all())
    with pytest.raises(ValueError, match=r"n_factors is 5, but the points have 5 dimensions"):
        fd.FactorAnalyserMixtures(1, 5).fit(batch)


def test_saved_and_loaded(rng, tmp_path):
    batch = fd.RaggedBatch.from_list([of_factors(rng, n, 5, 1) for n in (30, 2, 12)], labels=[3, 5, 9])
    fit = quiet_fit(fd.FactorAnalyserMixtures(1, 2, on_error="skip", dtype=torch.float32), batch)
    fit.save(tmp_path / "fit")
    loaded = fd.load(tmp_path / "fit")
    assert isinstance(loaded, fd.FactorAnalyserMixtures) and repr(loaded) == repr(fit)
    assert loaded.failures_ == fit.failures_ and loaded.classes_ == (3, 5, 9)
    x = torch.from_numpy(rng.normal(size=(4, 5)))
    assert torch.equal(loaded.log_prob(x).nan_to_num(), fit.log_prob(x).nan_to_num())


def test_information_criteria_and_draws(rng):
    batch = fd.RaggedBatch.from_list([two_groups(rng, 300, 4, 1)[0], of_factors(rng, 50, 4, 2)])
    fit = fd.FactorAnalyserMixtures(2, 2).fit(batch)
    # Weights, means, noise, and loadings less one rotation.
    n_parameters = 1 + 2 * (4 + 4 + (8 - 1))
    total = fit.score(batch) * batch.sizes
    torch.testing.assert_close(fit.bic(batch), -2 * total + n_parameters * batch.sizes.double().log())
    torch.testing.assert_close(fit.aic(batch), -2 * total + 2.0 * n_parameters)
    points, component = fit.sample(40_000, torch.Generator().manual_seed(1))
    for m, k in np.ndindex(2, 2):
        own = points[m, component[m] == k]
        np.testing.assert_allclose(len(own) / 40_000, fit.weights_[m, k], atol=0.015)
        np.testing.assert_allclose(own.mean(0), fit.means_[m, k], atol=0.12)
        np.testing.assert_allclose(torch.cov(own.T), covariances(fit)[m, k], atol=0.35)
    entropy = fit.density().entropy(5000, torch.Generator().manual_seed(2))
    held_out = fd.RaggedBatch.from_list(list(points[:, :5000]))
    torch.testing.assert_close(entropy.value, -fit.score(held_out), rtol=0, atol=0.15)
