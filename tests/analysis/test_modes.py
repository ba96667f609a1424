"""Groups of classes: found where they are, not announced where they are not, and how firm they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from fastdens.analysis import find_modes, mode_intervals
from fastdens.analysis._unimodality import (
    critical_bandwidth_pvalue,
    find_valley,
    fit_two_gaussians,
    unimodal_log_likelihood,
)


def standardized(x):
    return np.sort((x - x.mean()) / x.std())


ONE_MODE = {
    "normal": lambda rng: rng.normal(size=100),
    "uniform": lambda rng: rng.uniform(size=100),
    "exponential": lambda rng: rng.exponential(size=100),
    "heavy tails": lambda rng: rng.standard_t(3, size=100),
    "log-normal": lambda rng: rng.lognormal(size=100),
    "beta": lambda rng: rng.beta(2, 2, size=100),
    "outlying classes": lambda rng: rng.normal(size=100) + 8 * (np.arange(100) < 5),
}


@pytest.mark.parametrize("shape", ONE_MODE)
def test_one_mode_is_one_group(rng, shape):
    announced = sum(find_modes(ONE_MODE[shape](rng)).n_groups == 2 for _ in range(120))
    # Measured by benchmarks/mode_test.py: at most 4 %. Of 120 that is 4.8, with a binomial standard deviation of 2.15.
    assert announced <= 4.8 + 4 * 2.15


@pytest.mark.parametrize(("share", "least"), [(0.5, 0.99), (0.3, 0.91), (0.2, 0.78)])
def test_two_groups_four_deviations_apart_are_found_and_divided(rng, share, least):
    n_batches, found, misplaced = 120, 0, []
    for _ in range(n_batches):
        upper = rng.permutation(np.arange(100) < 100 * share)
        modes = find_modes(rng.normal(size=100) + 4 * upper)
        found += modes.n_groups == 2
        if modes.n_groups == 2:
            misplaced.append((modes.group != upper).mean())
    assert found >= n_batches * least - 4 * math.sqrt(n_batches * least * (1 - least))
    # Two classes in a hundred lie on the wrong side of the middle; a line in a tail would misplace tens.
    assert np.mean(misplaced) < 0.06


def test_the_line_is_the_midpoint_of_the_largest_gap():
    means = np.concatenate([np.linspace(0, 1, 30), np.linspace(11, 12, 20)])[::-1]
    modes = find_modes(means)
    assert modes.n_groups == 2 and modes.line == pytest.approx(6)
    assert modes.group.tolist() == [1] * 20 + [0] * 30
    shifted = find_modes(1e3 * means - 1e6)
    assert shifted.n_groups == 2 and shifted.line == pytest.approx(6e3 - 1e6)
    assert shifted.bic_gain == pytest.approx(modes.bic_gain, rel=1e-6)
    assert find_modes(-means).group.tolist() == [0] * 20 + [1] * 30


def test_the_line_is_between_the_groups_though_an_outlying_class_leaves_a_larger_gap():
    means = np.concatenate([np.linspace(0, 2, 30), np.linspace(6, 8, 30), [13.5]])
    modes = find_modes(means)
    assert modes.n_groups == 2 and modes.line == pytest.approx(4)
    assert modes.group.sum() == 31


def test_two_close_groups_of_a_few_classes_need_more_than_two_of_them(rng):
    far = np.concatenate([rng.normal(size=18), 30 + rng.normal(size=2)])
    assert find_modes(far).n_groups == 1
    assert find_modes(np.concatenate([far, [30.5, 29.5]])).n_groups == 2


def test_the_same_random_state_gives_the_same_modes_whatever_the_order(rng):
    means = rng.normal(size=100) + 3.5 * (np.arange(100) < 40)
    modes = find_modes(means, random_state=3)
    order = rng.permutation(100)
    again = find_modes(means[order], random_state=3)
    assert again.pvalue == modes.pvalue and again.line == pytest.approx(modes.line, nan_ok=True)
    assert np.array_equal(again.group, modes.group[order])


def test_two_gaussians_reach_the_likelihood_of_scikit_learn(rng):
    mixture = pytest.importorskip("sklearn.mixture")
    for own_variances in (False, True):
        scale = np.where(np.arange(200) < 60, 0.4 if own_variances else 1, 1)
        x = standardized(scale * rng.normal(size=200) + 5 * (np.arange(200) < 60))
        two = fit_two_gaussians(x)
        # Of equal variances or of own ones, whichever has the lower BIC: now and then equal ones lose by chance.
        fits = {
            n_parameters: mixture.GaussianMixture(2, covariance_type=kind, n_init=3, tol=1e-8).fit(x[:, None])
            for n_parameters, kind in ((4, "tied"), (5, "full"))
        }
        expected = min(fits, key=lambda n: fits[n].bic(x[:, None]))
        assert two.n_parameters == expected and (expected == 5 or not own_variances)
        other = fits[expected]
        assert two.log_likelihood == pytest.approx(200 * other.score(x[:, None]), abs=1e-2)
        assert np.sort(two.mean) == pytest.approx(np.sort(other.means_[:, 0]), abs=1e-2)
        assert find_modes(x).bic_gain == pytest.approx(
            mixture.GaussianMixture(1).fit(x[:, None]).bic(x[:, None]) - other.bic(x[:, None]), abs=0.05
        )


def test_a_valley_is_where_equal_gaussians_stand_more_than_two_deviations_apart(rng):
    x = standardized(rng.normal(size=100) + 6 * (np.arange(100) < 50))
    two = fit_two_gaussians(x)._replace(weight=np.array([0.5, 0.5]), variance=np.ones(2))
    assert find_valley(two._replace(mean=np.array([0, 1.95]))) is None
    valley = find_valley(two._replace(mean=np.array([4.0, 0.0])))

    def density(t):
        return stats.norm.pdf(t) + stats.norm.pdf(t, 4)

    mode = optimize.minimize_scalar(lambda t: -density(t), bounds=(-1, 1.5), method="bounded").x
    assert valley is not None and valley == pytest.approx((mode, 4 - mode), abs=0.03)


def test_the_flexible_density_is_the_maximum_likelihood_of_its_family(rng):
    # scipy's generalized normal is the symmetric member of the family, its Laplace and exponential special cases.
    for draw in (rng.normal, rng.laplace):
        x = standardized(draw(size=300))
        symmetric = stats.gennorm.logpdf(x, *stats.gennorm.fit(x)).sum()
        assert symmetric - 0.5 < unimodal_log_likelihood(x) < symmetric + 6
    x = standardized(rng.exponential(size=300))
    assert unimodal_log_likelihood(x) > stats.expon.logpdf(x, *stats.expon.fit(x)).sum() - 0.5
    x = standardized(rng.uniform(size=300))
    assert unimodal_log_likelihood(x) >= 2 - 300 * math.log(np.ptp(x))


def test_the_kernel_test_agrees_with_one_that_draws_points(rng):
    x = standardized(rng.normal(size=60) + 3 * (np.arange(60) < 30))
    grid = np.linspace(-4, 4, 801)

    def modes(sample, bandwidth):
        density = np.exp(-0.5 * ((grid[:, None] - sample) / bandwidth) ** 2).sum(1)
        troughs = np.flatnonzero((density[1:-1] < density[:-2]) & (density[1:-1] <= density[2:])) + 1
        below = np.array([(sample < grid[t]).sum() for t in troughs])
        return ((below > 3) & (below < 57)).any()

    bandwidth = optimize.bisect(lambda h: 0.5 - modes(x, h), 0.05, 2, xtol=1e-3)
    drawn = x[rng.integers(60, size=(1000, 60))] + bandwidth * rng.normal(size=(1000, 60))
    drawn /= math.hypot(1, bandwidth)
    share = np.mean([modes(sample, bandwidth) for sample in drawn])
    # Binomial deviations of both, and the bandwidths differ by the binning.
    assert critical_bandwidth_pvalue(x, rng) == pytest.approx(
        share, abs=0.02 + 5 * math.sqrt(share * (1 - share) / 350)
    )


def test_few_equal_and_bad_means():
    assert find_modes([1.0, 2.0, 9.0]).n_groups == 1
    equal = find_modes(np.ones(20))
    assert equal.n_groups == 1 and np.isnan([equal.line, equal.pvalue]).all()
    tied = find_modes([1.0] * 20 + [2.0] * 20)
    assert tied.n_groups == 2 and tied.line == pytest.approx(1.5)
    with pytest.raises(ValueError, match="class 2 is nan"):
        find_modes([1.0, 2.0, np.nan, 4.0])
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        find_modes(np.ones((2, 2)))


@pytest.mark.slow
def test_intervals_of_class_means_cover_the_truth(rng):
    truth = rng.normal(size=100)
    labels = np.repeat(np.arange(100), 60)
    n_batches, covered = 4, 0
    for state in range(n_batches):
        values = truth[labels] + rng.normal(size=6000)
        intervals = mode_intervals(values, labels, n_resamples=400, random_state=state, confidence=0.9)
        covered += ((intervals.mean_low < truth) & (truth < intervals.mean_high)).sum()
    # 89 % at this size: a percentile interval is narrow by a factor sqrt(59 / 60) and by the t distribution.
    assert covered / (100 * n_batches) == pytest.approx(0.89, abs=4 * math.sqrt(0.89 * 0.11 / (100 * n_batches)))


def test_membership_is_sure_of_clear_classes_and_undecided_on_the_line(rng):
    means = np.concatenate([np.linspace(0, 1, 20), np.linspace(9, 10, 20), [5.0]])
    labels = np.repeat(np.arange(41), 80)
    noise = rng.normal(size=(41, 80))
    noise -= noise.mean(1, keepdims=True)
    values = (means[:, None] + np.concatenate([0.2 * noise[:40], 3 * noise[40:]])).ravel()
    shuffled = rng.permutation(len(labels))
    intervals = mode_intervals(values[shuffled], labels[shuffled])
    assert np.all(intervals.membership[:20] == 0) and np.all(intervals.membership[20:40] == 1)
    # The lines run from its mean to one group or the other, so it is above in half of the resamples.
    assert intervals.membership[40] == pytest.approx(0.5, abs=0.1)
    assert 2.5 < intervals.line_low < 3.1 and 6.9 < intervals.line_high < 7.5
    assert intervals.n_groups_share == 1


def test_intervals_are_of_the_same_resamples_for_the_same_state(rng):
    labels = rng.permutation(np.repeat(np.arange(10), 12))
    values = rng.normal(size=120) + 9 * (labels < 5)
    first, again = (mode_intervals(values, labels, random_state=4, n_resamples=50) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)
    other = mode_intervals(values, labels, random_state=5, n_resamples=50)
    assert not np.array_equal(first.mean_low, other.mean_low)


def test_one_group_has_no_line_and_no_membership(rng):
    labels = np.repeat(np.arange(30), 20)
    intervals = mode_intervals(rng.normal(size=600), labels, n_resamples=60)
    assert math.isnan(intervals.line_low) and math.isnan(intervals.line_high)
    assert np.isnan(intervals.membership).all() and np.isfinite(intervals.mean_low).all()
    assert intervals.n_groups_share < 0.3


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        ([1.0, 2.0, 3.0], [0, 0], "3 examples"),
        ([1.0, 2.0, np.nan, 4.0], [0, 0, 1, 1], "example 2, of class 1, is nan"),
        ([1.0, 2.0, 3.0, 4.0], [0, 0, 2, 2], "class 1 has 0 examples"),
        ([1.0, 2.0, 3.0], [0, 0, 1], "class 1 has 1 example"),
        ([], np.zeros(0, int), "at least one"),
    ],
)
def test_bad_examples_are_named(values, labels, message):
    with pytest.raises(ValueError, match=message):
        mode_intervals(np.array(values), np.array(labels))
    with pytest.raises(ValueError, match=r"confidence is 95"):
        mode_intervals([1.0, 2.0], [0, 0], confidence=95)
