"""Shrunk covariances against scikit-learn's estimators, and in mixtures against EM in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdens.kernels.layout import Layout
from scipy.stats import multivariate_normal
from sklearn.covariance import OAS, LedoitWolf, ShrunkCovariance

import fastdens as fd
from fastdens.inference.shrinkage import spread_of_components

SIZES = (60, 400, 9, 2, 1)
METHODS = {"ledoit_wolf": LedoitWolf, "oas": OAS, 0.25: lambda: ShrunkCovariance(shrinkage=0.25)}


def ragged(rng, d, sizes=SIZES):
    return [rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 5 * rng.normal(size=d) for n in sizes]


def em_in_numpy(x, weights, means, precisions, method, n_iter):
    """EM of one full mixture with the formulas of the docstrings, written out."""
    d, k = x.shape[1], len(weights)
    covariances = np.linalg.inv(precisions)
    for _ in range(n_iter):
        joint = np.stack(
            [np.log(weights[j]) + multivariate_normal(means[j], covariances[j]).logpdf(x) for j in range(k)], 1
        )
        bound = np.logaddexp.reduce(joint, 1)
        resp = np.exp(joint - bound[:, None])
        weights = resp.mean(0)
        means, covariances, shares = (resp.T @ x) / resp.sum(0)[:, None], [], []
        for j in range(k):
            v, r = x - means[j], resp[:, j]
            s, count = (v * r[:, None]).T @ v / r.sum(), r.sum() ** 2 / (r**2).sum()
            norm, trace = (s**2).sum(), np.trace(s)
            apart = norm - trace**2 / d
            error = ((r * (v**2).sum(1) ** 2).sum() / r.sum() - norm) / count
            share = {
                "ledoit_wolf": min(error, apart) / apart,
                "oas": min(1, (norm + trace**2) / ((count + 1) * apart)),
            }.get(method, method)
            shares.append(share)
            covariances.append((1 - share) * s + share * trace / d * np.eye(d))
    return np.array(covariances), np.array(shares), bound.mean()


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("d", [1, 3, 64])
def test_one_component_is_sklearns_estimator(rng, d, method, covariance_type):
    arrays = ragged(rng, d)
    gm = fd.GaussianMixtures(shrinkage=method, covariance_type=covariance_type, reg_covar=0, on_error="skip")
    gm.fit(fd.RaggedBatch.from_list(arrays))
    for m, x in enumerate(arrays[:-1]):
        peer = METHODS[method]().fit(x)
        if np.linalg.matrix_rank(peer.covariance_) < d:
            continue
        np.testing.assert_allclose(gm.covariances_[m].reshape(d, d), peer.covariance_, rtol=1e-10, atol=1e-10)
        if d > 1 and method != 0.25:
            assert float(gm.shrinkage_[m]) == pytest.approx(peer.shrinkage_, abs=1e-10)
    assert not gm.failed_[:2].any() and gm.converged_[:2].all()
    # One point has no spread, and no share gives it some.
    assert bool(gm.failed_[-1])


@pytest.mark.parametrize("method", ["ledoit_wolf", "oas", 0.25])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_mixtures_agree_with_em_in_numpy(rng, method, backend):
    arrays, k, d = ragged(rng, 4, (80, 30)), 2, 4
    start = {
        "weights_init": np.full((2, k), 1 / k),
        "means_init": np.stack([x[:k] for x in arrays]),
        "precisions_init": np.tile(np.eye(d) / 9, (2, k, 1, 1)),
    }
    gm = fd.GaussianMixtures(k, shrinkage=method, reg_covar=0, max_iter=6, tol=0, backend=backend, **start)
    gm.fit(fd.RaggedBatch.from_list(arrays))
    for m, x in enumerate(arrays):
        covariances, shares, bound = em_in_numpy(x, *(value[m] for value in start.values()), method, 6)
        np.testing.assert_allclose(gm.covariances_[m], covariances, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(gm.shrinkage_[m], shares, rtol=1e-9)
        assert float(gm.lower_bound_[m]) == pytest.approx(bound, rel=1e-9)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_a_share_of_zero_is_plain_em(rng, covariance_type):
    batch = fd.RaggedBatch.from_list(ragged(rng, 3, (50, 200)))
    options = {"covariance_type": covariance_type, "max_iter": 10, "tol": 0}
    plain, shrunk = (fd.GaussianMixtures(3, shrinkage=share, **options).fit(batch) for share in (None, 0.0))
    np.testing.assert_allclose(shrunk.covariances_, plain.covariances_, rtol=1e-8, atol=1e-10)
    assert not hasattr(plain, "shrinkage_")


def test_weights_of_points_count_as_repeated_rows(rng):
    x, weights = torch.from_numpy(rng.normal(size=(20, 3))), torch.from_numpy(rng.integers(0, 4, 20))
    resp = torch.from_numpy(rng.dirichlet([1, 1], size=20))
    means = torch.from_numpy(rng.normal(size=(1, 2, 3)))
    layout = [Layout.from_offsets(torch.tensor([0, n]), n) for n in (20, int(weights.sum()))]
    repeated, own = x.repeat_interleave(weights, 0), resp.repeat_interleave(weights, 0)
    weighted = spread_of_components(x, layout[0], resp, means, weights.double())
    for a, b in zip(weighted, spread_of_components(repeated, layout[1], own, means), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_fits_with_weights_are_those_of_repeated_rows(rng, covariance_type):
    arrays = ragged(rng, 3, (30, 50))
    weights = rng.integers(0, 4, 80)
    start = {"means_init": np.stack([x[:2] for x in arrays]), "weights_init": np.full((2, 2), 0.5)}
    eye = np.eye(3) / 9
    start["precisions_init"] = np.tile(eye, (2, 2, 1, 1) if covariance_type == "full" else (2, 1, 1))
    options = {"covariance_type": covariance_type, "shrinkage": "oas", "max_iter": 5, "tol": 0, **start}
    batch = fd.RaggedBatch.from_list(arrays)
    weighted = fd.GaussianMixtures(2, **options).fit(batch, sample_weight=weights)
    repeated = [np.repeat(x, w, 0) for x, w in zip(arrays, np.split(weights, [30]), strict=True)]
    peer = fd.GaussianMixtures(2, **options).fit(fd.RaggedBatch.from_list(repeated))
    for name in ("covariances_", "shrinkage_", "lower_bound_", "means_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(peer, name), rtol=1e-9, atol=1e-9)
    # The unit of weights says how many points there are: halves of two make one, and fractions of a point less.
    once = fd.GaussianMixtures(shrinkage="oas", reg_covar=0).fit(batch)
    halved = fd.GaussianMixtures(shrinkage="oas", reg_covar=0).fit(
        fd.RaggedBatch.from_list([np.repeat(x, 2, 0) for x in arrays]), sample_weight=np.full(160, 0.5)
    )
    np.testing.assert_allclose(halved.shrinkage_, once.shrinkage_, rtol=1e-9)


def test_float32_far_from_the_origin(rng):
    x = np.round(ragged(rng, 16, (40,))[0] * 256) / 256
    for method in ("ledoit_wolf", "oas"):
        gm = fd.GaussianMixtures(shrinkage=method, reg_covar=0)
        gm.fit(fd.RaggedBatch.from_list([(x + 1e4).astype(np.float32)]))
        peer = METHODS[method]().fit(x)
        assert float(gm.shrinkage_) == pytest.approx(peer.shrinkage_, rel=1e-4)
        np.testing.assert_allclose(gm.covariances_[0, 0], peer.covariance_, atol=1e-4 * peer.covariance_.max())


def test_fewer_points_than_dimensions_score_new_points(rng, tmp_path):
    factor = rng.normal(size=(64, 64)) / 8
    batch, new = (fd.RaggedBatch.from_list([rng.normal(size=(n, 64)) @ factor]) for n in (60, 500))
    plain, shrunk = (fd.GaussianMixtures(shrinkage=share).fit(batch) for share in (None, "ledoit_wolf"))
    assert float(shrunk.score(new)) > float(plain.score(new)) + 10
    shrunk.save(tmp_path / "fit.safetensors")
    loaded = fd.load(tmp_path / "fit.safetensors")
    assert torch.equal(loaded.shrinkage_, shrunk.shrinkage_)
    assert torch.equal(loaded.score_samples(new), shrunk.score_samples(new))
    assert torch.equal(
        shrunk.shrinkage_, fd.GaussianMixtures(shrinkage="ledoit_wolf").fit(batch, max_memory="8GiB").shrinkage_
    )


def test_no_model_depends_on_those_beside_it(rng):
    arrays = ragged(rng, 5, (30, 70, 1, 44))
    arrays[1][3, 2] = np.nan
    options = {"shrinkage": "oas", "on_error": "skip", "max_iter": 20, "tol": 0}
    together = fd.GaussianMixtures(2, **options).fit(fd.RaggedBatch.from_list(arrays))
    alone = fd.GaussianMixtures(2, **options).fit(fd.RaggedBatch.from_list(arrays[3:]))
    assert torch.equal(together.covariances_[3], alone.covariances_[0])
    assert torch.equal(together.shrinkage_[3], alone.shrinkage_[0])
    assert together.failed_.tolist() == [False, True, True, False]
    assert together.shrinkage_[1].isnan().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shrinkage": "ledoit-wolf"}, "did you mean 'ledoit_wolf'"),
        ({"shrinkage": -0.1}, "from 0 to 1"),
        ({"shrinkage": True}, "from 0 to 1"),
        ({"shrinkage": "oas", "covariance_type": "diag"}, "covariance_type is 'diag'"),
    ],
)
def test_other_shares_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fd.GaussianMixtures(**options).fit(fd.RaggedBatch.from_list([np.eye(3)]))
