"""Convergence of chains: R-hat and effective sample size against ArviZ, the threshold against scipy and simulation."""

from __future__ import annotations

import math

import arviz
import numpy as np
import pytest
import torch
from scipy import stats

from fastdens import convergence
from fastdens.convergence import (
    bulk_effective_sample_size,
    chain_convergence,
    effective_sample_size,
    rank_normalised_rhat,
    rhat_threshold,
    split_rhat,
    tail_effective_sample_size,
)

RHATS = (split_rhat, rank_normalised_rhat)
SIZES = (effective_sample_size, bulk_effective_sample_size, tail_effective_sample_size)


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


@pytest.mark.parametrize("n_chains", [1, 2, 5])
@pytest.mark.parametrize("n_draws", [4, 5, 7, 8, 11, 20, 80, 257])
def test_rank_normalised_values_equal_those_of_arviz(rng, n_chains, n_draws):
    draws = autoregressive(rng, 12, n_chains, n_draws)
    draws[::2] = np.tan(draws[::2])
    expected = [float(arviz.ess(model, method="bulk")) for model in draws]
    np.testing.assert_allclose(bulk_effective_sample_size(draws), expected, rtol=1e-6)
    # ArviZ interpolates between draws; between two equal ones its rounding may end below both, so it gets indicators.
    tails = [[m <= np.quantile(m, q) for q in (0.05, 0.95)] for m in draws]
    expected = [min(float(arviz.ess(1.0 * x, method="mean")) for x in pair) for pair in tails]
    np.testing.assert_allclose(tail_effective_sample_size(draws), expected, rtol=1e-6)
    half = n_draws // 2
    if n_chains > 1:
        expected = [float(arviz.rhat(model, method="rank")) for model in draws]
        np.testing.assert_allclose(rank_normalised_rhat(draws), expected, rtol=1e-6)
    elif half >= 4:
        halves = np.concatenate([draws[..., :half], draws[..., -half:]], 1)
        expected = [max(float(arviz.rhat(x, method="identity")) for x in bulk_and_folded(m)) for m in halves]
        np.testing.assert_allclose(rank_normalised_rhat(draws), expected, rtol=1e-6)


def bulk_and_folded(chains):
    folded = np.abs(chains - np.median(chains))
    ranks = [stats.rankdata(x).reshape(x.shape) for x in (chains, folded)]
    return [stats.norm.ppf((rank - 0.375) / (rank.size + 0.25)) for rank in ranks]


def test_tail_equals_that_of_arviz_where_no_draws_are_equal(rng):
    draws = rng.standard_cauchy(size=(20, 3, 41)) + rng.normal(size=(20, 3, 1))
    expected = [float(arviz.ess(model, method="tail")) for model in draws]
    np.testing.assert_allclose(tail_effective_sample_size(draws), expected, rtol=1e-6)


def test_ranks_see_what_the_plain_value_does_not(rng):
    draws = rng.normal(size=(3, 4, 500))
    # One of four chains is wider, with the same mean; then one of four chains without a mean lies elsewhere.
    draws[0, 0] *= 4
    draws[1] = rng.standard_cauchy(size=(4, 500))
    draws[1, 0] += 5
    plain, ranked = split_rhat(draws), rank_normalised_rhat(draws)
    # Over 500 draws of the test the smallest of the last was 1.155, and the largest of the plain value 1.009.
    assert plain[0] < 1.05 and ranked[0] > 1.05
    assert ranked[1] > 1.05
    assert ranked[2] < 1.05


def test_ranks_are_blind_to_monotone_changes_of_the_quantity(rng):
    draws = autoregressive(rng, 15, 2, 30)
    for function in (bulk_effective_sample_size, tail_effective_sample_size):
        np.testing.assert_array_equal(function(np.exp(draws / 10)), function(draws))
        np.testing.assert_array_equal(function(np.arcsinh(draws)), function(draws))
    np.testing.assert_allclose(rank_normalised_rhat(-draws), rank_normalised_rhat(draws), rtol=1e-9)


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
    for function in RHATS:
        rhat = function(draws)
        assert rhat[0] == 1 and rhat[1:3].tolist() == [math.inf] * 2 and rhat[3].isfinite()
        assert rhat[4:7].isnan().all() and rhat[7] == function(neighbours)[7]
    for function in SIZES:
        size = function(draws)
        assert size[0] == 20 and (size[1:4] > 0).all() and (size[1:3] <= 20).all()
        assert size[4:7].isnan().all() and size[7] == function(neighbours)[7]
    size = effective_sample_size(draws)
    assert (size[1:3] < 20).all()
    for model in (1, 2, 3):
        centred = (draws[model] - draws[model].mean()).numpy()
        np.testing.assert_allclose(size[model], arviz.ess(centred, method="mean"), rtol=1e-6)


def test_few_draws_have_no_convergence():
    for n_draws in range(4):
        for function in RHATS + SIZES:
            assert function(torch.randn(2, 3, n_draws)).isnan().tolist() == [True] * 2
        assert n_draws == 0 or math.isnan(rhat_threshold(3, n_draws))
    assert split_rhat(torch.randn(3, 4)).isfinite() and rhat_threshold(3, 4) > 1.1


