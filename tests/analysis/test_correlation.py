"""Rank correlations with ties, against scipy, permutations and the closed forms of the bivariate normal."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, norm, spearmanr

from fastdens.analysis import compare_predictors, correlate, holm

COEFFICIENTS = ("spearman", "kendall", "spearman_within", "kendall_within")


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
            coefficient = getattr(found, name)
            assert coefficient.value[at] == pytest.approx(overall.statistic, rel=1e-10)
            assert coefficient.pvalue[at] == pytest.approx(overall.pvalue, rel=1e-10)
            by_class = [theirs(scores[labels == c], density[labels == c]).statistic for c in range(n_classes - 1)]
            np.testing.assert_allclose(getattr(found, f"{name}_by_class")[at], [*by_class, np.nan], rtol=1e-10)
            assert getattr(found, f"{name}_within").value[at] == pytest.approx(np.mean(by_class), rel=1e-10)
    for name in COEFFICIENTS:
        coefficient = getattr(found, name)
        np.testing.assert_array_equal(coefficient.pvalue_corrected, holm(coefficient.pvalue))
        assert (coefficient.low < coefficient.value).all()
        assert (coefficient.high > coefficient.value).all()
    alone = correlate(scores, near, labels, n_resamples=20)
    assert alone.layers == ("log_prob",)
    # What a layer is found to be does not depend on the others, and nothing on the order of the examples' classes.
    assert alone.spearman_within.low[0] == found.spearman_within.low[0]
    assert alone.spearman.pvalue_corrected[0] == found.spearman.pvalue[0]


def test_one_class_within_is_overall(rng):
    x, y = tied_scores(rng, 60), np.round(rng.normal(size=60), 1)
    found = correlate(x, y, np.full(60, 2), n_resamples=50)
    for overall, within in ((found.spearman, found.spearman_within), (found.kendall, found.kendall_within)):
        for one, other in zip(overall[:3], within[:3], strict=True):
            assert one == pytest.approx(other)
    # scipy's p-value for many examples and ties is the normal one.
    assert found.kendall_within.pvalue[0] == pytest.approx(kendalltau(x, y, method="asymptotic").pvalue)
    assert np.isnan(found.spearman_by_class[0, :2]).all()


def test_the_bootstrap_is_that_of_scipy_on_repeated_examples(rng):
    """The interval from ranks by sums is the interval from the resamples themselves."""
    n, n_resamples = 40, 99
    x, y = tied_scores(rng, n), rng.normal(size=n)
    found = correlate(x, y, np.zeros(n, int), n_resamples=n_resamples, confidence=0.8, random_state=3)
    draws = np.random.default_rng(3).random((n_resamples, n))
    resampled = np.array([spearmanr(x[at], y[at]).statistic for at in (draws * n).astype(int)])
    low, high = np.quantile(resampled - resampled.mean() + found.spearman.value[0], [0.1, 0.9])
    assert found.spearman.low[0] == pytest.approx(low)
    assert found.spearman.high[0] == pytest.approx(high)


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
            coefficient = getattr(found, name)
            covered[name] += coefficient.low[0] <= value <= coefficient.high[0]
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
        values.append(found.kendall.value[0])
        widths.append(found.kendall.high[0] - found.kendall.low[0])
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
        within = getattr(found, f"{name}_within")
        expected = 2 * norm.sf(abs(within.value[0]) / math.sqrt(variance))
        assert within.pvalue[0] == pytest.approx(expected, rel=1e-10)


def test_an_association_of_class_means_is_none_within(rng):
    labels = np.repeat(np.arange(5), 200)
    found = correlate(tied_scores(rng, 1000) + labels, rng.normal(size=1000) + 3 * labels, labels, n_resamples=50)
    assert found.spearman.pvalue[0] < 1e-6 and found.kendall.low[0] > 0.3
    assert min(found.spearman_within.pvalue[0], found.kendall_within.pvalue[0]) > 1e-6
    assert abs(found.spearman_within.value[0]) < 0.2


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
    assert found.spearman.value[0] == pytest.approx(spearmanr(scores[known], density[known]).statistic)
    both = known & (labels != 1)
    assert found.kendall.value[1] == pytest.approx(kendalltau(scores[both], density[both]).statistic)
    assert np.isnan(found.spearman_by_class[1, 1]) and not np.isnan(found.spearman_within.value[1])
    for name in COEFFICIENTS:
        for part in getattr(found, name):
            assert np.isnan(part[2:]).all() and not np.isnan(part[:2]).any()


def test_classes_too_small_or_of_one_score_have_no_coefficient(rng):
    scores = np.array([0, 0, 0, 0.5, 0.1, 0.2, 0.3, 0.4])
    labels = np.array([0, 0, 0, 1, 2, 2, 3, 3])
    found = correlate(scores, [1, 2, 3, 4, 5, 6.0, 8, 7], labels, n_resamples=20)
    np.testing.assert_array_equal(found.spearman_by_class[0], [np.nan, np.nan, 1, -1])
    np.testing.assert_array_equal(found.kendall_by_class[0], [np.nan, np.nan, 1, -1])
    assert found.spearman_within.value[0] == 0 and found.kendall_within.value[0] == 0


def test_the_better_predictor_is_named_with_its_lead(rng):
    n = 2000
    labels = rng.integers(0, 20, n)
    scores = rng.random(n).round(1)
    strong, weak = -scores + 0.3 * rng.normal(size=n), scores + rng.normal(size=n)
    predictors = {"weak": weak, "strong": strong, "of class": rng.normal(size=20)[labels], "flat": np.ones(n)}
    for resample in ("examples", "classes"):
        found = compare_predictors(scores, predictors, labels, n_resamples=200, resample=resample)
        expected = [spearmanr(scores, predictors[name]).statistic for name in ("weak", "strong", "of class")]
        np.testing.assert_allclose(found.rho.value, [*expected, np.nan], rtol=1e-10)
        assert (found.best, found.runner_up, found.decided) == ("strong", "weak", True)
        assert found.win_share.tolist() == [0, 1, 0, 0]
        assert found.lead.value == pytest.approx(-expected[1] - expected[0])
        assert 0 < found.lead.low < found.lead.value < found.lead.high
        rho, low, high = (part[:3] for part in found.rho)
        assert (low < rho).all() and (rho < high).all()
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
    """Of one value per class, a predictor is known by as many values as there are classes, not examples."""
    labels = np.repeat(np.arange(12), 100)
    of_class = rng.normal(size=12)
    scores = of_class[labels] + 0.3 * rng.normal(size=12)[labels] + rng.normal(size=1200)
    predictors = {"of class": of_class[labels], "of example": scores + 1.5 * rng.normal(size=1200)}
    examples, classes = (
        compare_predictors(scores, predictors, labels, n_resamples=300, resample=resample)
        for resample in ("examples", "classes")
    )
    assert classes.rho.high[0] - classes.rho.low[0] > 2 * (examples.rho.high[0] - examples.rho.low[0])
    np.testing.assert_array_equal(classes.rho.value, examples.rho.value)


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
