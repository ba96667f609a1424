"""Streams: partial_fit against closed forms, fits of the same points and batch EM; and what must not stop a stream."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import fastdens as fd
from tests.mixtures.problems import clusters, quiet_fit, ragged
from tests.problems import COVARIANCE_TYPES

KINDS = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def stream_of(rng, n, d, n_classes, dtype=torch.float64):
    """Points of unequal classes in a random order."""
    y = torch.from_numpy(rng.choice(n_classes, size=n, p=rng.dirichlet(np.full(n_classes, 2.0))))
    x = torch.from_numpy(rng.normal(size=(n, d)) * rng.uniform(0.5, 2, size=d)) + y[:, None]
    return (x + 4 * torch.from_numpy(rng.integers(0, 2, size=(n, 1)))).to(dtype), y


def cut(rng, n, most):
    """Runs of 1 to ``most`` rows."""
    at = 0
    while at < n:
        size = int(rng.integers(1, most + 1))
        yield slice(at, min(at + size, n))
        at += size


def streamed(gm, x, y, runs, n_classes, weights=None):
    for rows in runs:
        own = None if weights is None else weights[rows]
        gm.partial_fit(fd.RaggedBatch.from_labels(x[rows], y[rows], classes=range(n_classes)), own)
    return gm


def assert_same(one, other):
    """All that is saved of two estimators, to the last bit."""
    (tensors, facts), (other_tensors, other_facts) = one.get_state(), other.get_state()
    assert facts == other_facts and tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        torch.testing.assert_close(value, other_tensors[name], rtol=0, atol=0, equal_nan=True, msg=name)


@KINDS
@pytest.mark.parametrize("weighted", [False, True])
def test_one_component_has_the_moments_of_all_points(rng, covariance_type, weighted):
    d, shift = int(rng.integers(1, 7)), 1e4
    x, y = stream_of(rng, 300, d, 4)
    x += shift
    weights = torch.from_numpy(rng.uniform(0, 3, size=300) * (rng.random(300) > 0.2)) if weighted else None
    gm = fd.GaussianMixtures(1, covariance_type=covariance_type, step_power=1, reg_covar=0.25)
    streamed(gm, x, y, cut(rng, 300, 40), 4, weights)
    for m in range(4):
        own = (x[y == m] - shift).numpy()
        w = np.ones(len(own)) if weights is None else weights[y == m].numpy()
        assert float(gm.n_points_seen_[m]) == pytest.approx(w.sum(), rel=1e-12)
        if w.sum() == 0:
            continue
        mean, cov = np.average(own, axis=0, weights=w), np.atleast_2d(np.cov(own.T, aweights=w, ddof=0))
        np.testing.assert_allclose(gm.means_[m, 0] - shift, mean, atol=1e-10)
        expected = {
            "full": cov + 0.25 * np.eye(d),
            "tied": cov + 0.25 * np.eye(d),
            "diag": np.diag(cov) + 0.25,
            "spherical": np.diag(cov).mean() + 0.25,
        }[covariance_type]
        found = gm.covariances_[m] if covariance_type == "tied" else gm.covariances_[m, 0]
        np.testing.assert_allclose(found, expected, atol=1e-10)


@KINDS
def test_whole_batches_at_power_one_are_incremental_em(rng, covariance_type):
    # Written out in numpy: E step with scikit-learn's mixture, averages of raw moments.
    from sklearn.mixture import GaussianMixture

    d, k, n = 3, 2, 120
    parts = [clusters(rng, n, d).numpy() for _ in range(3)]
    gm = fd.GaussianMixtures(k, covariance_type=covariance_type, step_power=0.7, start_points=n, max_iter=2, tol=0)
    gm.fit(fd.RaggedBatch.from_list(parts[:1]))
    peer = GaussianMixture(k, covariance_type=covariance_type)
    peer.weights_, peer.means_, peer.covariances_ = (v[0].numpy() for v in (gm.weights_, gm.means_, gm.covariances_))
    peer.precisions_cholesky_ = gm.precisions_cholesky_[0].numpy()
    cov = full_covariances(peer.covariances_, covariance_type, k, d) - 1e-6 * np.eye(d)
    s0 = peer.weights_
    s1 = s0[:, None] * peer.means_
    s2 = s0[:, None, None] * (cov + peer.means_[:, :, None] * peer.means_[:, None, :])
    for i, part in enumerate(parts[1:]):
        gamma = (1 / (i + 2)) ** 0.7
        resp = peer.predict_proba(part)
        s0 = (1 - gamma) * s0 + gamma * resp.mean(0)
        s1 = (1 - gamma) * s1 + gamma * resp.T @ part / n
        s2 = (1 - gamma) * s2 + gamma * np.einsum("nk,nd,ne->kde", resp, part, part) / n
        means = s1 / s0[:, None]
        scatter = s2 - s0[:, None, None] * means[:, :, None] * means[:, None, :]
        peer.weights_, peer.means_ = s0, means
        peer.covariances_ = covariances_of(scatter, s0, covariance_type)
        from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky

        peer.precisions_cholesky_ = _compute_precision_cholesky(peer.covariances_, covariance_type)
        gm.partial_fit(fd.RaggedBatch.from_list([part]))
        np.testing.assert_allclose(gm.weights_[0], s0, rtol=1e-9)
        np.testing.assert_allclose(gm.means_[0], means, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(gm.covariances_[0], peer.covariances_, rtol=1e-8, atol=1e-10)


def full_covariances(covariances, covariance_type, k, d):
    if covariance_type == "tied":
        return np.broadcast_to(covariances, (k, d, d))
    if covariance_type == "full":
        return covariances
    return np.stack([np.diag(np.broadcast_to(c, d)) for c in covariances])


def covariances_of(scatter, s0, covariance_type):
    d = scatter.shape[-1]
    full = scatter / s0[:, None, None] + 1e-6 * np.eye(d)
    diagonal = np.diagonal(full, axis1=1, axis2=2)
    return {
        "full": full,
        "tied": scatter.sum(0) + 1e-6 * np.eye(d),
        "diag": diagonal,
        "spherical": diagonal.mean(1),
    }[covariance_type]


@KINDS
def test_a_shuffled_stream_reaches_the_held_out_density_of_batch_em(rng, covariance_type):
    n, d, k, n_classes = 8000, 3, 3, 4
    centres = torch.from_numpy(2.5 * rng.normal(size=(n_classes, k, d)))
    y = torch.from_numpy(rng.integers(0, n_classes, size=n))
    z = torch.from_numpy(rng.integers(0, k, size=n))
    x = centres[y, z] + torch.from_numpy(rng.normal(size=(n, d)))
    held_out = fd.RaggedBatch.from_labels(x[:2000], y[:2000], classes=range(n_classes))
    x, y = x[2000:], y[2000:]
    options = {"covariance_type": covariance_type, "n_init": 3, "max_iter": 300}
    batch = quiet_fit(fd.GaussianMixtures(k, **options), fd.RaggedBatch.from_labels(x, y, classes=range(n_classes)))
    gm = fd.GaussianMixtures(k, **options)
    for _ in range(3):
        order = torch.from_numpy(rng.permutation(6000))
        streamed(gm, x[order], y[order], [slice(i, i + 200) for i in range(0, 6000, 200)], n_classes)
    difference = gm.score(held_out) - batch.score(held_out)
    # A start that finds another optimum costs a tenth of a nat and more.
    assert float(difference.mean()) > -0.15 and float(difference.abs().median()) < 0.1
    assert gm.n_points_seen_.sum() == 18000 and not gm.failed_.any()


def test_models_start_when_they_have_points_enough(rng):
    k, d, n_classes = 6, 2, 5
    x, y = stream_of(rng, 400, d, n_classes)
    y[:12] = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2])
    y[12:] = torch.arange(388) % 4
    gm = fd.GaussianMixtures(k)
    with pytest.raises(fd.NotFittedError):
        gm.score_samples(fd.RaggedBatch.from_labels(x, y, classes=range(n_classes)))
    first = fd.RaggedBatch.from_labels(x[:12], y[:12], classes=range(n_classes))
    gm.partial_fit(first)
    assert gm.failed_.tolist() == [True, True, False, True, True]
    assert gm.failures_[0] == "has 1 point so far, but 6 components need at least 6: pass more of them"
    assert gm.failures_[3].startswith("has 0 points so far")
    scores = gm.score_samples(first)
    assert scores[:4].isnan().all() and scores[4:].isfinite().all()
    assert (gm.predict(first)[:4] == -1).all() and gm.bic(first)[2].isfinite()
    for i in range(12, 400, 20):
        gm.partial_fit(fd.RaggedBatch.from_labels(x[i : i + 20], y[i : i + 20], classes=range(n_classes)))
    assert gm.failed_.tolist() == [False] * 4 + [True] and gm.n_points_seen_[4] == 0
    assert gm.log_prob(x)[:, :4].isfinite().all()


@KINDS
def test_few_points_in_one_batch_are_those_of_a_fit_and_an_iteration(rng, covariance_type):
    batch = ragged(rng, (40, 9, 55))
    options = {"covariance_type": covariance_type, "tol": 0}
    gm = fd.GaussianMixtures(3, max_iter=9, **options).partial_fit(batch)
    fitted = fd.GaussianMixtures(3, max_iter=10, **options).fit(batch)
    for name in ("weights_", "means_", "covariances_", "lower_bound_"):
        torch.testing.assert_close(getattr(gm, name), getattr(fitted, name), rtol=1e-7, atol=1e-9, msg=name)


def test_a_model_does_not_depend_on_the_others_or_on_threads(rng):
    x, y = stream_of(rng, 500, 3, 4)
    runs = list(cut(rng, 500, 60))
    gm = streamed(fd.GaussianMixtures(2), x, y, runs, 4)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    alone = fd.GaussianMixtures(2)
    for rows in runs:
        alone.partial_fit(fd.RaggedBatch.from_list([x[rows][y[rows] == 2]]))
    torch.set_num_threads(n_threads)
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_", "lower_bound_", "n_points_seen_"):
        assert torch.equal(getattr(gm, name)[2], getattr(alone, name)[0]), name


@pytest.mark.parametrize("n_before", [3, 40, 300])
def test_a_saved_stream_goes_on_as_if_it_had_not_stopped(rng, tmp_path, n_before):
    x, y = stream_of(rng, 600, 2, 3, torch.float32)
    weights = torch.from_numpy(rng.uniform(0.5, 2, size=600))
    runs = list(cut(rng, 600, 25))
    first = [rows for rows in runs if rows.stop <= n_before] or runs[:1]
    gm = streamed(fd.GaussianMixtures(3), x, y, first, 3, weights)
    gm.save(tmp_path / "stream")
    loaded, copied = fd.load(tmp_path / "stream"), copy.deepcopy(gm)
    for other in (gm, loaded, copied):
        streamed(other, x, y, runs[len(first) :], 3, weights)
    assert_same(loaded, gm)
    assert_same(copied, gm)


@KINDS
def test_a_stream_goes_on_from_a_fit(rng, tmp_path, covariance_type):
    batch = ragged(rng, (400, 300))
    gm = quiet_fit(fd.GaussianMixtures(2, covariance_type=covariance_type, tol=0, step_power=1), batch)
    assert gm.n_points_seen_.tolist() == [400, 300]
    before = gm.means_.clone()
    gm.save(tmp_path / "fit")
    loaded = fd.load(tmp_path / "fit")
    few = fd.RaggedBatch.from_list([batch.points[:4], batch.points[400:400]])
    gm.partial_fit(few), loaded.partial_fit(few)
    assert_same(gm, loaded)
    assert torch.equal(gm.means_[1], before[1]) and not torch.equal(gm.means_[0], before[0])
    # Four points among 400 move a mean by their share.
    assert float((gm.means_[0] - before[0]).abs().max()) < 4 / 100 * 10
    assert gm.n_points_seen_.tolist() == [404, 300]
    again = quiet_fit(gm, batch)
    assert torch.equal(again.means_, before) and again.n_points_seen_.tolist() == [400, 300]


def test_zero_weights_are_absent_rows_and_whole_weights_repeated_ones(rng):
    x, y = stream_of(rng, 300, 2, 2)
    counts = torch.from_numpy(rng.integers(0, 4, size=300))
    options = {"step_power": 0.6, "start_points": 40, "init_params": "random_from_data"}
    start = {"means_init": torch.from_numpy(rng.normal(size=(2, 2, 2)))}
    weighted = fd.GaussianMixtures(2, **options, **start)
    repeated = fd.GaussianMixtures(2, **options, **start)
    (
        weighted.fit(fd.RaggedBatch.from_labels(x[:200], y[:200])),
        repeated.fit(fd.RaggedBatch.from_labels(x[:200], y[:200])),
    )
    for rows in cut(rng, 300, 50):
        own = counts[rows]
        streamed(weighted, x, y, [rows], 2, counts)
        if own.sum():
            again = torch.repeat_interleave(torch.arange(len(own)), own)
            streamed(repeated, x[rows][again], y[rows][again], [slice(None)], 2)
    for name in ("weights_", "means_", "covariances_", "lower_bound_", "n_points_seen_"):
        torch.testing.assert_close(getattr(weighted, name), getattr(repeated, name), rtol=1e-9, atol=1e-10, msg=name)


def test_bad_rows_are_named_and_cost_their_models_one_batch(rng):
    x, y = stream_of(rng, 200, 3, 3)
    # Class 1 is in both parts, whatever was drawn.
    y[:5] = y[150:155] = 1
    gm = streamed(fd.GaussianMixtures(2, on_error="raise"), x, y, [slice(0, 150)], 3)
    reference = copy.deepcopy(gm)
    bad = x[150:].clone()
    row = int((y[150:] == 1).nonzero()[0])
    bad[row, 2] = torch.nan
    batch = fd.RaggedBatch.from_labels(bad, y[150:], classes=range(3), layer="layer2")
    with pytest.raises(fd.ModelError, match=rf"model 1 \(class 1, layer 'layer2'\) has NaN .* row {row}"):
        gm.partial_fit(batch)
    assert_same(gm, reference)
    gm.on_error = reference.on_error = "skip"
    gm.partial_fit(batch)
    rest = y[150:] != 1
    streamed(reference, x[150:][rest], y[150:][rest], [slice(None)], 3)
    assert_same(gm, reference)
    assert gm.skipped_.keys() == {1} and not gm.failed_.any() and reference.skipped_ == {}


def test_a_model_without_covariances_is_named_and_spoils_no_other(rng):
    x = torch.from_numpy(rng.normal(size=(80, 2)))
    flat = x.clone()
    flat[:, 1] = 3.0
    parts = [fd.RaggedBatch.from_list([x[i : i + 20], flat[i : i + 20]]) for i in range(0, 80, 20)]
    gm = fd.GaussianMixtures(1, reg_covar=0, step_power=1).partial_fit(fd.RaggedBatch.from_list([x[:1], flat[:1]]))
    assert "not positive definite: pass more" in gm.failures_[0]
    with pytest.raises(fd.ModelError, match=r"model 1 .* lost a positive definite"):
        gm.partial_fit(parts[0])
    gm.on_error = "skip"
    for part in parts:
        gm.partial_fit(part)
    assert gm.failed_.tolist() == [False, True] and "positive definite" in gm.failures_[1]
    np.testing.assert_allclose(gm.means_[0, 0], torch.cat([x[:1], x]).mean(0), atol=1e-12)


def test_float32_far_from_the_origin(rng):
    # Multiples of 2^-8 survive the shift exactly.
    x = torch.from_numpy(np.round(clusters(rng, 3000, 3).numpy() * 256) / 256)
    near, far = fd.GaussianMixtures(3, tol=1e-5), fd.GaussianMixtures(3, tol=1e-5)
    for i in range(0, 3000, 60):
        near.partial_fit(fd.RaggedBatch.from_list([x[i : i + 60].float()]))
        far.partial_fit(fd.RaggedBatch.from_list([(x[i : i + 60] + 1e4).float()]))
    np.testing.assert_allclose(far.means_ - 1e4, near.means_, atol=2e-3)
    np.testing.assert_allclose(far.covariances_, near.covariances_, rtol=2e-3, atol=1e-3)
    assert far.means_.dtype == torch.float32


def test_a_batch_on_disk_is_a_batch_in_memory(rng, tmp_path):
    x, y = stream_of(rng, 300, 3, 4)
    np.save(tmp_path / "x.npy", x.numpy())
    on_disk = fd.RaggedBatch.from_files(tmp_path / "x.npy", y.numpy(), classes=range(4), max_memory="64GiB")
    whole = fd.RaggedBatch.from_labels(x, y, classes=range(4))
    assert_same(fd.GaussianMixtures(2).partial_fit(on_disk), fd.GaussianMixtures(2).partial_fit(whole))


def test_batches_of_other_models_are_refused(rng):
    x, y = stream_of(rng, 60, 3, 3)
    gm = streamed(fd.GaussianMixtures(2), x, y, [slice(None)], 3)
    for batch in (
        fd.RaggedBatch.from_labels(x, y, classes=range(4)),
        fd.RaggedBatch.from_labels(x[:, :2], y, classes=range(3)),
    ):
        with pytest.raises(ValueError, match="pass a batch of the same models"):
            gm.partial_fit(batch)
    with pytest.raises(ValueError, match=r"model 0 was fitted to class 0, but in the batch it is class 2"):
        gm.partial_fit(fd.RaggedBatch.from_labels(x, y, classes=[2, 1, 0]))
    gm.n_components = 3
    with pytest.raises(ValueError, match="n_components or covariance_type has changed"):
        gm.partial_fit(fd.RaggedBatch.from_labels(x, y, classes=range(3)))
    for name, value in (("step_power", 0.5), ("step_power", 1.1), ("start_points", 2)):
        with pytest.raises(ValueError, match=name):
            fd.GaussianMixtures(3, **{name: value}).partial_fit(fd.RaggedBatch.from_labels(x, y))


@pytest.mark.parametrize(
    "option", [{"covariance_type": "tied_across_models"}, {"shrinkage": "oas"}, {"shrinkage": 0.1}]
)
def test_covariances_that_have_no_stepwise_em_are_refused(rng, option):
    with pytest.raises(ValueError, match=r"which streams do not have|fitted all together"):
        fd.GaussianMixtures(1, **option).partial_fit(ragged(rng))
