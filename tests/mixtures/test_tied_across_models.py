"""One covariance for all models, against scikit-learn's discriminant analysis and EM in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.covariance import OAS, LedoitWolf, ShrunkCovariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import fastdens as fd


def tied(k=1, **options):
    return fd.GaussianMixtures(k, covariance_type="tied_across_models", **options)


def classes(rng, d=5, sizes=(60, 7, 1, 130), spread=3.0):
    """Classes of unequal size, one of a single point; rows shuffled."""
    y = np.repeat(np.arange(len(sizes)), sizes)
    root = np.linalg.qr(rng.normal(size=(d, d))).Q * rng.uniform(0.5, 3, d)
    x = rng.normal(size=(len(y), d)) @ root + spread * rng.normal(size=(len(sizes), d))[y]
    order = rng.permutation(len(y))
    return x[order], y[order]


def centred(x, y):
    return x - np.stack([x[y == c].mean(0) for c in range(y.max() + 1)])[y]


def em_in_numpy(x, y, weights, means, precisions, n_iter):
    """EM of mixtures that share a covariance, written out."""
    (n_models, k, d), covariance = means.shape, np.linalg.inv(precisions)
    means, weights = means.copy(), weights.copy()
    for _ in range(n_iter):
        scatter, total = np.zeros((d, d)), 0.0
        for m in range(n_models):
            own = x[y == m]
            joint = np.stack([multivariate_normal(means[m, j], covariance).logpdf(own) for j in range(k)], -1)
            joint = joint.reshape(len(own), k) + np.log(weights[m])
            norm = logsumexp(joint, 1)
            resp, total = np.exp(joint - norm[:, None]), total + norm.sum()
            weights[m], means[m] = resp.mean(0), resp.T @ own / resp.sum(0)[:, None]
            for j in range(k):
                scatter += (resp[:, j, None] * (own - means[m, j])).T @ (own - means[m, j])
        covariance = scatter / len(x)
    return weights, means, covariance, total / len(x)


@pytest.mark.parametrize("d", [1, 5, 17])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_one_component_is_linear_discriminant_analysis(rng, d, backend):
    x, y = classes(rng, d)
    batch, new = fd.RaggedBatch.from_labels(x, y), 4 * rng.normal(size=(50, d))
    gm = tied(reg_covar=0, backend=backend).fit(batch)
    peer = LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True, priors=[0.25] * 4).fit(x, y)
    covariance = centred(x, y).T @ centred(x, y) / len(x)
    np.testing.assert_allclose(gm.covariances_, covariance, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gm.means_[:, 0], peer.means_, rtol=1e-10, atol=1e-10)
    normals = [multivariate_normal(mean, covariance) for mean in peer.means_]
    np.testing.assert_allclose(gm.log_prob(new), np.stack([p.logpdf(new) for p in normals], 1), rtol=1e-8)
    x, y = classes(rng, d, (40, 40, 40), spread=1.0)
    gm = tied(reg_covar=0, backend=backend).fit(fd.RaggedBatch.from_labels(x, y))
    peer = LinearDiscriminantAnalysis(store_covariance=True).fit(x, y)
    np.testing.assert_allclose(gm.covariances_, peer.covariance_, rtol=1e-10, atol=1e-10)
    assert gm.log_prob(new).argmax(1).tolist() == peer.predict(new).tolist()


@pytest.mark.parametrize(("method", "peer"), [("ledoit_wolf", LedoitWolf), ("oas", OAS), (0.3, ShrunkCovariance)])
@pytest.mark.parametrize("d", [1, 4, 70])
def test_shrunk_covariance_is_that_of_the_centred_points(rng, d, method, peer):
    x, y = classes(rng, d, (20, 30, 3))
    gm = tied(shrinkage=method, reg_covar=0).fit(fd.RaggedBatch.from_labels(x, y))
    options = {"shrinkage": method} if method == 0.3 else {}
    expected = peer(assume_centered=True, **options).fit(centred(x, y))
    np.testing.assert_allclose(gm.covariances_, expected.covariance_, rtol=1e-10, atol=1e-10)
    if d > 1:
        assert float(gm.shrinkage_) == pytest.approx(expected.shrinkage if method == 0.3 else expected.shrinkage_)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_several_components_agree_with_em_in_numpy(rng, dtype):
    (x, y), k = classes(rng, 5, (60, 9, 130)), 3
    start = {
        "weights_init": rng.dirichlet(np.full(k, 5.0), size=3),
        "means_init": np.stack([x[y == m][:k] for m in range(3)]),
        "precisions_init": np.eye(5) / 9,
    }
    batch = fd.RaggedBatch.from_labels(x, y)
    gm = tied(k, reg_covar=0, max_iter=7, tol=0, dtype=dtype, **start).fit(batch)
    weights, means, covariance, bound = em_in_numpy(x, y, *start.values(), 7)
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-3}
    np.testing.assert_allclose(gm.weights_, weights, **tolerance)
    np.testing.assert_allclose(gm.means_, means, **tolerance)
    np.testing.assert_allclose(gm.covariances_, covariance, **tolerance)
    np.testing.assert_allclose(gm.lower_bound_, [bound] * 3, rtol=tolerance["rtol"])
    density = [
        logsumexp([np.log(w) + multivariate_normal(mu, covariance).logpdf(x) for w, mu in zip(*of, strict=True)], 0)
        for of in zip(weights, means, strict=True)
    ]
    np.testing.assert_allclose(gm.log_prob(x), np.stack(density, 1), rtol=max(1e-7, tolerance["rtol"]))
    np.testing.assert_allclose(gm.score_samples(batch), np.stack(density, 1)[np.arange(len(x)), y], rtol=1e-3)


def test_one_model_is_tied(rng):
    batch = fd.RaggedBatch.from_list([rng.normal(size=(80, 3)) + 4 * rng.integers(0, 2, (80, 1))])
    start = {"means_init": batch.points[None, :2], "weights_init": [[0.5, 0.5]], "max_iter": 20, "tol": 0}
    together = tied(2, precisions_init=np.eye(3), **start).fit(batch)
    alone = fd.GaussianMixtures(2, covariance_type="tied", precisions_init=np.eye(3)[None], **start).fit(batch)
    np.testing.assert_allclose(together.covariances_, alone.covariances_[0], rtol=1e-9)
    np.testing.assert_allclose(together.predict_proba(batch), alone.predict_proba(batch), atol=1e-9)
    np.testing.assert_allclose(together.bic(batch), alone.bic(batch), rtol=1e-9)


@pytest.mark.parametrize("init_params", ["kmeans++", "kmeans", "random", "random_from_data"])
def test_the_bound_rises_to_where_it_settles(rng, init_params):
    x, y = classes(rng, 3, (90, 50))
    batch = fd.RaggedBatch.from_labels(x, y)
    bounds = [tied(3, max_iter=i, tol=0, init_params=init_params).fit(batch).lower_bound_[0] for i in range(1, 12)]
    assert (np.diff(bounds) > -1e-9).all()
    gm = tied(3, n_init=3, max_iter=500, init_params=init_params).fit(batch)
    assert gm.converged_.all() and len(gm.n_iter_.unique()) == 1
    joint = (gm.score(batch) * batch.sizes).sum() / len(x)
    assert abs(float(joint - gm.lower_bound_[0])) < 1e-2
    shrunk = tied(3, max_iter=500, shrinkage="ledoit_wolf").fit(batch)
    assert shrunk.converged_.all() and 0 < float(shrunk.shrinkage_) <= 1


def test_groups_of_models_and_files_give_the_same_fit(rng, tmp_path, monkeypatch):
    x, y = classes(rng, 4, (40, 25, 80, 3))
    for name, value in (("x", x), ("y", y)):
        np.save(tmp_path / f"{name}.npy", value)
    for k, options in ((1, {}), (2, {"max_iter": 4, "tol": 0, "shrinkage": "oas"})):
        whole = tied(k, **options).fit(fd.RaggedBatch.from_labels(x, y))
        with monkeypatch.context() as patch:
            patch.setattr("fastdens.mixtures.tied_across_models._MOST_ELEMENTS_ON_CPU", 1)
            patch.setattr("fastdens.kernels.shared_factor._MOST_ELEMENTS", 1)
            in_groups = tied(k, **options).fit(fd.RaggedBatch.from_labels(x, y))
            scores = in_groups.score_samples(fd.RaggedBatch.from_labels(x, y))
        on_disk = fd.RaggedBatch.from_files(tmp_path / "x.npy", tmp_path / "y.npy", max_memory="64GiB")
        from_files = tied(k, **options).fit(on_disk)
        limited = tied(k, **options).fit(fd.RaggedBatch.from_labels(x, y), max_memory="64GiB")
        for other in (in_groups, from_files, limited):
            np.testing.assert_allclose(other.covariances_, whole.covariances_, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(other.means_, whole.means_, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(scores, whole.score_samples(on_disk), rtol=1e-10)
    with pytest.raises(ValueError, match="max_memory is"):
        tied().fit(fd.RaggedBatch.from_labels(x, y), max_memory="1MiB")


def test_a_failing_model_is_left_out(rng):
    x, y = classes(rng, 4, (40, 25, 80, 3))
    good = y != 1
    x[np.flatnonzero(~good)[0], 0] = np.nan
    gm = tied(2, on_error="skip", max_iter=5, tol=0).fit(fd.RaggedBatch.from_labels(x, y, n_classes=6))
    alone = tied(2, max_iter=5, tol=0).fit(fd.RaggedBatch.from_labels(x[good], y[good]))
    assert sorted(gm.failures_) == [1, 4, 5]
    assert torch.equal(gm.covariances_, alone.covariances_)
    assert torch.equal(gm.means_[[0, 2, 3]], alone.means_)
    assert gm.log_prob(np.zeros((2, 4))).isnan().any(0).tolist() == [False, True, False, False, True, True]
    points, components = gm.sample(3)
    assert points[1].isnan().all() and (components[1] == -1).all() and points[0].isfinite().all()
    with pytest.raises(fd.ModelError, match="class 1"):
        tied().fit(fd.RaggedBatch.from_labels(x, y))
    # Ten points in twelve dimensions have a singular covariance, which all models share.
    singular = fd.RaggedBatch.from_list([rng.normal(size=(5, 12)), rng.normal(size=(5, 12))])
    with pytest.raises(fd.ModelError, match="choose a shrinkage"):
        tied(reg_covar=0).fit(singular)
    failed = tied(reg_covar=0, on_error="skip").fit(singular)
    assert failed.failed_.all() and failed.covariances_.isnan().all()
    assert failed.score_samples(singular).isnan().all()
    assert tied(reg_covar=0, shrinkage="oas").fit(singular).score_samples(singular).isfinite().all()


def test_weights_count_as_repeated_rows(rng):
    x, y = classes(rng, 3, (30, 40))
    weights = rng.integers(0, 4, len(x))
    for k, options in ((1, {"shrinkage": "ledoit_wolf"}), (2, {"max_iter": 3, "tol": 0, "shrinkage": "oas"})):
        start = {} if k == 1 else {"means_init": np.stack([x[y == m][:k] for m in range(2)])}
        weighted = tied(k, **options, **start).fit(fd.RaggedBatch.from_labels(x, y).weighted(weights))
        repeated = tied(k, **options, **start).fit(
            fd.RaggedBatch.from_labels(np.repeat(x, weights, 0), np.repeat(y, weights))
        )
        np.testing.assert_allclose(weighted.covariances_, repeated.covariances_, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(weighted.lower_bound_, repeated.lower_bound_, rtol=1e-10)


def test_the_unit_of_weights_does_not_matter(rng):
    (x, y), weights = classes(rng, 3, (30, 40)), rng.uniform(0.5, 2, 70)
    batch = fd.RaggedBatch.from_labels(x.astype(np.float32), y)
    fits = [tied(2, max_iter=4, tol=0).fit(batch, sample_weight=weights * 2.0**e) for e in (0, -40, 40)]
    for other in fits[1:]:
        np.testing.assert_allclose(other.covariances_, fits[0].covariances_, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(other.means_, fits[0].means_, rtol=1e-4, atol=1e-4)
    # One class weighs next to nothing, yet has its own mean, and the covariance is that of the other.
    light = tied().fit(batch, sample_weight=np.where(y == 0, 1e-12, 1.0))
    np.testing.assert_allclose(light.means_[0, 0], x[y == 0].mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(light.covariances_, np.cov(x[y == 1].T, bias=True), rtol=1e-4, atol=1e-4)


def test_float32_far_from_the_origin(rng):
    x, y = classes(rng, 8, (60, 90))
    x = np.round(x * 256) / 256
    new = (x[:20] + 1e4).astype(np.float32)
    far = tied(2, max_iter=8, tol=0).fit(fd.RaggedBatch.from_labels((x + 1e4).astype(np.float32), y))
    near = tied(2, max_iter=8, tol=0).fit(fd.RaggedBatch.from_labels(x, y))
    np.testing.assert_allclose(far.covariances_, near.covariances_, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(far.log_prob(new), near.log_prob(x[:20]), rtol=5e-3)


def test_density_is_differentiable_saved_sampled_and_a_module(rng, tmp_path):
    x, y = classes(rng, 3, (60, 90))
    batch = fd.RaggedBatch.from_labels(x, y)
    gm = tied(2, max_iter=5, tol=0).fit(batch)
    points = torch.from_numpy(x[:4]).requires_grad_()
    assert torch.autograd.gradcheck(gm.log_prob, points)
    gm.save(tmp_path / "fit.safetensors")
    loaded = fd.load(tmp_path / "fit.safetensors")
    assert torch.equal(loaded.log_prob(x), gm.log_prob(x)) and torch.equal(loaded.covariances_, gm.covariances_)
    density = gm.density()
    assert density.precisions_cholesky.shape == (3, 3)
    np.testing.assert_allclose(density.select(1, 2).log_prob(x)[:, 0], density.log_prob(x)[:, 1], atol=1e-12)
    assert density.float()(torch.from_numpy(x).float()).dtype == torch.float32
    one = tied().fit(batch)
    drawn, _ = one.sample(4000, torch.Generator().manual_seed(0))
    for m in range(2):
        np.testing.assert_allclose(
            np.cov(drawn[m].numpy().T), one.covariances_, atol=0.2 * one.covariances_.abs().max()
        )


def test_every_model_has_its_part_of_the_shared_parameters(rng):
    x, y = classes(rng, 4, (60, 90, 30))
    batch = fd.RaggedBatch.from_labels(x, y)
    gm = tied(2).fit(batch)
    count = 3 * (2 * 4 + 1) + 4 * 5 / 2
    assert float((gm.aic(batch) + 2 * gm.score(batch) * batch.sizes).sum()) == pytest.approx(2 * count)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precisions_init": np.eye(3)[None]}, "precisions_init has shape"),
        ({"precisions_init": -np.eye(3)}, "^precisions_init must be finite"),
        ({"means_init": np.full((2, 1, 3), np.nan)}, "means_init of model 0"),
    ],
)
def test_invalid_starts_are_named(rng, options, message):
    with pytest.raises(ValueError, match=message):
        tied(**options).fit(fd.RaggedBatch.from_labels(*classes(rng, 3, (5, 5))))


def test_models_are_no_parts_of_a_fit(rng):
    batch = fd.RaggedBatch.from_labels(*classes(rng, 3, (5, 5)))
    shrunk = fd.GaussianMixtures(shrinkage="oas")
    for divided in (
        lambda: fd.distributed.fit(tied(), batch),
        lambda: fd.distributed.fit(tied(), batch, split="points"),
        lambda: tied().partial_fit(batch),
        lambda: tied().fit(batch).refit(batch, [0]),
    ):
        with pytest.raises(ValueError, match=r"fitted all together|no model stays as it is"):
            divided()
    for refused in (lambda: fd.distributed.fit(shrunk, batch, split="points"), lambda: shrunk.partial_fit(batch)):
        with pytest.raises(ValueError, match=r"leave (shrinkage|it) out"):
            refused()


def test_a_warm_start_goes_on(rng):
    x, y = classes(rng, 3, (60, 40))
    batch = fd.RaggedBatch.from_labels(x, y, n_classes=3)
    options = {"tol": 0, "on_error": "skip", "random_state": int(rng.integers(100))}
    whole = tied(2, max_iter=9, **options).fit(batch)
    parts = tied(2, max_iter=4, warm_start=True, **options).fit(batch)
    parts.max_iter = 5
    np.testing.assert_allclose(parts.fit(batch).covariances_, whole.covariances_, rtol=1e-9, atol=1e-9)
    # A model that had no points starts beside those that go on.
    y[:10] = 2
    grown = fd.RaggedBatch.from_labels(x, y, n_classes=3)
    assert not parts.fit(grown).failed_.any() and parts.score_samples(grown).isfinite().all()
