"""Clusters of new points, and draws, of Dirichlet-process fits: written out in numpy, and planted clusters."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import adjusted_rand_score

import fastdens as fd
from fastdens.inference import predictive
from tests.mixtures.problems import QUICK, clusters, quiet_fit, ragged

KAPPA0, K0 = 0.01, 6


def brute_force(x, train, draws, estimate, n_columns):
    """Probabilities of clusters, one component of one draw after the other, by scipy's Student-t."""
    d, n = train.shape[1], len(train)
    out = np.zeros((len(x), n_columns))

    def density(rows, weight):
        m0, s0 = train.mean(0), np.diag(train.var(0) / K0 ** (2 / d))
        points = train[rows]
        kappa, df = KAPPA0 + len(points), len(points) + 3
        location = (KAPPA0 * m0 + points.sum(0)) / kappa
        mean = points.mean(0) if len(points) else m0
        scatter = (points - mean).T @ (points - mean)
        scatter += KAPPA0 * len(points) / kappa * np.outer(mean - m0, mean - m0)
        return weight * scipy.stats.multivariate_t(location, (s0 + scatter) * (kappa + 1) / (kappa * df), df).pdf(x)

    for labels, alpha in draws:
        for k in np.unique(labels):
            own = np.flatnonzero(labels == k)
            joint = density(own, len(own) / (alpha + n))
            for i in own:
                out[:, estimate[i]] += joint / len(own)
        out[:, -1] += density([], alpha / (alpha + n))
    return out / out.sum(1, keepdims=True)


@pytest.mark.parametrize("in_runs", [False, True])
def test_probabilities_are_those_of_the_enumerated_draws(rng, monkeypatch, in_runs):
    """Shuffled rows, a model that fails, one of a single point, other numbers of new points, in one run or several."""
    if in_runs:
        monkeypatch.setattr(predictive, "_MAX_ELEMENTS", 1)
    sizes = (26, 5, 2, 17)
    parts = [clusters(rng, n, 2) for n in sizes]
    parts[1][0] = torch.nan
    y = rng.permutation(np.repeat(np.arange(4), sizes))
    x = torch.empty(len(y), 2, dtype=torch.float64)
    for m, part in enumerate(parts):
        x[torch.from_numpy(y == m)] = part
    dp = fd.DirichletProcessMixtures(n_chains=2, on_error="skip", **QUICK)
    dp = quiet_fit(dp, fd.RaggedBatch.from_labels(x, y))
    y_new = rng.integers(0, 4, 60)
    new = clusters(rng, 60, 2, 5)
    for loss in ("vi", "binder"):
        found = dp.predict_proba(fd.RaggedBatch.from_labels(new, y_new, n_classes=4), loss).numpy()
        assert np.isnan(found[y_new == 1]).all()
        for m in (0, 2, 3):
            rows = torch.from_numpy(np.flatnonzero(y == m))
            labels = dp.sampled_labels_[..., rows].flatten(0, 1).numpy()
            draws = list(zip(labels, dp.alpha_[m].T.flatten().tolist(), strict=True))
            estimate = dp.partition(m, loss).labels.numpy()
            expected = brute_force(new.numpy()[y_new == m], parts[m].numpy(), draws, estimate, found.shape[1])
            np.testing.assert_allclose(found[y_new == m], expected, rtol=1e-9, atol=1e-14)
        predicted = dp.predict(fd.RaggedBatch.from_labels(new, y_new, n_classes=4), loss).numpy()
        best = np.where(np.isnan(found).any(1), -1, found.argmax(1))
        assert np.array_equal(predicted, np.where(best == found.shape[1] - 1, -1, best))


