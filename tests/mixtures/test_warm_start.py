"""Fits that go on from the last one: as scikit-learn's, in parts, and where there is nothing to go on from."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning as SklearnWarning
from sklearn.mixture import GaussianMixture

import fastdens as fd
from tests.mixtures.problems import quiet_fit, ragged
from tests.problems import COVARIANCE_TYPES

FITTED = ("weights_", "means_", "covariances_", "precisions_cholesky_", "lower_bound_")


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_two_fits_of_five_iterations_are_one_of_ten(rng, covariance_type):
    batch = ragged(rng)
    options = {"covariance_type": covariance_type, "tol": 0}
    one = fd.GaussianMixtures(3, max_iter=10, **options).fit(batch)
    two = fd.GaussianMixtures(3, max_iter=5, warm_start=True, n_init=4, **options)
    first = fd.GaussianMixtures(3, max_iter=5, **options).fit(batch)
    two.n_init = 1
    two.fit(batch)
    assert torch.equal(two.means_, first.means_)
    two.n_init = 4
    two.fit(batch)
    for name in FITTED:
        torch.testing.assert_close(getattr(two, name), getattr(one, name), rtol=1e-8, atol=1e-10, msg=name)
    assert two.n_iter_.tolist() == [5, 5, 5]


def test_stops_where_sklearn_stops(rng):
    batch = ragged(rng, (200, 150))
    gm = quiet_fit(fd.GaussianMixtures(3, tol=1e-4, max_iter=500, warm_start=True), batch)
    moved = fd.RaggedBatch.from_list([batch.points[:200] + 0.1, batch.points[200:] * 1.1])
    peers = []
    for m in range(2):
        peer = GaussianMixture(3, tol=1e-4, max_iter=500, warm_start=True)
        for name in ("weights_", "means_", "covariances_", "precisions_cholesky_"):
            setattr(peer, name, getattr(gm, name)[m].numpy())
        peer.lower_bound_, peer.converged_ = float(gm.lower_bound_[m]), True
        peers.append(peer)
    for _ in range(2):
        gm.fit(moved)
        for m, peer in enumerate(peers):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SklearnWarning)
                peer.fit(moved.part(m, m + 1).points.numpy())
            assert int(gm.n_iter_[m]) == peer.n_iter_
            np.testing.assert_allclose(gm.means_[m], peer.means_, rtol=1e-7, atol=1e-8)
            np.testing.assert_allclose(gm.covariances_[m], peer.covariances_, rtol=1e-6, atol=1e-8)


def test_parts_and_memory_limits_go_on_too(rng):
    batch = ragged(rng, (40, 25, 60, 33))
    options = {"max_iter": 3, "tol": 0, "warm_start": True}
    whole, limited = (fd.GaussianMixtures(2, **options).fit(batch) for _ in range(2))
    whole.fit(batch)
    limited.fit(batch, max_memory="64GiB")
    ranks = fd.distributed.fit(fd.GaussianMixtures(2, **options).fit(batch), batch)
    points = fd.distributed.fit(fd.GaussianMixtures(2, **options).fit(batch), batch, split="points")
    for name in FITTED:
        assert torch.equal(getattr(whole, name), getattr(limited, name)), name
        assert torch.equal(getattr(whole, name), getattr(ranks, name)), name
        torch.testing.assert_close(getattr(whole, name), getattr(points, name), rtol=1e-8, atol=1e-9, msg=name)


def test_models_that_failed_and_other_models_start_anew(rng):
    batch = ragged(rng, (40, 25, 60))
    bad = batch.points.clone()
    bad[45] = torch.nan
    options = {"max_iter": 4, "tol": 0, "on_error": "skip"}
    gm = fd.GaussianMixtures(2, warm_start=True, **options)
    gm.fit(fd.RaggedBatch(bad, batch.offsets, batch.index, batch.classes))
    assert gm.failed_.tolist() == [False, True, False]
    gm.fit(batch)
    cold = fd.GaussianMixtures(2, **options).fit(batch)
    longer = fd.GaussianMixtures(2, **{**options, "max_iter": 8}).fit(batch)
    assert torch.equal(gm.means_[1], cold.means_[1])
    torch.testing.assert_close(gm.means_[::2], longer.means_[::2], rtol=1e-8, atol=1e-10)
    other = fd.RaggedBatch.from_list([batch.points[:40], batch.points[40:65]], labels=["a", "b"])
    assert torch.equal(gm.fit(other).means_, fd.GaussianMixtures(2, **options).fit(other).means_)
    gm.n_components = 3
    assert torch.equal(gm.fit(other).means_, fd.GaussianMixtures(3, **options).fit(other).means_)
    with pytest.raises(ValueError, match="warm_start is 1"):
        fd.GaussianMixtures(2, warm_start=1).fit(other)


def test_models_that_share_a_covariance_go_on_together(rng):
    batch = ragged(rng)
    options = {"covariance_type": "tied_across_models", "tol": 0}
    one = fd.GaussianMixtures(3, max_iter=10, **options).fit(batch)
    two = fd.GaussianMixtures(3, max_iter=5, warm_start=True, **options).fit(batch)
    assert two.n_points_seen_.tolist() == batch.sizes.tolist()
    two.fit(batch)
    for name in FITTED:
        torch.testing.assert_close(getattr(two, name), getattr(one, name), rtol=1e-7, atol=1e-9, msg=name)


def test_a_fit_goes_on_from_a_stream(rng):
    batch = ragged(rng, (300, 200))
    gm = fd.GaussianMixtures(2, warm_start=True, max_iter=1, tol=0)
    for _ in range(2):
        gm.partial_fit(batch)
    expected = fd.kernels.em_steps(
        batch.points,
        batch.layout,
        gm.weights_,
        gm.means_,
        gm.precisions_cholesky_,
        gm.lower_bound_,
        n_steps=1,
        tol=0,
        reg_covar=1e-6,
    )
    gm.fit(batch)
    torch.testing.assert_close(gm.means_, expected.means, rtol=1e-9, atol=1e-10)
    assert gm.n_points_seen_.tolist() == [300, 200]
