"""Convergence of chains: R-hat and effective sample size against ArviZ, the threshold against scipy and simulation."""

from __future__ import annotations

import math
import sys
import types

import arviz
import numpy as np
import pytest
import torch
import xarray
from scipy import stats

from fastdens import convergence
from fastdens.convergence import effective_sample_size, rhat_threshold, split_rhat, to_arviz


def autoregressive(rng, n_models, n_chains, n_draws):
    """AR(1) chains [M, C, S], from almost alternating to almost a random walk; a third of them stay now and then.

    Draws are not integers: where autocorrelations cancel exactly, rounding decides where Geyer's sequence ends.
    """
    phi = rng.uniform(-0.95, 1, (n_models, 1))
    draws = rng.normal(size=(n_models, n_chains, n_draws))
    for s in range(1, n_draws):
        draws[..., s] += phi * draws[..., s - 1]
    draws += 3 * rng.normal(size=(n_models, 1, 1))
    for s in range(2, n_draws):
        stays = rng.random((len(draws[::3]), n_chains)) < 0.5
        draws[::3, :, s] = np.where(stays, draws[::3, :, s - 1], draws[::3, :, s])
    return draws


@pytest.mark.parametrize("n_chains", [1, 2, 5])
@pytest.mark.parametrize("n_draws", [4, 5, 6, 7, 8, 9, 10, 11, 13, 20, 80, 257])
def test_equal_to_arviz(rng, n_chains, n_draws):
    draws = autoregressive(rng, 12, n_chains, n_draws)
    expected = [float(arviz.ess(model, method="mean")) for model in draws]
    np.testing.assert_allclose(effective_sample_size(draws), expected, rtol=1e-6)
    half = n_draws // 2
    if n_chains > 1:
        expected = [float(arviz.rhat(model, method="split")) for model in draws]
    elif half >= 4:
        # ArviZ wants two chains of four draws: it gets the halves.
        expected = [float(arviz.rhat(np.stack([x[:half], x[-half:]]), method="identity")) for x in draws[:, 0]]
    else:
        halves = np.concatenate([draws[..., :half], draws[..., -half:]], 1)
        within, between = halves.var(-1, ddof=1).mean(-1), halves.mean(-1).var(-1, ddof=1)
        expected = np.sqrt((half - 1) / half + between / within)
    np.testing.assert_allclose(split_rhat(draws), expected, rtol=1e-6)


def test_long_chains_have_the_effective_sample_size_of_theory(rng):
    phi, n_draws = np.array([-0.5, 0.0, 0.5, 0.8]), 40_000
    draws = rng.normal(size=(4, 2, n_draws))
    for s in range(1, n_draws):
        draws[..., s] += phi[:, None] * draws[..., s - 1]
    found = effective_sample_size(draws) / (2 * n_draws)
    # The last has a standard deviation of 3.4 %.
    np.testing.assert_allclose(found, (1 - phi) / (1 + phi), rtol=0.2)
    np.testing.assert_allclose(split_rhat(draws), 1, atol=5e-3)


def test_chains_that_stay_where_they_are(rng):
    draws = torch.from_numpy(rng.normal(size=(8, 2, 11)))
    neighbours = draws.clone()
    draws[0] = 0.1
    draws[1, 0], draws[1, 1] = 0.1, 0.3
    draws[2, :, :5], draws[2, :, 5:] = 1e9 + 0.1, 1e9 + 0.2
    draws[3, 0] = 0.7
    draws[4, 1, 3] = math.nan
    draws[5, 0, 10] = math.inf
    draws[6] = -math.inf
    rhat, size = split_rhat(draws), effective_sample_size(draws)
    assert rhat[0] == 1 and rhat[1:3].tolist() == [math.inf] * 2 and rhat[3].isfinite()
    assert size[0] == 20 and (size[1:4] > 0).all() and (size[1:3] < 20).all()
    assert rhat[4:7].isnan().all() and size[4:7].isnan().all()
    assert rhat[7] == split_rhat(neighbours)[7] and size[7] == effective_sample_size(neighbours)[7]
    for model in (1, 2, 3):
        centred = (draws[model] - draws[model].mean()).numpy()
        np.testing.assert_allclose(size[model], arviz.ess(centred, method="mean"), rtol=1e-6)


def test_few_draws_have_no_convergence():
    for n_draws in range(4):
        assert split_rhat(torch.randn(2, 3, n_draws)).isnan().tolist() == [True] * 2
        assert effective_sample_size(torch.randn(2, 3, n_draws)).isnan().tolist() == [True] * 2
        assert n_draws == 0 or math.isnan(rhat_threshold(3, n_draws))
    assert split_rhat(torch.randn(3, 4)).isfinite() and rhat_threshold(3, 4) > 1.1


def test_no_digits_are_lost_far_from_zero_and_at_any_scale(rng):
    draws = np.round(autoregressive(rng, 20, 3, 30) * 1024) / 1024
    for function in (split_rhat, effective_sample_size):
        expected = function(draws)
        np.testing.assert_allclose(function(draws + 2.0**30), expected, rtol=1e-10)
        np.testing.assert_allclose(function(draws * 2.0**-600), expected, rtol=1e-10)
        np.testing.assert_allclose(function(draws * 2.0**600), expected, rtol=1e-10)
        np.testing.assert_allclose(function(torch.from_numpy(draws).float()), expected, rtol=1e-3)
    counts = rng.integers(1, 9, (5, 2, 20))
    counts.flags.writeable = False
    np.testing.assert_array_equal(split_rhat(counts), split_rhat(counts.astype(float)))


