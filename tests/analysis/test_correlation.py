"""Rank correlations with ties, against scipy, permutations and the closed forms of the bivariate normal."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, norm, spearmanr

from fastdens.analysis.correlation import compare_predictors, correlate, holm


def tied_scores(rng, n):
    """Scores as memorization has them: many zeros, the rest in steps."""
    return np.where(rng.random(n) < 0.4, 0, np.round(rng.random(n), 1))


def bivariate_normal(rng, n, r):
    x, y = rng.normal(size=(2, n))
    return x, r * x + math.sqrt(1 - r * r) * y


def test_each_layer_is_scipys(rng):
    n, n_classes = 300, 7
    labels, scores = rng.integers(0, n_classes - 1, n), tied_scores(rng, n)
    near = rng.normal(size=n) - scores + labels
    every = rng.normal(size=(n, n_classes)) - scores[:, None]
    every[rng.random(n) < 0.05] = -np.inf
    layers = {"near": near, "every": torch.from_numpy(every), "tied": np.round(near)}
    found = correlate(scores, layers, labels, n_resamples=20)
    own = {"near": near, "every": every[np.arange(n), labels], "tied": np.round(near)}
    assert found.layers == ("near", "every", "tied")
    assert found.n_examples.tolist() == [n] * 3 and found.n_left_out.tolist() == [0] * 3
    for at, density in enumerate(own.values()):
        for name, theirs in (("spearman", spearmanr), ("kendall", kendalltau)):
            overall = theirs(scores, density)
            assert getattr(found, name)[at] == pytest.approx(overall.statistic, rel=1e-10)
            assert getattr(found, f"{name}_pvalue")[at] == pytest.approx(overall.pvalue, rel=1e-10)
            by_class = [theirs(scores[labels == c], density[labels == c]).statistic for c in range(n_classes - 1)]
            np.testing.assert_allclose(getattr(found, f"{name}_by_class")[at], [*by_class, np.nan], rtol=1e-10)
            assert getattr(found, f"{name}_within")[at] == pytest.approx(np.mean(by_class), rel=1e-10)
    for name in ("spearman", "kendall", "spearman_within", "kendall_within"):
        expected = holm(getattr(found, f"{name}_pvalue"))
        np.testing.assert_array_equal(getattr(found, f"{name}_pvalue_corrected"), expected)
        assert (getattr(found, f"{name}_low") < getattr(found, name)).all()
        assert (getattr(found, f"{name}_high") > getattr(found, name)).all()
    alone = correlate(scores, near, labels, n_resamples=20)
    assert alone.layers == ("log_prob",)
    # What a layer is found to be does not depend on the others, and nothing on the order of the examples' classes.
    assert alone.spearman_within_low[0] == found.spearman_within_low[0]
    assert alone.spearman_pvalue_corrected[0] == found.spearman_pvalue[0]


def test_one_class_within_is_overall(rng):
    x, y = tied_scores(rng, 60), np.round(rng.normal(size=60), 1)
    found = correlate(x, y, np.full(60, 2), n_resamples=50)
    for part in ("", "_low", "_high"):
        for name in ("spearman", "kendall"):
            assert getattr(found, name + part) == pytest.approx(getattr(found, f"{name}_within{part}"))
    # scipy's p-value for many examples and ties is the normal one.
    assert found.kendall_within_pvalue[0] == pytest.approx(kendalltau(x, y, method="asymptotic").pvalue)
    assert np.isnan(found.spearman_by_class[0, :2]).all()


def test_the_bootstrap_is_that_of_scipy_on_repeated_examples(rng):
    """The interval from ranks by sums is the interval from the resamples themselves."""
    n, n_resamples = 40, 99
    x, y = tied_scores(rng, n), rng.normal(size=n)
    found = correlate(x, y, np.zeros(n, int), n_resamples=n_resamples, confidence=0.8, random_state=3)
    draws = np.random.default_rng(3).random((n_resamples, n))
    resampled = np.array([spearmanr(x[at], y[at]).statistic for at in (draws * n).astype(int)])
    low, high = np.quantile(resampled - resampled.mean() + found.spearman[0], [0.1, 0.9])
    assert found.spearman_low[0] == pytest.approx(low)
    assert found.spearman_high[0] == pytest.approx(high)


def test_intervals_cover_what_they_claim(rng):
    """Four classes of 40 from a bivariate normal, whose rho (Moran 1948) and tau are known in closed form."""
    r, n, n_classes, n_samples = 0.6, 40, 4, 150
    labels = np.repeat(np.arange(n_classes), n)
    tau = 2 / math.pi * math.asin(r)
    rho, rho_within = (
        6 / math.pi * (math.asin(r) + (size - 2) * math.asin(r / 2)) / (size + 1) for size in (n * n_classes, n)
    )
    truth = {"spearman": rho, "kendall": tau, "spearman_within": rho_within, "kendall_within": tau}
    covered = dict.fromkeys(truth, 0)
    for sample in range(n_samples):
        x, y = bivariate_normal(rng, len(labels), r)
        found = correlate(x, y, labels, n_resamples=200, random_state=sample)
        for name, value in truth.items():
            covered[name] += getattr(found, f"{name}_low")[0] <= value <= getattr(found, f"{name}_high")[0]
    # 95 %, less two of a bootstrap this small, less four standard deviations; and not all of it.
    for name, count in covered.items():
        assert 0.93 - 4 * math.sqrt(0.05 * 0.95 / n_samples) < count / n_samples, name
    assert sum(covered.values()) < 4 * n_samples


def test_kendalls_error_is_that_of_many_samples(rng):
    """Its width, with ties, against the deviation over fresh samples."""
    values, widths = [], []
    for _ in range(300):
        x, y = bivariate_normal(rng, 200, 0.5)
        found = correlate(np.maximum(np.round(x, 1), 0), np.round(y), np.zeros(200, int), n_resamples=1)
        values.append(found.kendall[0])
        widths.append(found.kendall_high[0] - found.kendall_low[0])
    # The deviation of 300 values is known to 4 %.
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values, ddof=1), rel=0.18)


def test_pvalues_within_classes_have_the_variance_of_all_permutations():
    scores, density = np.array([0, 0, 0.3, 0.9, 0, 0, 0.5, 0.5, 0.7]), np.array([4, 4, 2, 1, 7, 5, 5, 5, 3.0])
    labels = np.array([0] * 4 + [1] * 5)
    found = correlate(scores, density, labels, n_resamples=1)
    for name, theirs in (("spearman", spearmanr), ("kendall", kendalltau)):
        variance = 0
        for c in (0, 1):
            x, y = scores[labels == c], density[labels == c]
            each = [theirs(x[list(order)], y).statistic for order in permutations(range(len(x)))]
            assert np.mean(each) == pytest.approx(0, abs=1e-12)
            variance += np.var(each) / 2**2
        expected = 2 * norm.sf(abs(getattr(found, f"{name}_within")[0]) / math.sqrt(variance))
        assert getattr(found, f"{name}_within_pvalue")[0] == pytest.approx(expected, rel=1e-10)


def test_an_association_of_class_means_is_none_within(rng):
    labels = np.repeat(np.arange(5), 200)
    found = correlate(tied_scores(rng, 1000) + labels, rng.normal(size=1000) + 3 * labels, labels, n_resamples=50)
    assert found.spearman_pvalue[0] < 1e-6 and found.kendall_low[0] > 0.3
    assert min(found.spearman_within_pvalue[0], found.kendall_within_pvalue[0]) > 1e-6
    assert abs(found.spearman_within[0]) < 0.2


def test_holm_by_hand():
    # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 raised to 0.06, 0.9 * 1.
    np.testing.assert_allclose(holm([0.03, 0.01, 0.9, 0.02]), [0.06, 0.04, 0.9, 0.06])
    np.testing.assert_allclose(holm([0.6, np.nan, 0.7]), [1, np.nan, 1])
    assert holm([]).shape == (0,)


def test_unknown_scores_and_failed_classes_are_left_out_and_counted(rng):
    n = 90
    labels = np.arange(n) % 3
    scores, density = tied_scores(rng, n), rng.normal(size=n)
    scores[:4] = np.nan
    failed = np.where(labels == 1, np.nan, density)
    layers = {"whole": density, "failed": failed, "lost": np.full(n, np.nan), "flat": np.ones(n)}
    found = correlate(scores, layers, labels, n_resamples=30)
    known = ~np.isnan(scores)
    assert found.n_left_out.tolist() == [4, 4 + (known & (labels == 1)).sum(), n, 4]
    assert found.spearman[0] == pytest.approx(spearmanr(scores[known], density[known]).statistic)
    both = known & (labels != 1)
    assert found.kendall[1] == pytest.approx(kendalltau(scores[both], density[both]).statistic)
    assert np.isnan(found.spearman_by_class[1, 1]) and not np.isnan(found.spearman_within[1])
    for name in ("spearman", "kendall_within_low", "kendall_pvalue", "spearman_within_pvalue_corrected"):
        assert np.isnan(getattr(found, name)[2:]).all() and not np.isnan(getattr(found, name)[:2]).any()


def test_classes_too_small_or_of_one_score_have_no_coefficient(rng):
    scores = np.array([0, 0, 0, 0.5, 0.1, 0.2, 0.3, 0.4])
    labels = np.array([0, 0, 0, 1, 2, 2, 3, 3])
    found = correlate(scores, [1, 2, 3, 4, 5, 6.0, 8, 7], labels, n_resamples=20)
    np.testing.assert_array_equal(found.spearman_by_class[0], [np.nan, np.nan, 1, -1])
    np.testing.assert_array_equal(found.kendall_by_class[0], [np.nan, np.nan, 1, -1])
    assert found.spearman_within[0] == 0 and found.kendall_within[0] == 0


def test_the_better_predictor_is_named_with_its_lead(rng):
    n = 2000
    labels = rng.integers(0, 20, n)
    scores = rng.random(n).round(1)
    strong, weak = -scores + 0.3 * rng.normal(size=n), scores + rng.normal(size=n)
    predictors = {"weak": weak, "strong": strong, "of class": rng.normal(size=20)[labels], "flat": np.ones(n)}
    for resample in ("examples", "classes"):
        found = compare_predictors(scores, predictors, labels, n_resamples=200, resample=resample)
        expected = [spearmanr(scores, predictors[name]).statistic for name in ("weak", "strong", "of class")]
        np.testing.assert_allclose(found.rho, [*expected, np.nan], rtol=1e-10)
        assert (found.best, found.runner_up, found.decided) == ("strong", "weak", True)
        assert found.win_share.tolist() == [0, 1, 0, 0]
        assert found.lead == pytest.approx(-expected[1] - expected[0])
        assert 0 < found.lead_low < found.lead < found.lead_high
        assert (found.low[:3] < found.rho[:3]).all() and (found.rho[:3] < found.high[:3]).all()
    missing = {**predictors, "weak": np.where(np.arange(n) < 5, np.nan, weak)}
    found = compare_predictors(scores, missing, labels, n_resamples=5)
    assert (found.n_examples, found.n_left_out) == (n - 5, 5)


def test_equal_predictors_are_rarely_decided(rng):
    n_samples, decided = 200, 0
    labels = np.arange(100) % 4
    for sample in range(n_samples):
        scores = rng.normal(size=100)
        predictors = {name: scores + 2 * rng.normal(size=100) for name in "abc"}
        found = compare_predictors(scores, predictors, labels, n_resamples=200, random_state=sample)
        # In a resample two may be equal, and neither wins.
        assert 0.9 < found.win_share.sum() <= 1 + 1e-12
        decided += found.decided
    # The lead is over all others: at most 5 %, with four deviations of that on top.
    assert decided / n_samples < 0.05 + 4 * math.sqrt(0.05 * 0.95 / n_samples)


def test_a_lead_that_comes_of_few_classes_is_decided_by_drawing_classes(rng):
    """Of one value a class, a predictor is known by as many values as there are classes, not examples."""
    labels = np.repeat(np.arange(12), 100)
    of_class = rng.normal(size=12)
    scores = of_class[labels] + 0.3 * rng.normal(size=12)[labels] + rng.normal(size=1200)
    predictors = {"of class": of_class[labels], "of example": scores + 1.5 * rng.normal(size=1200)}
    examples, classes = (
        compare_predictors(scores, predictors, labels, n_resamples=300, resample=resample)
        for resample in ("examples", "classes")
    )
    assert classes.high[0] - classes.low[0] > 2 * (examples.high[0] - examples.low[0])
    np.testing.assert_array_equal(classes.rho, examples.rho)


def test_errors_say_where_and_what_to_do(rng):
    x, labels = rng.normal(size=10), np.arange(10) % 2
    with pytest.raises(ValueError, match=r"scores has length 9, but log_prob of layer 'deep' has 10 examples: pass"):
        correlate(x[:9], {"deep": x}, labels[:9])
    with pytest.raises(ValueError, match=r"labels has shape \(9,\), but layer 'deep' has 10 examples"):
        correlate(x, {"deep": x}, labels[:9])
    with pytest.raises(ValueError, match=r"layer 'deep' has shape \(10, 1, 1\)"):
        correlate(x, {"deep": x[:, None, None]}, labels)
    with pytest.raises(ValueError, match=r"labels run from 0 to 1, .* under the number of"):
        correlate(x, {"deep": x[:, None]}, labels)
    with pytest.raises(ValueError, match="empty mapping"):
        correlate(x, {}, labels)
    with pytest.raises(ValueError, match="10 values that are not NaN, 1 of them distinct"):
        correlate(np.zeros(10), x, labels)
    with pytest.raises(ValueError, match=r"scores has shape \(2, 5\)"):
        correlate(x.reshape(2, 5), x, labels)
    with pytest.raises(ValueError, match="confidence is 95"):
        correlate(x, x, labels, confidence=95)
    with pytest.raises(ValueError, match="n_resamples is 0"):
        correlate(x, x, labels, n_resamples=0)
    with pytest.raises(ValueError, match=r"length 10, but predictor 'b' has shape \(2,\)"):
        compare_predictors(x, {"a": x, "b": x[:2]}, labels)
    with pytest.raises(ValueError, match="at least two"):
        compare_predictors(x, {"a": x}, labels)
    with pytest.raises(ValueError, match=r"labels has shape \(9,\), but there are 10 examples"):
        compare_predictors(x, {"a": x, "b": x}, labels[:9])
    with pytest.raises(ValueError, match="resample is 'class', but it must be one of 'classes'"):
        compare_predictors(x, {"a": x, "b": x}, labels, resample="class")
    with pytest.raises(ValueError, match="of one class: draw examples"):
        compare_predictors(x, {"a": x, "b": x}, np.zeros(10, int), resample="classes")
    with pytest.raises(ValueError, match="0 examples have a score and all predictors"):
        compare_predictors(x, {"a": x, "b": np.full(10, np.nan)}, labels)
