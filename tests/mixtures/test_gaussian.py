"""fd.GaussianMixtures against scikit-learn, and the promises about numbers: shifts, duplicates, bad models."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning as SklearnWarning
from sklearn.mixture import GaussianMixture

import fastdens as fd

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")


def random_classes(rng, n_classes=4, d=5):
    """Classes of unequal size, each of three clusters; rows shuffled."""
    sizes = rng.integers(40, 120, size=n_classes)
    y = np.repeat(np.arange(n_classes), sizes)
    centres = 3 * rng.normal(size=(n_classes, 3, d))
    x = centres[y, rng.integers(0, 3, size=len(y))] + rng.normal(size=(len(y), d)) * rng.uniform(0.5, 2, size=d)
    order = rng.permutation(len(y))
    return x[order], y[order]


def initial_parameters(rng, x, y, k, covariance_type):
    m, d = y.max() + 1, x.shape[1]
    means = np.stack([x[y == c][:k] for c in range(m)])
    matmul_precision = 1 / x.var()
    precisions = {
        "full": np.tile(matmul_precision * np.eye(d), (m, k, 1, 1)),
        "tied": np.tile(matmul_precision * np.eye(d), (m, 1, 1)),
        "diag": np.full((m, k, d), matmul_precision),
        "spherical": np.full((m, k), matmul_precision),
    }[covariance_type]
    return {"weights_init": rng.dirichlet(np.full(k, 5.0), size=m), "means_init": means, "precisions_init": precisions}


def sklearn_fits(x, y, k, covariance_type, start, **options):
    fits = []
    for m in range(y.max() + 1):
        own = {name: value[m] for name, value in start.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SklearnWarning)
            fits.append(GaussianMixture(k, covariance_type=covariance_type, **own, **options).fit(x[y == m]))
    return fits


def fit(batch, k, **options):
    return fd.GaussianMixtures(k, **options).fit(batch)


@pytest.mark.slow
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("data", ["random", "iris", "digits"])
@pytest.mark.parametrize("backend", ["cpu", "reference", "triton"])
def test_agrees_with_sklearn_after_the_same_iterations(rng, data, covariance_type, backend):
    if data == "random":
        x, y = random_classes(rng)
    else:
        x, y = (load_iris if data == "iris" else load_digits)(return_X_y=True)
    if data == "digits" and backend == "triton":
        pytest.skip("the interpreter takes too long on 64 dimensions; the other data sets cover it")
    k, options = 3, {"tol": 0.0, "max_iter": 8, "reg_covar": 1e-3}
    start = initial_parameters(rng, x, y, k, covariance_type)
    batch = fd.RaggedBatch.from_labels(x, y)
    gm = fit(batch, k, covariance_type=covariance_type, backend=backend, **start, **options)
    peers = sklearn_fits(x, y, k, covariance_type, start, **options)
    for m, peer in enumerate(peers):
        np.testing.assert_allclose(gm.weights_[m], peer.weights_, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(gm.means_[m], peer.means_, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(gm.covariances_[m], peer.covariances_, rtol=1e-6, atol=1e-6)
        assert float(gm.lower_bound_[m]) == pytest.approx(peer.lower_bound_, rel=1e-6)
        assert int(gm.n_iter_[m]) == peer.n_iter_
    scores, proba, labels = gm.score_samples(batch), gm.predict_proba(batch), gm.predict(batch)
    bic, aic = gm.bic(batch), gm.aic(batch)
    everywhere = gm.log_prob(x[:20])
    for m, peer in enumerate(peers):
        own = torch.from_numpy(y == m)
        np.testing.assert_allclose(scores[own], peer.score_samples(x[y == m]), rtol=1e-6)
        np.testing.assert_allclose(proba[own], peer.predict_proba(x[y == m]), atol=1e-6)
        np.testing.assert_array_equal(labels[own], peer.predict(x[y == m]))
        np.testing.assert_allclose(everywhere[:, m], peer.score_samples(x[:20]), rtol=1e-6)
        assert float(bic[m]) == pytest.approx(peer.bic(x[y == m]), rel=1e-6)
        assert float(aic[m]) == pytest.approx(peer.aic(x[y == m]), rel=1e-6)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_each_model_stops_where_sklearn_stops(rng, covariance_type):
    x, y = random_classes(rng, n_classes=8)
    start = initial_parameters(rng, x, y, 2, covariance_type)
    options = {"tol": 1e-4, "max_iter": 200}
    gm = fit(fd.RaggedBatch.from_labels(x, y), 2, covariance_type=covariance_type, **start, **options)
    for m, peer in enumerate(sklearn_fits(x, y, 2, covariance_type, start, **options)):
        assert int(gm.n_iter_[m]) == peer.n_iter_
        assert bool(gm.converged_[m]) == peer.converged_
        np.testing.assert_allclose(gm.means_[m], peer.means_, rtol=1e-5, atol=1e-5)
    assert len(gm.n_iter_.unique()) > 1


@pytest.mark.parametrize("init_params", ["kmeans++", "random", "random_from_data"])
def test_starts_are_as_good_as_sklearns(rng, init_params):
    x, y = random_classes(rng, n_classes=30)
    gm = fit(fd.RaggedBatch.from_labels(x, y), 3, init_params=init_params, max_iter=300, n_init=2)
    names = {"kmeans++": "k-means++"}
    bounds = [
        GaussianMixture(3, init_params=names.get(init_params, init_params), max_iter=300, n_init=2, random_state=m)
        .fit(x[y == m])
        .lower_bound_
        for m in range(30)
    ]
    spread = np.std(gm.lower_bound_.numpy() - bounds) / np.sqrt(30)
    assert abs(gm.lower_bound_.mean().item() - np.mean(bounds)) < 4 * spread + 0.05


def test_aliases_seeds_and_n_init(rng):
    batch = fd.RaggedBatch.from_labels(*random_classes(rng))
    one, two = (fit(batch, 3, init_params=name, max_iter=20, tol=0) for name in ("kmeans++", "k-means++"))
    assert torch.equal(one.means_, two.means_)
    other = fit(batch, 3, random_state=1, max_iter=20, tol=0)
    assert not torch.equal(one.means_, other.means_)
    many = fit(batch, 3, n_init=5, max_iter=20, tol=0)
    assert (many.lower_bound_ >= one.lower_bound_).all()


def test_kmeans_plusplus_spreads_over_separated_clusters(rng):
    from fastdens.kernels import kmeans_plusplus

    label = np.arange(60) % 4
    x = torch.from_numpy(100.0 * label[:, None] + rng.normal(size=(60, 2)))
    rows = kmeans_plusplus(x, torch.tensor([0, 60]), 4, seed=int(rng.integers(1000)))
    assert sorted(label[rows[0].numpy()]) == [0, 1, 2, 3]


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_shifted_float32_data_gets_the_same_fit(rng, covariance_type):
    # Multiples of 2^-8 survive the shift in float32 exactly, so that only the arithmetic of the fit can differ.
    x, y = random_classes(rng)
    x = np.round(x * 256) / 256
    start = {"init_params": "kmeans++", "max_iter": 10, "tol": 0, "covariance_type": covariance_type}
    plain = fit(fd.RaggedBatch.from_labels(x.astype(np.float32), y), 2, **start)
    shifted = fit(fd.RaggedBatch.from_labels((x + 1e4).astype(np.float32), y), 2, **start)
    np.testing.assert_allclose(shifted.means_ - 1e4, plain.means_, atol=1e-3)
    np.testing.assert_allclose(shifted.covariances_, plain.covariances_, rtol=1e-5)
    np.testing.assert_allclose(shifted.lower_bound_, plain.lower_bound_, rtol=1e-6)


def test_duplicated_points_and_constant_feature(rng):
    x, y = random_classes(rng)
    x[:, 2] = 7.0
    x = np.concatenate([x, x])
    for dtype in (np.float32, np.float64):
        gm = fit(fd.RaggedBatch.from_labels(x.astype(dtype), np.concatenate([y, y])), 2, max_iter=30, tol=0)
        assert torch.isfinite(gm.lower_bound_).all()
        np.testing.assert_allclose(gm.covariances_[:, :, 2, 2], 1e-6, rtol=1e-2)
    same = fit(fd.RaggedBatch.from_list([np.ones((10, 3))]), 2, max_iter=5, tol=0)
    assert torch.isfinite(same.lower_bound_).all()


def test_a_component_that_loses_all_its_points_stays_finite(rng):
    x = rng.normal(size=(50, 2)).astype(np.float32)
    means = np.stack([[[0.0, 0.0], [1e6, 1e6]]])
    gm = fit(
        fd.RaggedBatch.from_list([x]),
        2,
        means_init=means,
        weights_init=[[0.5, 0.5]],
        precisions_init=np.tile(np.eye(2), (1, 2, 1, 1)),
        max_iter=5,
        tol=0,
    )
    assert torch.isfinite(gm.means_).all()
    assert float(gm.weights_[0, 1]) < 1e-6
    np.testing.assert_allclose(gm.means_[0, 0], x.mean(0), atol=1e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_model_is_named_and_its_neighbours_keep_their_bits(rng, poison):
    x, y = random_classes(rng, n_classes=200, d=3)
    x = x.astype(np.float32)
    options = {"max_iter": 15, "n_init": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fd.ConvergenceWarning)
        clean = fit(fd.RaggedBatch.from_labels(x, y), 3, **options)
        row = np.flatnonzero(y == 77)[5]
        bad = x.copy()
        bad[row, 1] = poison
        batch = fd.RaggedBatch.from_labels(bad, y, layer="layer3")
        with pytest.raises(fd.ModelError, match=rf"model 77 \(class 77, layer 'layer3'\) has NaN.*row {row}") as caught:
            fit(batch, 3, **options)
        assert list(caught.value.failures) == [77]
        skipped = fit(batch, 3, on_error="skip", **options)
        without = fit(fd.RaggedBatch.from_list([x[y == m] for m in range(200) if m != 77]), 3, **options)
    others = np.arange(200) != 77
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_", "lower_bound_", "n_iter_"):
        assert torch.equal(getattr(skipped, name)[others], getattr(clean, name)[others]), name
        assert torch.equal(getattr(without, name), getattr(clean, name)[others]), name
    assert skipped.failed_.nonzero().tolist() == [[77]]
    assert skipped.means_[77].isnan().all() and not skipped.converged_[77]
    assert "NaN" in skipped.failures_[77]
    scores = skipped.score_samples(batch)
    assert scores[torch.from_numpy(y == 77)].isnan().all() and scores[torch.from_numpy(y != 77)].isfinite().all()
    assert (skipped.predict(batch)[torch.from_numpy(y == 77)] == -1).all()
    assert skipped.log_prob(x[:3])[:, 77].isnan().all()
    assert skipped.sample(2)[0][77].isnan().all()


def test_too_few_points_and_empty_classes_are_named(rng):
    x, y = rng.normal(size=(20, 2)), np.repeat([0, 2, 3], [10, 2, 8])
    batch = fd.RaggedBatch.from_labels(x, y, n_classes=5)
    with pytest.raises(fd.ModelError, match=r"class 1\) has 0 points.*class 2\) has 2 points.*class 4\) has 0 points"):
        fit(batch, 3)
    gm = fit(batch, 3, on_error="skip", tol=0, max_iter=3)
    assert gm.failed_.tolist() == [False, True, True, False, True]
    nothing = fit(fd.RaggedBatch.from_list([x[:1]]), 3, on_error="skip")
    assert nothing.means_.isnan().all()


def test_lost_positive_definiteness_is_reported(rng):
    # A constant feature has a variance of exactly zero; one of two equal features only up to rounding.
    x = rng.normal(size=(30, 2))
    x[:, 1] = 7.0
    batch = fd.RaggedBatch.from_list([rng.normal(size=(30, 2)), x])
    with pytest.raises(fd.ModelError, match=r"model 1 \(class 1\) lost a positive definite"):
        fit(batch, 1, reg_covar=0.0, init_params="random")
    gm = fit(batch, 1, reg_covar=0.0, init_params="random", on_error="skip")
    assert gm.failed_.tolist() == [False, True] and gm.means_[0].isfinite().all()


def test_tiny_shapes(rng):
    gm = fit(fd.RaggedBatch.from_list([rng.normal(size=(1, 1))]), 1, max_iter=2, tol=0)
    assert torch.isfinite(gm.lower_bound_).all()
    start = fit(fd.RaggedBatch.from_list([rng.normal(size=(9, 2))]), 2, max_iter=0)
    assert start.n_iter_.tolist() == [0]


def test_dtypes(rng):
    x, y = random_classes(rng)
    for given, dtype, expected in [
        (x.astype(np.float32), None, torch.float32),
        (x, None, torch.float64),
        (x, torch.float32, torch.float32),
        (x.astype(int), None, torch.float64),
        (torch.from_numpy(x).half(), None, torch.float32),
    ]:
        gm = fit(fd.RaggedBatch.from_labels(given, y), 1, dtype=dtype)
        assert gm.means_.dtype == expected
        assert gm.log_prob(given[:2]).dtype == expected


def test_float32_agrees_with_float64(rng):
    x, y = random_classes(rng)
    x = x.astype(np.float32)
    start = initial_parameters(rng, x, y, 2, "full")
    single = fit(fd.RaggedBatch.from_labels(x, y), 2, max_iter=5, tol=0, **start)
    double = fit(fd.RaggedBatch.from_labels(x, y), 2, max_iter=5, tol=0, dtype=torch.float64, **start)
    np.testing.assert_allclose(single.means_, double.means_, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(single.lower_bound_, double.lower_bound_, rtol=1e-4)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_samples_have_the_moments_of_the_model(rng, seed, covariance_type):
    x, y = random_classes(rng, n_classes=2, d=3)
    gm = fit(fd.RaggedBatch.from_labels(x, y), 2, covariance_type=covariance_type, max_iter=20, tol=0)
    generator = torch.Generator().manual_seed(seed)
    points, component = gm.sample(200_000, generator)
    assert points.shape == (2, 200_000, 3) and component.shape == (2, 200_000)
    for m in range(2):
        for k in range(2):
            own = points[m, component[m] == k]
            assert len(own) / 200_000 == pytest.approx(float(gm.weights_[m, k]), abs=0.01)
            covariance = {
                "full": lambda m=m, k=k: gm.covariances_[m, k],
                "tied": lambda m=m: gm.covariances_[m],
                "diag": lambda m=m, k=k: gm.covariances_[m, k].diag(),
                "spherical": lambda m=m, k=k: gm.covariances_[m, k] * torch.eye(3),
            }[covariance_type]()
            scale = float(covariance.diagonal().max())
            standard_error = 6 * np.sqrt(scale / len(own))
            np.testing.assert_allclose(own.mean(0), gm.means_[m, k], atol=standard_error)
            np.testing.assert_allclose(own.T.cov(), covariance, atol=8 * scale / np.sqrt(len(own)))


def test_density(rng, seed):
    x, y = random_classes(rng, n_classes=2, d=2)
    gm = fit(fd.RaggedBatch.from_labels(x, y), 1)
    density = gm.density()
    assert density.sample(5).shape == (5, 2, 2)
    entropy = density.entropy(20_000, torch.Generator().manual_seed(seed))
    exact = 0.5 * torch.logdet(2 * np.pi * np.e * gm.covariances_[:, 0])
    assert ((entropy.value - exact).abs() < 5 * entropy.standard_error).all()
    point = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    density.log_prob(point).sum().backward()
    assert point.grad.isfinite().all()


def test_warns_of_models_that_did_not_converge(rng):
    batch = fd.RaggedBatch.from_labels(*random_classes(rng))
    with pytest.warns(fd.ConvergenceWarning, match=r"of 4 models did not converge in 2 iterations \(model"):
        fit(batch, 3, max_iter=2, tol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 0}, "n_components is 0"),
        ({"covariance_type": "ful"}, "did you mean 'full'"),
        ({"init_params": "kmean"}, "did you mean 'k"),
        ({"backend": "cuda"}, "backend is 'cuda'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"matmul_precision": "fp16"}, "matmul_precision is 'fp16'"),
        ({"tol": -1}, "tol is -1"),
        ({"max_iter": -1}, "max_iter is -1"),
        ({"dtype": torch.float16}, "dtype is torch.float16"),
        ({"means_init": np.zeros((1, 2))}, r"means_init has shape \(1, 2\)"),
        ({"weights_init": [[0.5, 0.6]]}, r"weights_init of model 0 \(class 0\) must be"),
        ({"precisions_init": -np.ones((1, 2, 2, 2))}, "positive definite"),
    ],
)
def test_parameter_errors(rng, options, message):
    batch = fd.RaggedBatch.from_list([rng.normal(size=(10, 2))])
    with pytest.raises(ValueError, match=message):
        fd.GaussianMixtures(**{"n_components": 2, **options}).fit(batch)


def test_usage_errors(rng):
    x = rng.normal(size=(10, 2))
    gm = fd.GaussianMixtures(1)
    with pytest.raises(TypeError, match="make one with"):
        gm.fit(x)
    for error in (AttributeError, fd.NotFittedError, ValueError):
        with pytest.raises(error, match=r"this GaussianMixtures is not fitted: call fit\(batch\) first"):
            gm.log_prob(x)
    gm.fit(fd.RaggedBatch.from_list([x]))
    with pytest.raises(ValueError, match="D = 2"):
        gm.log_prob(x[:, :1])
    with pytest.raises(ValueError, match="1 models with D = 2 were fitted"):
        gm.score_samples(fd.RaggedBatch.from_list([x, x]))


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_a_wild_row_does_not_spoil_the_others(rng, covariance_type):
    """Wherever it lies, a fit in float32 is that in float64."""
    x = torch.from_numpy(rng.normal(size=(60, 3)))
    models = []
    for row in (0, 17, 59):
        wild = x.clone()
        wild[row] = float(10.0 ** rng.uniform(4, 15))
        models.append(wild.float())
    batch = fd.RaggedBatch.from_list(models)
    options = {"covariance_type": covariance_type, "max_iter": 3, "tol": 0}
    seed = int(rng.integers(2**31))
    single, double = (
        fd.GaussianMixtures(2, random_state=seed, dtype=dtype, **options).fit(batch) for dtype in (None, torch.float64)
    )
    near = double.means_.abs().amax(2) < 10
    # A mean that the wild row has a part in is as large as that part, and as imprecise.
    assert torch.allclose(single.means_[near].double(), double.means_[near], atol=1e-3)
    if covariance_type in ("full", "diag"):
        assert torch.allclose(single.covariances_[near].double(), double.covariances_[near], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("max_iter", "bound"), [(1, "-inf"), (3, "-8.5")])
def test_a_start_without_a_density_has_no_bound(max_iter, bound):
    # Two points lie on a line: 1e-6 is nothing beside a variance of 1e10.
    batch = fd.RaggedBatch.from_list([np.random.default_rng(0).normal(size=(2, 2)) * 1e6])
    gm = fd.GaussianMixtures(1, init_params="random", max_iter=max_iter, tol=0).fit(batch)
    assert float(gm.lower_bound_) == pytest.approx(float(bound), abs=0.1)
    assert bool(gm.score_samples(batch).isfinite().all())