def test_leading_axes_and_blocks(rng, monkeypatch):
    draws = rng.normal(size=(2, 3, 5, 2, 9))
    for function in (split_rhat, effective_sample_size):
        monkeypatch.setattr(convergence, "_BLOCK_SIZE", 1 << 18)
        whole = function(draws)
        assert whole.shape == (2, 3, 5) and whole.dtype == torch.float64
        monkeypatch.setattr(convergence, "_BLOCK_SIZE", 40)
        assert torch.equal(function(draws), whole)
        assert function(draws[1, 2, 4]) == whole[1, 2, 4] and function(draws[0, 0, 0]).shape == ()
        assert function(draws[:, :0]).shape == (2, 0, 5)
        for shape in ((5,), (4, 0, 5)):
            with pytest.raises(ValueError, match=r"must be \[\.\.\., C, S\]"):
                function(np.zeros(shape))


@pytest.mark.parametrize(
    ("n_chains", "n_draws"), [(1, 4), (1, 20), (1, 81), (2, 20), (4, 20), (4, 80), (100, 5), (1, 1000)]
)
def test_threshold_is_the_quantile_or_the_customary_one(n_chains, n_draws):
    m, n = 2 * n_chains, n_draws // 2
    quantile = math.sqrt((n - 1 + stats.f.isf(1e-3, m - 1, m * (n - 1))) / n)
    assert rhat_threshold(n_chains, n_draws) == pytest.approx(max(1.1, quantile), rel=1e-9)


@pytest.mark.parametrize(("n_chains", "n_draws"), [(1, 20), (2, 13), (4, 6)])
def test_independent_draws_exceed_the_threshold_once_in_a_thousand(rng, n_chains, n_draws):
    n_models, threshold = 200_000, rhat_threshold(n_chains, n_draws)
    assert threshold > 1.1
    exceeded = int((split_rhat(rng.normal(size=(n_models, n_chains, n_draws))) > threshold).sum())
    # 200 are expected, with a binomial standard deviation of 14.
    assert abs(exceeded - 200) < 5 * 14.2


def test_twenty_draws_of_one_chain_often_exceed_the_customary_threshold(rng):
    share = (split_rhat(rng.normal(size=(20_000, 1, 20))) > 1.1).double().mean()
    assert 0.05 < share < 0.15


def test_threshold_wants_positive_integers():
    with pytest.raises(ValueError, match="n_chains is 0"):
        rhat_threshold(0, 20)
    with pytest.raises(ValueError, match="n_draws is -1"):
        rhat_threshold(1, -1)
    with pytest.raises(TypeError, match=r"n_draws is 20\.0"):
        rhat_threshold(1, 20.0)


def from_dict_of_arviz_1(data, *, coords=None, dims=None):
    """The part of the signature and behaviour of ``arviz.from_dict`` 1.x that counts here."""
    groups = {}
    for group, variables in data.items():
        arrays = {name: (["chain", "draw", *dims[name]], values) for name, values in variables.items()}
        n_chains, n_draws = next(iter(variables.values())).shape[:2]
        groups[group] = xarray.Dataset(arrays, {"chain": range(n_chains), "draw": range(n_draws), **coords})
    return xarray.DataTree.from_dict(groups)


@pytest.mark.parametrize("version", ["installed", "1.3.0"])
def test_arviz_gets_chain_draw_and_model(rng, monkeypatch, version):
    if version != "installed":
        module = types.SimpleNamespace(__version__=version, from_dict=from_dict_of_arviz_1)
        monkeypatch.setitem(sys.modules, "arviz", module)
    alpha = torch.from_numpy(rng.gamma(1, size=(3, 2, 5)))
    n_components = torch.from_numpy(rng.integers(1, 9, (3, 2, 5)))
    found = to_arviz({"alpha": alpha, "n_components": n_components}, ["class 0", "class 1", "class 7"])
    if version != "installed":
        assert isinstance(found, xarray.DataTree)
    posterior = found["posterior"]
    assert set(posterior.data_vars) == {"alpha", "n_components"}
    assert posterior["alpha"].dims == ("chain", "draw", "model")
    assert posterior["model"].values.tolist() == ["class 0", "class 1", "class 7"]
    np.testing.assert_array_equal(posterior["alpha"].sel(model="class 7").values, alpha[2])
    np.testing.assert_array_equal(posterior["n_components"].sel(chain=1, draw=3).values, n_components[:, 1, 3])
    assert posterior["n_components"].dtype == np.int64
    if version == "installed":
        np.testing.assert_allclose(arviz.ess(found, method="mean")["alpha"], effective_sample_size(alpha), rtol=1e-6)


def test_arviz_is_named_if_it_is_missing_and_shapes_if_they_are_wrong(monkeypatch):
    draws = torch.ones(3, 2, 5)
    with pytest.raises(ValueError, match=r"'alpha' have shape \(3, 2, 5\).*2 model names"):
        to_arviz({"alpha": draws}, ["a", "b"])
    with pytest.raises(ValueError, match=r"'b' have shape \(3, 2, 4\), those of 'alpha' \(3, 2, 5\)"):
        to_arviz({"alpha": draws, "b": draws[..., :4]}, ["a", "b", "c"])
    with pytest.raises(ValueError, match="'alpha' have shape"):
        to_arviz({"alpha": draws[0]}, ["a", "b"])
    with pytest.raises(ValueError, match="draws is empty"):
        to_arviz({}, ["a"])
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"fastdens\[diagnostics\]"):
        to_arviz({"alpha": draws}, ["a", "b", "c"])
