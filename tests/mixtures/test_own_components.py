"""Models with components of different numbers in one fit: as each of them fitted alone."""

from __future__ import annotations

import pytest
import torch

import fastdens as fd
from fastdens.mixtures.own_components import fit_own_components
from tests.mixtures.problems import clusters, ragged


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical", "tied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_model_is_the_one_that_is_fitted_alone(rng, tmp_path, covariance_type, dtype):
    batch = ragged(rng, (40, 25, 60)).to(dtype=dtype)
    options = {"covariance_type": covariance_type, "max_iter": 5, "tol": 0}
    wide = fit_own_components(fd.GaussianMixtures(9, **options), batch, torch.tensor([2, 1, 4]), {})
    assert wide.n_components == 4 and wide.weights_.shape == (3, 4)
    wide.save(tmp_path / "fit")
    x = clusters(rng, 30, 3).to(dtype)
    far = torch.full((1, 3), 1e15, dtype=dtype)

    def same(found, expected):
        # A tied covariance is looked at from a point amid all means, those of no weight among them.
        rounding = 1e3 * torch.finfo(dtype).eps if covariance_type == "tied" else 0
        torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding)

    for fit in (wide, fd.load(tmp_path / "fit")):
        for m, k in enumerate([2, 1, 4]):
            alone = fd.GaussianMixtures(k, **options).fit(batch)
            rows = slice(*batch.ranges[m].tolist())
            same(fit.log_prob(x)[:, m], alone.log_prob(x)[:, m])
            same(fit.log_prob(far)[:, m], alone.log_prob(far)[:, m])
            same(fit.score_samples(batch)[rows], alone.score_samples(batch)[rows])
            same(fit.predict_proba(batch)[rows, :k], alone.predict_proba(batch)[rows])
            assert not fit.predict_proba(batch)[rows, k:].any()
            assert torch.equal(fit.predict(batch)[rows], alone.predict(batch)[rows])
            same(fit.bic(batch)[m], alone.bic(batch)[m])
            same(fit.aic(batch)[m], alone.aic(batch)[m])
            assert fit.n_iter_[m] == alone.n_iter_[m]
            assert torch.equal(fit.covariances_[m, :k] if covariance_type != "tied" else fit.covariances_[m],
                               alone.covariances_[m])  # fmt: skip
        points, components = fit.sample(400, torch.Generator().manual_seed(0))
        assert components.amax(1).tolist() == [1, 0, 3] and points.isfinite().all()
    grad = torch.autograd.functional.jacobian(lambda x: wide.log_prob(x).sum(0), x[:2])
    assert grad.isfinite().all() and grad.any()


def test_a_failed_model_and_a_limit_on_memory(rng, tmp_path):
    batch = ragged(rng, (40, 25, 60))
    batch.points[45] = torch.nan
    numbers, failures = torch.tensor([2, 3, 1]), {1: "has NaN"}
    fit = fit_own_components(fd.GaussianMixtures(1, on_error="skip"), batch, numbers, failures)
    assert fit.failures_ == failures and fit.weights_[1].isnan().all() and fit.weights_[2].tolist() == [1.0, 0.0]
    groups = fit_own_components(fd.GaussianMixtures(1, on_error="skip"), batch, numbers, failures, max_memory="64GiB")
    assert torch.equal(groups.means_.nan_to_num(), fit.means_.nan_to_num())
    none = fit_own_components(
        fd.GaussianMixtures(1, on_error="skip"), batch, numbers, dict.fromkeys(range(3), "is bad")
    )
    assert none.failed_.all() and none.means_.isnan().all()
    # Without its failure being known before, the model fails on its own.
    with pytest.raises(fd.ModelError, match=r"model 1 \(class 1\) has NaN or infinity, first in row"):
        fit_own_components(fd.GaussianMixtures(1), batch, numbers, {})