def test_no_digits_are_lost_far_from_zero_and_at_any_scale(rng):
    draws = np.round(autoregressive(rng, 20, 3, 30) * 1024) / 1024
    for function in RHATS + SIZES:
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
    for function in RHATS + SIZES:
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


def test_a_model_converges_if_all_its_quantities_do(rng):
    # Of the four models the first mixes, one trace of the second does not, and the third has few effective draws.
    good = torch.from_numpy(rng.normal(size=(4, 4, 200)))
    bad = good.clone()
    bad[1, 0] += 5
    bad[2] = bad[2].sort(-1).values
    bad[3, 0, 0] = math.nan
    found = chain_convergence({"log-joint": good, "density": bad[..., :150]}, 1.05, 200)
    assert found.converged.tolist() == [True, False, False, False]
    assert found.max_rhat == 1.05 and found.min_effective_sample_size == 200
    for name, trace in (("log-joint", good), ("density", bad[..., :150])):
        sizes = [bulk_effective_sample_size(trace), tail_effective_sample_size(trace)]
        np.testing.assert_array_equal(
            found.rhat_of[name], torch.maximum(rank_normalised_rhat(trace), split_rhat(trace))
        )
        np.testing.assert_array_equal(found.effective_sample_size_of[name], torch.minimum(*sizes))
    np.testing.assert_array_equal(found.rhat, torch.maximum(*found.rhat_of.values()))
    np.testing.assert_array_equal(found.effective_sample_size, torch.minimum(*found.effective_sample_size_of.values()))
    assert found.rhat.dtype == found.effective_sample_size.dtype == torch.float64
    assert found.rhat[3].isnan() and found.rhat_of["log-joint"][3].isfinite()
    # Either limit alone decides.
    alone = {"log-joint": good[:1]}
    rhat, size = found.rhat_of["log-joint"][0].item(), found.effective_sample_size_of["log-joint"][0].item()
    for limits, converged in (((rhat, size), True), ((rhat - 1e-9, 0), False), ((math.inf, size + 1e-9), False)):
        assert chain_convergence(alone, *limits).converged.tolist() == [converged]


def test_the_summary_names_the_worst_first(rng):
    trace = rng.normal(size=(15, 2, 400))
    trace[3, 0] += 2
    trace[7, 0] += 5
    trace[9, 1, 0] = math.inf
    found = chain_convergence({"log-joint": torch.from_numpy(trace)}, 1.1, 50)
    names = [f"class {m}" for m in range(15)]
    rhat, size = found.rhat, found.effective_sample_size
    assert found.summary(names) == (
        "12 of 15 models agree; these do not: class 9 (too few draws, or draws that are not finite), "
        f"class 7 (R-hat {rhat[7]:.2f}, {size[7]:.0f} effective draws), "
        f"class 3 (R-hat {rhat[3]:.2f}, {size[3]:.0f} effective draws)."
    )
    assert str(found).startswith("12 of 15 models agree; these do not: model 9 (")
    one_short = chain_convergence({"log-joint": torch.from_numpy(trace[2:4])}, 1.1, 50)
    assert str(one_short).startswith("1 of 2 models agrees; this one does not: model 1 (R-hat ")
    none = chain_convergence({"log-joint": torch.from_numpy(trace)}, 0.5, 50)
    assert str(none).startswith("0 of 15 models agree; these do not: model 9 (") and str(none).endswith(", and 5 more.")
    assert str(none).count("effective draws") == 9
    assert str(chain_convergence({"log-joint": torch.from_numpy(trace[:2])}, 1.1, 50)) == "2 of 2 models agree."
    assert str(chain_convergence({"log-joint": torch.empty(0, 2, 9)}, 1.1, 50)) == "0 of 0 models agree."
    with pytest.raises(ValueError, match="2 model names for 15 models"):
        found.summary(names[:2])


def test_wrong_traces_and_limits_are_named():
    trace = torch.ones(3, 2, 5)
    with pytest.raises(ValueError, match="traces is empty"):
        chain_convergence({}, 1.01, 400)
    with pytest.raises(ValueError, match=r"'b' has shape \(2, 2, 5\) and that of 'a' \(3, 2, 5\)"):
        chain_convergence({"a": trace, "b": trace[:2]}, 1.01, 400)
    with pytest.raises(ValueError, match=r"'a' has shape \(2, 5\)"):
        chain_convergence({"a": trace[0]}, 1.01, 400)
    with pytest.raises(ValueError, match="max_rhat is nan"):
        chain_convergence({"a": trace}, math.nan, 400)
    with pytest.raises(ValueError, match="min_effective_sample_size is -1"):
        chain_convergence({"a": trace}, 1.01, -1)


def test_chains_that_never_meet_are_told_apart_however_few_their_draws(rng):
    """Ranks alone cannot: two chains of four draws have a rank-normalised R-hat of 3 at most."""
    apart = torch.from_numpy(rng.random((500, 2, 4)) + 100 * np.arange(2)[:, None])
    limit = rhat_threshold(2, 4)
    assert (rank_normalised_rhat(apart) <= limit).all()
    assert not chain_convergence({"log-joint": apart}, limit, 0).converged.any()