@pytest.mark.parametrize("method", ["gibbs", "vb"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_planted_clusters_of_new_points_are_found_far_from_the_origin(rng, method, dtype):
    z = [rng.integers(0, 3, 400) for _ in range(2)]
    x = [torch.from_numpy(1e4 + 12.0 * own[:, None] + rng.normal(size=(400, 3))).to(dtype) for own in z]
    fitted = fd.RaggedBatch.from_list([own[:150] for own in x])
    options = {"n_sweeps": 30, "burn_in": 20, "progress": False} if method == "gibbs" else {"truncation": 6}
    dp = quiet_fit(fd.DirichletProcessMixtures(method, **options), fitted)
    new = fd.RaggedBatch.from_list([own[150:] for own in x])
    probabilities = dp.predict_proba(new)
    assert probabilities.dtype == dtype
    torch.testing.assert_close(probabilities.sum(1), torch.ones(500, dtype=dtype))
    for m, own in enumerate(dp.predict(new).split(250)):
        assert adjusted_rand_score(z[m][150:], own) > 0.97
    of_fit = dp.predict(fitted)
    if method == "gibbs":
        estimates = torch.cat([dp.partition(m).labels for m in range(2)])
        assert (of_fit == estimates).double().mean() > 0.99
    else:
        assert (of_fit == dp.labels_[0]).double().mean() > 0.99
    # Nothing there: the tails of clusters are heavy, but that of the prior is heavier.
    far = torch.full((1, 3), 1e4 + 400.0, dtype=dtype)
    assert (dp.predict(fd.RaggedBatch.from_list([far, -far])) == -1).all()


def test_clusters_do_not_depend_on_the_other_models(rng):
    batch = ragged(rng)
    dp = quiet_fit(fd.DirichletProcessMixtures(**QUICK), batch)
    own = fd.RaggedBatch.from_list([batch.part(1, 2).points], labels=[1])
    alone = quiet_fit(fd.DirichletProcessMixtures(**QUICK), own)
    found = dp.predict_proba(batch)[batch.index][slice(*batch.ranges[1].tolist())]
    expected = alone.predict_proba(own)
    width = expected.shape[1] - 1
    assert torch.equal(found[:, :width], expected[:, :width]) and torch.equal(found[:, -1], expected[:, -1])
    assert not found[:, width:-1].any()
    with pytest.raises(ValueError, match="did you mean 'binder'"):
        dp.predict(batch, "bindr")
    with pytest.raises(fd.NotFittedError):
        fd.DirichletProcessMixtures().predict(batch)


def test_a_batch_on_disk_has_the_clusters_of_one_in_memory(rng, tmp_path):
    x, y = clusters(rng, 90, 3), rng.integers(0, 3, 90)
    np.save(tmp_path / "x.npy", x)
    on_disk = fd.RaggedBatch.from_files(tmp_path / "x.npy", y, max_memory="64GiB")
    in_memory = fd.RaggedBatch.from_labels(x, y)
    for method in ("gibbs", "vb"):
        dp = quiet_fit(fd.DirichletProcessMixtures(method, **QUICK), in_memory)
        of_disk = quiet_fit(fd.DirichletProcessMixtures(method, **QUICK), on_disk)
        assert torch.equal(of_disk.predict_proba(on_disk), dp.predict_proba(in_memory))


@pytest.mark.parametrize("method", ["gibbs", "vb"])
@pytest.mark.parametrize("in_runs", [False, True])
def test_draws_come_from_the_predictive_density(rng, monkeypatch, method, in_runs):
    if in_runs:
        monkeypatch.setattr(predictive, "_MAX_ELEMENTS", 1)
    parts = [clusters(rng, n, 1) for n in (40, 3, 60)]
    parts[1][:] = 2.0
    dp = fd.DirichletProcessMixtures(method, on_error="skip", truncation=4, **QUICK)
    dp = quiet_fit(dp, fd.RaggedBatch.from_list(parts))
    points, components = dp.sample(4000, torch.Generator().manual_seed(1))
    again, _ = dp.sample(4000, torch.Generator().manual_seed(1))
    assert torch.equal(points.nan_to_num(), again.nan_to_num())
    assert points.shape == (3, 4000, 1) and points.dtype == torch.float64
    assert points[1].isnan().all() and (components[1] == -1).all()
    at = torch.linspace(-2e3, 2e3, 400_001, dtype=torch.float64)[:, None]
    for m in (0, 2):
        cumulative = dp.log_prob(at)[:, m].exp().cumsum(0) * 0.01
        probabilities = np.interp(points[m, :, 0].numpy(), at[:, 0].numpy(), cumulative.numpy())
        assert scipy.stats.kstest(probabilities, "uniform").pvalue > 1e-4
    counts = dp.density().offsets.diff()
    assert (components[[0, 2]].amax(1) < counts[[0, 2]]).all() and int(components.max()) > 1
    with pytest.raises(ValueError, match="n is 0, but it must be at least 1"):
        dp.sample(0)
