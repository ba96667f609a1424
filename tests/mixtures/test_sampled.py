"""What fitted chains tell: convergence, partitions, densities without a point, ArviZ; fits that were saved before."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

import fastdens as fd
from fastdens.io.state_file import write_state
from tests.mixtures.problems import QUICK, clusters, quiet_fit, ragged


def shuffled(rng, sizes=(24, 30), d=3, separation=40.0):
    """Models of two far clusters whose rows come in any order: points, models and clusters of the rows."""
    y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    z = np.empty_like(y)
    for m, n in enumerate(sizes):
        z[y == m] = rng.permutation(np.arange(n) % 2)
    return rng.normal(size=(len(y), d)) + separation * z[:, None], y, z


def test_partitions_come_in_the_order_of_the_caller(rng, tmp_path):
    x, y, z = shuffled(rng)
    x[np.flatnonzero(y == 0)[3], 1] = np.nan
    dp = fd.DirichletProcessMixtures(
        n_sweeps=60, burn_in=40, thin=2, n_chains=2, alpha=1e-12, on_error="skip", progress=False
    )
    dp = quiet_fit(dp, fd.RaggedBatch.from_labels(x, y))
    dp.save(tmp_path / "fit")
    for fit in (dp, fd.load(tmp_path / "fit")):
        for loss in ("vi", "binder"):
            estimate = fit.partition(1, loss)
            assert np.array_equal(
                estimate.labels.numpy(), np.unique(z[y == 1], return_inverse=True)[1]
            ) or np.array_equal(estimate.labels.numpy(), 1 - z[y == 1])
            assert estimate.expected_loss == pytest.approx(0, abs=1e-9)
        draws = fit.sampled_labels_[:, :, y == 1].reshape(20, -1)
        shares = torch.stack([own[:, None] == own for own in draws]).double().mean(0)
        assert torch.equal(fit.co_clustering(1), shares)
        numbers = fit.number_of_clusters(1)
        assert numbers.values.tolist() == [2] and numbers.probability.tolist() == [1.0]
        with pytest.raises(ValueError, match="model 0 failed, and has no partition: has NaN or infinity, first in row"):
            fit.partition(0)
        for ask in (fit.partition, fit.co_clustering, fit.number_of_clusters):
            with pytest.raises(ValueError, match="model is 2, but there are models 0 to 1"):
                ask(2)
            with pytest.raises(ValueError, match="model is -1"):
                ask(-1)


def test_numbers_of_clusters_are_shares_of_the_draws_of_all_chains(rng):
    batch = ragged(rng)
    dp = quiet_fit(fd.DirichletProcessMixtures(n_chains=3, n_sweeps=40, burn_in=20, thin=1, progress=False), batch)
    for m in range(3):
        values, counts = np.unique(dp.n_components_[m].numpy(), return_counts=True)
        got = dp.number_of_clusters(m)
        assert np.array_equal(got.values, values) and np.array_equal(got.probability, counts / 60)
    with pytest.raises(ValueError, match="did you mean 'binder'"):
        dp.partition(0, "bindr")
    with pytest.raises(fd.NotFittedError):
        fd.DirichletProcessMixtures().partition(0)


def test_convergence_is_a_sentence(rng):
    """Chains that never leave their starts: the first model's are the same, the second's are not, the third failed."""
    x = [clusters(rng, 20, 2, 1), torch.from_numpy(rng.normal(size=(20, 4))[:, :2] + 80 * (np.arange(20) % 2)[:, None])]
    batch = fd.RaggedBatch.from_list([*x, torch.full((5, 2), 3.0, dtype=torch.float64)])
    labels = torch.zeros(2, 45, dtype=torch.int64)
    labels[1, 20:40] = torch.arange(20) % 2
    options = {"search": 0, "split_merge": 0, "alpha": 1e-300, "n_chains": 2, "on_error": "skip", "progress": False}
    dp = fd.DirichletProcessMixtures(n_sweeps=30, burn_in=10, thin=1, labels_init=labels, **options)
    dp = quiet_fit(dp, batch)
    found = dp.convergence_
    assert found.converged.tolist() == [True, False, False] and found.min_effective_sample_size == 20
    assert str(found).startswith("1 of 3 models agrees; these do not: model 2 (too few draws, or draws that are not ")
    assert "model 1 (R-hat " in str(found) and set(found.rhat_of) == {"log-joint"}
    # The limits are parameters.
    dp.max_rhat, dp.min_ess = 1e9, 0.0
    assert (dp.convergence_.max_rhat, dp.convergence_.min_effective_sample_size) == (1e9, 0.0)
    dp.min_ess = 41
    assert not dp.convergence_.converged.any()


def test_three_draws_are_too_few(rng):
    dp = quiet_fit(fd.DirichletProcessMixtures(n_sweeps=7, burn_in=4, thin=1, progress=False), ragged(rng))
    assert not dp.convergence_.converged.any() and "too few draws" in str(dp.convergence_)


def test_fits_saved_before_there_were_moves(rng, tmp_path):
    batch = ragged(rng)
    dp = quiet_fit(fd.DirichletProcessMixtures(n_chains=2, **QUICK), batch)
    tensors, metadata = dp.get_state()
    for name in ("n_sweeps_", "split_merge_"):
        del tensors[name]
    new = ("init", "split_merge", "search", "stop", "max_sweeps", "max_rhat", "min_ess")
    for name in new:
        del metadata["parameters"][name]
    write_state(tmp_path / "fit", "fit", tensors, metadata, overwrite=False)
    loaded = fd.load(tmp_path / "fit")
    assert torch.equal(loaded.score_samples(batch), dp.score_samples(batch))
    assert loaded.n_sweeps_.tolist() == [12] * 3 and loaded.split_merge_.shape == (3, 2, 4)
    # Another fit is by the chain of then.
    assert (loaded.init, loaded.split_merge, loaded.search, loaded.stop) == ("random", 0, 0, "sweeps")
    assert torch.equal(loaded.convergence_.rhat, dp.convergence_.rhat)


def test_leave_one_out_is_the_predictive_without_the_point(rng, tmp_path):
    """Each point scored by scipy's mixture of the others, the prior being that of all."""
    parts = [clusters(rng, n, 2) for n in (14, 9)]
    order = torch.from_numpy(rng.permutation(23))
    x, y = torch.cat(parts)[order], torch.tensor([0] * 14 + [1] * 9)[order]
    dp = quiet_fit(
        fd.DirichletProcessMixtures(n_chains=2, init_components=4, **QUICK), fd.RaggedBatch.from_labels(x, y)
    )
    got = dp.leave_one_out()
    kappa0, nu0 = 0.01, 4

    def student(points, at, m0, s0):
        n = len(points)
        kappa, nu = kappa0 + n, nu0 + n
        location = (kappa0 * m0 + points.sum(0)) / kappa
        scatter = s0 + kappa0 * np.outer(m0, m0) + points.T @ points - kappa * np.outer(location, location)
        df = nu - 1
        return scipy.stats.multivariate_t(location, scatter * (kappa + 1) / (kappa * df), df).pdf(at)

    for i in range(23):
        own = (y == y[i]).numpy()
        train = x.numpy()[own]
        m0, s0 = train.mean(0), np.diag(train.var(0) / 4)
        others = own.copy()
        others[i] = False
        density = []
        for labels, alpha in zip(dp.sampled_labels_.reshape(8, 23), dp.alpha_[y[i]].T.reshape(-1), strict=True):
            z, points = labels.numpy()[others], x.numpy()[others]
            parts = [(z == k).sum() * student(points[z == k], x[i].numpy(), m0, s0) for k in np.unique(z)]
            fresh = float(alpha) * student(points[:0], x[i].numpy(), m0, s0)
            density.append((sum(parts) + fresh) / (float(alpha) + len(z)))
        assert float(got[i]) == pytest.approx(np.log(np.mean(density)), rel=1e-8)
    dp.save(tmp_path / "fit")
    assert torch.equal(fd.load(tmp_path / "fit").leave_one_out(), got)


