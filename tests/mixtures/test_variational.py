"""The variational estimator: against scikit-learn and the sampler, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.mixture import BayesianGaussianMixture

import fastdens as fd
from tests.mixtures.problems import clusters, quiet_fit, ragged


def test_variational_inference_is_that_of_scikit_learn(rng):
    sizes, d, t = (60, 45), 3, 5
    parts = [clusters(rng, n, d).numpy() for n in sizes]
    resp = rng.dirichlet(np.ones(t), size=sum(sizes))
    dp = fd.DirichletProcessMixtures(
        "vb", truncation=t, resp_init=resp, alpha=0.8, kappa0=0.5, nu0=4.5, init_components=3, tol=1e-5, max_iter=300
    ).fit(fd.RaggedBatch.from_list(parts))
    for m, (x, own) in enumerate(zip(parts, np.split(resp, [60]), strict=True)):

        class FromResponsibilities(BayesianGaussianMixture):
            def _initialize_parameters(self, X, random_state, own=own, **_):
                self._initialize(X, own)

        peer = FromResponsibilities(
            n_components=t,
            weight_concentration_prior=0.8,
            mean_precision_prior=0.5,
            mean_prior=x.mean(0),
            degrees_of_freedom_prior=4.5,
            covariance_prior=np.diag(x.var(0) / 3 ** (2 / d)),
            reg_covar=0,
            tol=1e-5,
            max_iter=300,
        ).fit(x)
        np.testing.assert_allclose(dp.means_[m], peer.means_, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(dp.covariances_[m], peer.covariances_, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(dp.weights_[m], peer.weights_, rtol=1e-6, atol=1e-8)
        assert int(dp.n_iter_[m]) == peer.n_iter_ and bool(dp.converged_[m]) == peer.converged_
        assert float(dp.lower_bound_[m]) == pytest.approx(peer.lower_bound_, rel=1e-8)
        start = 60 * m
        assert np.array_equal(dp.labels_[0, start : start + len(x)], peer.predict(x))


def test_variational_and_sampled_densities_are_alike(rng):
    batch = ragged(rng, (2000,), 2)
    vb = fd.DirichletProcessMixtures("vb", init_components=3).fit(batch)
    gibbs = quiet_fit(fd.DirichletProcessMixtures(init_components=3, progress=False), batch)
    assert vb.n_components_.shape == (1, 1, 1) and vb.labels_.shape == (1, 2000)
    assert float((vb.score_samples(batch) - gibbs.score_samples(batch)).abs().mean()) < 0.1
    with pytest.raises(ValueError, match="'vb'"):
        vb.to_arviz()
    with pytest.raises(ValueError, match="'vb'"):
        vb.leave_one_out("published", "log_density")
    with pytest.raises(ValueError, match="'vb'"):
        vb.draw_densities()
    with pytest.raises(ValueError, match="'vb'"):
        vb.log_prob(torch.zeros(1, 2), weighting="published")


@pytest.mark.parametrize("options", [{"checkpoint": "chains.ckpt"}, {"resume": True}])
def test_there_is_nothing_to_resume(rng, options):
    with pytest.raises(ValueError, match="'vb', which has no checkpoint"):
        fd.VariationalDirichletProcessMixtures().fit(ragged(rng), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": 0}, "truncation"),
        ({"tol": -1.0}, "tol"),
        ({"alpha_prior": (1.0,)}, "must be a shape and a rate"),
        ({"labels_init": np.full(125, 30)}, "goes to 30, but truncation is 20"),
        ({"resp_init": np.ones((125, 20))}, "every row must sum to 1"),
        ({"resp_init": np.ones((125, 20)), "labels_init": np.zeros(125, int)}, "pass one of them"),
    ],
)
def test_parameters_are_checked(rng, options, message):
    with pytest.raises(ValueError, match=message):
        fd.VariationalDirichletProcessMixtures(**options).fit(ragged(rng))


def test_a_model_that_turns_bad_is_left_out(rng):
    """A variance too small for float32 beside one that fits."""
    parts = [clusters(rng, 30, 2), clusters(rng, 25, 2)]
    parts[0][:, 0] *= 1e-30
    batch = fd.RaggedBatch.from_list(parts).to(dtype=torch.float32)
    with pytest.raises(fd.ModelError, match=r"model 0 \(class 0\) lost a positive definite covariance"):
        fd.VariationalDirichletProcessMixtures().fit(batch)
    vb = quiet_fit(fd.VariationalDirichletProcessMixtures(on_error="skip"), batch)
    assert vb.failed_.tolist() == [True, False] and vb.means_[0].isnan().all() and vb.means_[1].isfinite().all()
    assert (vb.labels_[0, :30] == -1).all() and (vb.labels_[0, 30:] >= 0).all()
    alone = quiet_fit(fd.VariationalDirichletProcessMixtures(), fd.RaggedBatch.from_list([batch.points[30:]]))
    assert torch.equal(vb.score_samples(batch)[30:], alone.score_samples(fd.RaggedBatch.from_list([batch.points[30:]])))
    assert vb.score_samples(batch)[:30].isnan().all()


@pytest.mark.parametrize("row", [0, 20, 49])
def test_a_wild_row_does_not_spoil_a_fit_in_float32(rng, row):
    x = torch.from_numpy(rng.normal(size=(50, 2)))
    x[row] = float(10.0 ** rng.uniform(4, 12))
    batch = fd.RaggedBatch.from_list([x.float()])
    single, double = (
        fd.VariationalDirichletProcessMixtures(truncation=4, dtype=dtype).fit(batch) for dtype in (None, torch.float64)
    )
    near = torch.from_numpy(rng.normal(size=(9, 2)))
    torch.testing.assert_close(single.log_prob(near.float()).double(), double.log_prob(near), atol=1e-3, rtol=1e-4)