def test_diagnostics_are_those_of_arviz(rng):
    arviz = pytest.importorskip("arviz")
    dp = quiet_fit(
        fd.DirichletProcessMixtures(n_chains=3, n_sweeps=60, burn_in=20, thin=1, progress=False), ragged(rng)
    )
    data = dp.to_arviz()
    assert data.posterior["log_joint"].dims == ("chain", "draw", "model")
    np.testing.assert_array_equal(data.posterior["alpha"].values.transpose(2, 0, 1), dp.alpha_)
    assert set(data.posterior.data_vars) == {"log_joint", "n_components", "alpha"}
    np.testing.assert_allclose(arviz.rhat(data, method="split")["log_joint"].values, dp.rhat_, rtol=1e-6)
    np.testing.assert_allclose(arviz.ess(data, method="mean")["log_joint"].values, dp.effective_sample_size_, rtol=1e-6)


def test_chains_that_have_not_converged_are_named(rng):
    """Far clusters, one chain starting apart and one together: neither gets to the other in a few sweeps."""
    far = torch.from_numpy(rng.normal(size=(60, 8)) + 50 * (np.arange(60) % 2)[:, None])
    batch = fd.RaggedBatch.from_list([torch.from_numpy(rng.normal(size=(60, 8))), far], layer="layer2")
    labels = torch.zeros(2, 120, dtype=torch.int64)
    labels[1, 60:] = torch.arange(60) % 2
    plain = {"split_merge": 0, "search": 0, "alpha": 1e-300, "progress": False}
    dp = fd.DirichletProcessMixtures(n_chains=2, labels_init=labels, n_sweeps=40, burn_in=20, thin=1, **plain)
    with pytest.warns(
        fd.ConvergenceWarning, match=r"1 of 2 models have not converged.*model 1 \(class 1, layer 'layer2'\)"
    ):
        dp.fit(batch)
