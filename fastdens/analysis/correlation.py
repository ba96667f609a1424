"""Does memorization go with low density, at which layer, and does another quantity predict it better?

All coefficients are of ranks. A resample is the number of times each example is drawn, so that the ranks in it follow
from those of the sample by sums, with no sorting.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis._arrays import as_labels, as_numpy
from fastdens.errors import check_integer
from fastdens.kernels.options import suggest

# Two always correlate at 1 or -1.
_FEWEST_EXAMPLES = 3


@dataclass(frozen=True)
class Correlations:
    """Correlation of a score with the log-density, at each of L layers.

    Attributes
    ----------
    layers : tuple of str
        Names of the layers.
    spearman, kendall : ndarray
        [L], Spearman's rho and Kendall's tau-b over all examples. Each has beside it, also [L], ``_low`` and ``_high``,
        its interval, ``_pvalue`` of no association, and ``_pvalue_corrected``, by Holm's method, for the L layers.
    spearman_within, kendall_within : ndarray
        [L], the same within a class, averaged over the classes that have a coefficient.
    spearman_by_class, kendall_by_class : ndarray
        [L, C], the coefficient of each class; NaN for a class of fewer than two examples, or all of one value.
    n_examples, n_left_out : ndarray
        [L], examples used, and examples left out since their score or log-density is NaN.
    """

    layers: tuple[str, ...]
    spearman: NDArray[np.float64]
    spearman_low: NDArray[np.float64]
    spearman_high: NDArray[np.float64]
    spearman_pvalue: NDArray[np.float64]
    spearman_pvalue_corrected: NDArray[np.float64]
    kendall: NDArray[np.float64]
    kendall_low: NDArray[np.float64]
    kendall_high: NDArray[np.float64]
    kendall_pvalue: NDArray[np.float64]
    kendall_pvalue_corrected: NDArray[np.float64]
    spearman_within: NDArray[np.float64]
    spearman_within_low: NDArray[np.float64]
    spearman_within_high: NDArray[np.float64]
    spearman_within_pvalue: NDArray[np.float64]
    spearman_within_pvalue_corrected: NDArray[np.float64]
    kendall_within: NDArray[np.float64]
    kendall_within_low: NDArray[np.float64]
    kendall_within_high: NDArray[np.float64]
    kendall_within_pvalue: NDArray[np.float64]
    kendall_within_pvalue_corrected: NDArray[np.float64]
    spearman_by_class: NDArray[np.float64]
    kendall_by_class: NDArray[np.float64]
    n_examples: NDArray[np.int64]
    n_left_out: NDArray[np.int64]


@dataclass(frozen=True)
class PredictorComparison:
    """Which of P predictors goes with a score most closely.

    Attributes
    ----------
    names : tuple of str
        Names of the predictors.
    rho, low, high : ndarray
        [P], Spearman's rho of each with the score, over all examples, and its interval; NaN for one of a single value.
    win_share : ndarray
        [P], share of the resamples in which the absolute rho is larger than those of all others.
    best, runner_up : str
        The predictors of largest and second largest absolute rho.
    lead, lead_low, lead_high : float
        Absolute rho of the best less that of the best of the others, and its interval.
    decided : bool
        The interval of the lead is above zero.
    n_examples, n_left_out : int
        Examples used, and examples left out since their score or a predictor is NaN.
    """

    names: tuple[str, ...]
    rho: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    win_share: NDArray[np.float64]
    best: str
    runner_up: str
    lead: float
    lead_low: float
    lead_high: float
    decided: bool
    n_examples: int
    n_left_out: int


def correlate(
    scores: ArrayLike | Tensor,
    log_prob: ArrayLike | Tensor | Mapping[str, ArrayLike | Tensor],
    labels: ArrayLike | Tensor,
    *,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    random_state: int = 0,
) -> Correlations:
    """Rank correlation of a score with ``log p(x_i | its class)`` at each layer, over all examples and within classes.

    Parameters
    ----------
    scores : array or Tensor
        [N], of each example, such as its memorization score. NaN where unknown.
    log_prob : array or Tensor, or mapping of str to them
        [N], log-density (nats) of each example under its own class, or [N, M], under every class; of one layer, or of
        each layer by its name. NaN where unknown; minus infinity is a rank like any other.
    labels : array or Tensor
        [N] integers from 0.
    confidence : float
        Level of the intervals.
    n_resamples : int
        Bootstrap resamples behind the intervals of Spearman's rho.
    random_state : int
        Seed. The result of a layer does not depend on which others are given.

    Returns
    -------
    Correlations
        A single array is the layer ``"log_prob"``. Coefficients are NaN at a layer where under three examples have a
        log-density or all have the same.

    Raises
    ------
    ValueError
        If lengths disagree, or fewer than three examples have a score or all have the same.
    ImportError
        If scipy is missing.

    Notes
    -----
    Ties share the mean of their ranks in rho, and are corrected for in tau-b.

    Intervals of rho are bootstrap percentiles: examples are drawn anew, within a class as many as it has, and the mean
    of the resamples is moved onto the coefficient. Those of tau are normal, with the variance of the infinitesimal
    jackknife (the delta method on the three pair statistics of tau-b), which takes the time of a few resamples.
    p-values over all examples are scipy's two-sided ones. Within classes they are normal, with the exact variance under
    permutation inside each class: ``1 / (n_c - 1)`` for rho, and Kendall's with ties for tau.

    rho of a class of n examples is closer to zero by a share of about 1 / n than that of endless ones (Moran), and so
    are its average and the interval of this; tau without ties is not.

    References
    ----------
    Spearman, The Proof and Measurement of Association between Two Things, American Journal of Psychology 15, 1904.
    Kendall, The Treatment of Ties in Ranking Problems, Biometrika 33, 1945. Efron & Tibshirani, An Introduction to the
    Bootstrap, 1993. Jaeckel, The Infinitesimal Jackknife, Bell Laboratories, 1972. Holm, A Simple Sequentially
    Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979. Moran, Rank Correlation and
    Product-Moment Correlation, Biometrika 35, 1948.
    """
    try:
        from scipy.stats import kendalltau, spearmanr
    except ImportError:
        raise ImportError("correlate needs scipy, not installed: pip install 'fastdens[analysis]'.") from None
    _check_resampling(confidence, n_resamples)
    score_values = _as_scores(scores)
    named = log_prob if isinstance(log_prob, Mapping) else {"log_prob": log_prob}
    layers = {name: as_numpy(values) for name, values in named.items()}
    if not layers:
        raise ValueError("log_prob is an empty mapping: pass the log-density of at least one layer.")
    own = {name: _own_class(name, values, score_values, labels) for name, values in layers.items()}
    classes = as_labels(labels, len(score_values))
    n_classes = max([int(classes.max(initial=-1)) + 1, *(x.shape[1] for x in layers.values() if x.ndim == 2)])

    parts = ("", "_low", "_high", "_pvalue", "_pvalue_corrected")
    statistics = ("spearman", "kendall", "spearman_within", "kendall_within")
    found: dict[str, Any] = {name + part: np.full(len(own), np.nan) for name in statistics for part in parts}
    by_class = {name: np.full((len(own), n_classes), np.nan) for name in ("spearman_by_class", "kendall_by_class")}
    n_examples = np.zeros(len(own), np.int64)
    for at, density in enumerate(own.values()):
        known = ~(np.isnan(density) | np.isnan(score_values))
        n_examples[at] = known.sum()
        if n_examples[at] < _FEWEST_EXAMPLES:
            continue
        x, y = _dense_ranks(score_values[known]), _dense_ranks(density[known])
        together, apart = _Pairs.sort(x, y, np.zeros(len(x), np.int64)), _Pairs.sort(x, y, classes[known])
        estimates = (
            _spearman(together, confidence, n_resamples, np.random.default_rng(random_state)),
            _kendall(together, confidence),
            _spearman(apart, confidence, n_resamples, np.random.default_rng(random_state)),
            _kendall(apart, confidence),
        )
        for name, estimate in zip(statistics, estimates, strict=True):
            for part, value in zip(parts[:4], estimate[:4], strict=True):
                found[name + part][at] = value
        for coefficients, estimate in zip(by_class.values(), estimates[2:], strict=True):
            coefficients[at, apart.names] = estimate.each
        # Of one value, they are all ranked zero.
        if x.any() and y.any():
            found["spearman_pvalue"][at] = spearmanr(x, y).pvalue
            found["kendall_pvalue"][at] = kendalltau(x, y).pvalue
    for name in statistics:
        found[name + "_pvalue_corrected"] = holm(found[name + "_pvalue"])
    n_left_out = len(score_values) - n_examples
    return Correlations(tuple(own), **found, **by_class, n_examples=n_examples, n_left_out=n_left_out)


def compare_predictors(
    scores: ArrayLike | Tensor,
    predictors: Mapping[str, ArrayLike | Tensor],
    labels: ArrayLike | Tensor,
    *,
    resample: Literal["examples", "classes"] = "examples",
    confidence: float = 0.95,
    n_resamples: int = 1000,
    random_state: int = 0,
) -> PredictorComparison:
    """Which predictor has the largest absolute Spearman correlation with a score, and is that lead more than chance?

    Parameters
    ----------
    scores : array or Tensor
        [N], of each example, such as its memorization score. NaN where unknown.
    predictors : mapping of str to array or Tensor
        At least two, [N] each, such as log-density, distance to the nearest neighbours, or the relative entropy of the
        class of each example. NaN where unknown; an example that any of them lacks is left out of all.
    labels : array or Tensor
        [N] integers from 0.
    resample : {"examples", "classes"}
        What is drawn anew: examples, as many of each class as there are, for an answer about these classes; or whole
        classes, for an answer about classes like these. The latter is the wider, most of all for a predictor that has
        one value a class, and needs a few dozen classes.
    confidence : float
        Level of the intervals.
    n_resamples : int
        Bootstrap resamples. All predictors are compared on the same ones.
    random_state : int
        Seed.

    Returns
    -------
    PredictorComparison

    Raises
    ------
    ValueError
        If lengths disagree, there is one predictor only, fewer than three examples have a score and all predictors or
        all scores are the same, or classes are to be drawn where there is one.

    Notes
    -----
    In each resample the lead is over the best of the others there, not over the runner-up of the sample: it is above
    zero exactly where the best one wins, and the more rivals are close, the harder it is to be decided.

    References
    ----------
    Efron & Tibshirani, An Introduction to the Bootstrap, 1993. Davison & Hinkley, Bootstrap Methods and their
    Application, 1997, section 3.8 (resampling of groups).
    """
    _check_resampling(confidence, n_resamples)
    if resample not in ("examples", "classes"):
        raise ValueError(
            f"resample is {resample!r}, but it must be one of {suggest(str(resample), ['examples', 'classes'])}."
        )
    score_values = _as_scores(scores)
    if len(predictors) < 2:
        raise ValueError(f"predictors has {len(predictors)} entry: pass at least two to compare.")
    values = []
    for name, given in predictors.items():
        predictor = as_numpy(given).astype(np.float64)
        if predictor.shape != score_values.shape:
            raise ValueError(
                f"scores has length {len(score_values)}, but predictor {name!r} has shape {predictor.shape}: pass one "
                "value for each example, a quantity of the class repeated for its examples."
            )
        values.append(predictor)
    classes = _as_classes(labels, "there are", score_values)
    known = np.logical_and.reduce([~np.isnan(value) for value in (score_values, *values)])
    by_class = np.argsort(classes[known], kind="stable")
    sizes = np.unique(classes[known], return_counts=True)[1]
    if resample == "classes" and len(sizes) < 2:
        raise ValueError("all examples are of one class: draw examples instead, with resample='examples'.")
    if known.sum() < _FEWEST_EXAMPLES:
        raise ValueError(
            f"{known.sum()} examples have a score and all predictors: at least {_FEWEST_EXAMPLES} are needed, so leave "
            "out the predictor that is NaN at most of them."
        )
    whole = np.zeros(1, np.int64)
    rankings = [
        _Ranking.sort(_dense_ranks(value[known][by_class]), np.zeros(len(by_class), np.int64))
        for value in (score_values, *values)
    ]

    def rho_in(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """Spearman's rho of each predictor in a resample, [P]."""
        score_ranks, *predictor_ranks = (ranking.centred_ranks(draws, whole) for ranking in rankings)
        return np.concatenate([_correlation(score_ranks, ranks, draws, whole) for ranks in predictor_ranks])

    rng = np.random.default_rng(random_state)
    drawn = _draw_classes if resample == "classes" else _draw_examples
    rho = rho_in(np.ones(len(by_class), np.int64))
    resampled = np.array([rho_in(draws) for draws in drawn(sizes, n_resamples, rng)])
    low, high = _percentiles(resampled, confidence)
    # Of one value, a predictor orders nothing: it competes as a correlation of zero.
    leads = _leads(np.nan_to_num(np.abs(resampled)))
    lead = _leads(np.nan_to_num(np.abs(rho))[None])[0]
    best, runner_up = np.argsort(-np.nan_to_num(np.abs(rho)), kind="stable")[:2]
    lead_low, lead_high = _percentiles(leads[:, [best]], confidence)[:, 0]
    names = tuple(predictors)
    return PredictorComparison(
        names,
        rho,
        low,
        high,
        win_share=(leads > 0).mean(0),
        best=names[best],
        runner_up=names[runner_up],
        lead=float(lead[best]),
        lead_low=float(lead_low),
        lead_high=float(lead_high),
        decided=bool(lead_low > 0),
        n_examples=len(by_class),
        n_left_out=len(known) - len(by_class),
    )


def holm(pvalues: ArrayLike) -> NDArray[np.float64]:
    """p-values [L] corrected so that any false rejection among them is as rare as the level says.

    The k-th smallest of L is multiplied by L - k + 1 and raised to the one before it. NaN stays NaN and counts for
    nothing.

    References
    ----------
    Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    values = np.asarray(pvalues, np.float64)
    order = np.argsort(values)
    n_tests = int(np.isfinite(values).sum())
    corrected = np.full(len(values), np.nan)
    raised = np.maximum.accumulate(values[order[:n_tests]] * np.arange(n_tests, 0, -1))
    corrected[order[:n_tests]] = np.minimum(raised, 1)
    return corrected


class _Estimate(NamedTuple):
    """A coefficient averaged over strata, its interval and p-value, and that of each stratum."""

    value: float
    low: float
    high: float
    pvalue: float
    each: NDArray[np.float64]


@dataclass(frozen=True)
class _Ranking:
    """Groups of equal values in ascending order, stratum after stratum; strata are contiguous.

    ``order`` [N] sorts the examples; group g is at ``order[starts[g]:ends[g]]``; ``group`` [N] is that of each example,
    ``stratum`` [G] that of each group.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    group: NDArray[np.int64]
    stratum: NDArray[np.int64]

    @classmethod
    def sort(cls, values: NDArray[np.int64], stratum: NDArray[np.int64]) -> _Ranking:
        order = np.lexsort((values, stratum))
        ordered, strata = values[order], stratum[order]
        first = np.ones(len(values), bool)
        first[1:] = (ordered[1:] != ordered[:-1]) | (strata[1:] != strata[:-1])
        starts = np.flatnonzero(first)
        group = np.empty(len(values), np.int64)
        group[order] = np.cumsum(first) - 1
        return cls(order, starts, np.append(starts[1:], len(values)), group, strata[starts])

    def centred_ranks(self, draws: NDArray[np.int64], strata: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rank of each example within its stratum in a resample, ties sharing theirs, less the mean rank there."""
        drawn = np.add.reduceat(draws[self.order], self.starts)
        size = np.add.reduceat(draws, strata)
        before = np.cumsum(drawn) - drawn - (np.cumsum(size) - size)[self.stratum]
        return (before + (drawn - size[self.stratum]) / 2)[self.group]


@dataclass(frozen=True)
class _Pairs:
    """Two rankings of the same examples, these sorted by stratum; ``names`` [S] and ``starts`` [S] of the strata."""

    x: _Ranking
    y: _Ranking
    names: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def sort(cls, x: NDArray[np.int64], y: NDArray[np.int64], strata: NDArray[np.int64]) -> _Pairs:
        by_stratum = np.argsort(strata, kind="stable")
        names, starts, stratum, sizes = np.unique(strata[by_stratum], True, True, True)
        return cls(_Ranking.sort(x[by_stratum], stratum), _Ranking.sort(y[by_stratum], stratum), names, starts, sizes)

    def spearman(self, draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """Spearman's rho of each stratum in a resample, [S]; NaN where a ranking has one group."""
        x, y = self.x.centred_ranks(draws, self.starts), self.y.centred_ranks(draws, self.starts)
        return _correlation(x, y, draws, self.starts)


def _correlation(
    x: NDArray[np.float64], y: NDArray[np.float64], draws: NDArray[np.int64], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Pearson's correlation of centred values in each stratum, [S]."""
    drawn_x = draws * x
    squares = np.add.reduceat(drawn_x * x, starts) * np.add.reduceat(draws * y * y, starts)
    with np.errstate(invalid="ignore"):
        return np.add.reduceat(drawn_x * y, starts) / np.sqrt(squares)


def _spearman(pairs: _Pairs, confidence: float, n_resamples: int, rng: np.random.Generator) -> _Estimate:
    each = pairs.spearman(np.ones(len(pairs.x.order), np.int64))
    resampled = np.array([_mean(pairs.spearman(draws)) for draws in _draw_examples(pairs.sizes, n_resamples, rng)])
    # Examples drawn twice agree with themselves, so that resamples of small strata correlate too well on average.
    centred = resampled - _mean(resampled) + _mean(each)
    low, high = _percentiles(centred[:, None], confidence).clip(-1, 1)
    with np.errstate(divide="ignore"):
        pvalue = _permutation_pvalue(each, 1 / (pairs.sizes - 1))
    return _Estimate(_mean(each), float(low[0]), float(high[0]), pvalue, each)


def _kendall(pairs: _Pairs, confidence: float) -> _Estimate:
    """Kendall's tau-b; in each stratum, with s_i the sum over j of ``sign(x_i - x_j) sign(y_i - y_j)``, and u_i and
    v_i the numbers of j with another x and another y, ``tau = sum s / sqrt(sum u sum v)``.
    """
    x, y, sizes = pairs.x, pairs.y, pairs.sizes
    # In order of x within strata; there, y by its group within the stratum.
    group = x.group[x.order]
    stratum = x.stratum[group]
    values = y.group[x.order]
    same_x, same_y = (x.ends - x.starts)[group], (y.ends - y.starts)[values]
    values = values - np.searchsorted(y.stratum, np.arange(len(sizes)))[stratum]
    begin, end = pairs.starts[stratum], (pairs.starts + sizes)[stratum]
    s = _net_below(values, begin, x.starts[group]) - _net_below(values, x.ends[group], end)

    def total(quantity: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.add.reduceat(quantity, pairs.starts).astype(np.float64)

    u, v = sizes[stratum] - same_x, sizes[stratum] - same_y
    n = sizes.astype(np.float64)
    sum_u, sum_v = total(u), total(v)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(sum_u * sum_v)
        each = total(s) / scale
        # Influence of each example on tau, by the delta method.
        influence = n[stratum] * (2 * (s / scale[stratum]) - each[stratum] * (u / sum_u[stratum] + v / sum_v[stratum]))
        variance = np.add.reduceat(influence**2, pairs.starts) / (n * (n - 1))
        # Variance of sum s / 2 under permutation (Kendall, Rank Correlation Methods, chapter 4).
        quadratic = total(same_x - 1) * total(same_y - 1) / (2 * n * (n - 1))
        cubic = total((same_x - 1) * (same_x - 2)) * total((same_y - 1) * (same_y - 2))
        cubic = cubic / (9 * n * (n - 1) * np.maximum(n - 2, 1))
        tied = total((same_x - 1) * (2 * same_x + 5)) + total((same_y - 1) * (2 * same_y + 5))
        null_variance = 4 * ((n * (n - 1) * (2 * n + 5) - tied) / 18 + cubic + quadratic) / scale**2
    value = _mean(each)
    defined = ~np.isnan(each)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance[defined].sum()) / max(int(defined.sum()), 1)
    low, high = max(value - reach, -1.0), min(value + reach, 1.0)
    return _Estimate(value, low, high, _permutation_pvalue(each, null_variance), each)


def _net_below(values: NDArray[np.int64], start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of ``values[start_i:stop_i]`` are below ``values[i]``, less how many are above."""
    below, not_above = _count_below(values, start, stop, np.stack([values, values + 1]))
    return below + not_above - (stop - start)


def _count_below(
    values: NDArray[np.int64], start: NDArray[np.int64], stop: NDArray[np.int64], threshold: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many of ``values[start:stop]`` are below the threshold, for arrays of all three; O(log) each.

    The values are sorted stably by one bit after the other, from the highest down, and each range is followed
    (Claude, Navarro & Ordóñez, The Wavelet Matrix, Information Systems 47, 2015).
    """
    count = np.zeros(threshold.shape, np.int64)
    start, stop = np.broadcast_to(start, count.shape), np.broadcast_to(stop, count.shape)
    for bit in reversed(range(int(threshold.max(initial=0)).bit_length())):
        one = (values >> bit & 1).astype(bool)
        zeros = np.concatenate([[0], np.cumsum(~one)])
        zeros_start, zeros_stop = zeros[start], zeros[stop]
        up = (threshold >> bit & 1).astype(bool)
        count += np.where(up, zeros_stop - zeros_start, 0)
        start = np.where(up, zeros[-1] + start - zeros_start, zeros_start)
        stop = np.where(up, zeros[-1] + stop - zeros_stop, zeros_stop)
        values = np.concatenate([values[~one], values[one]])
    return count


def _draw_examples(sizes: NDArray[np.int64], n_resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """How often each example is drawn, as many of each stratum as it has, [N]; resample after resample."""
    size, start = np.repeat(sizes, sizes), np.repeat(np.cumsum(sizes) - sizes, sizes)
    for _ in range(n_resamples):
        # Rounded down before the start is added: a sum just under an integer might be rounded up to it.
        yield np.bincount((rng.random(len(size)) * size).astype(np.int64) + start, minlength=len(size))


def _draw_classes(sizes: NDArray[np.int64], n_resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """How often each example is drawn, [N], when whole strata are, as many as there are."""
    n_classes = len(sizes)
    for _ in range(n_resamples):
        yield np.repeat(np.bincount(rng.integers(n_classes, size=n_classes), minlength=n_classes), sizes)


def _mean(each: NDArray[np.float64]) -> float:
    """Mean over the strata that have a coefficient."""
    defined = each[~np.isnan(each)]
    return float(defined.mean()) if len(defined) else math.nan


def _permutation_pvalue(each: NDArray[np.float64], variance: NDArray[np.float64]) -> float:
    """Two-sided, of the mean of independent coefficients with this variance under permutation."""
    defined = ~np.isnan(each)
    if not defined.any():
        return math.nan
    return math.erfc(abs(each[defined].sum()) / math.sqrt(2 * variance[defined].sum()))


def _percentiles(resampled: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    """Ends [2, P] of the interval of each of P columns; resamples without a coefficient do not count."""
    ends = np.full((2, resampled.shape[1]), np.nan)
    some = ~np.isnan(resampled).all(0)
    ends[:, some] = np.nanquantile(resampled[:, some], [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return ends


def _leads(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column less the largest of the others in its row."""
    others = [np.delete(strength, k, 1).max(1) for k in range(strength.shape[1])]
    return strength - np.stack(others, 1)


def _dense_ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Values replaced by 0, 1, 2, ... in ascending order, equal ones by the same."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _as_scores(scores: ArrayLike | Tensor) -> NDArray[np.float64]:
    values = as_numpy(scores).astype(np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores has shape {values.shape}, but it must be [N]: pass one score for each example.")
    known = values[~np.isnan(values)]
    if len(known) < _FEWEST_EXAMPLES or np.all(known == known[0]):
        raise ValueError(
            f"scores has {len(known)} values that are not NaN, {len(np.unique(known))} of them distinct: at least "
            f"{_FEWEST_EXAMPLES} examples and two distinct scores are needed to correlate."
        )
    return values


def _as_classes(labels: ArrayLike | Tensor, owner: str, scores: NDArray[np.float64]) -> NDArray[np.int64]:
    given = as_numpy(labels)
    if given.shape != scores.shape:
        raise ValueError(
            f"labels has shape {given.shape}, but {owner} {len(scores)} examples: pass one label for each."
        )
    return as_labels(given, len(scores))


def _own_class(
    name: str, values: NDArray[Any], scores: NDArray[np.float64], labels: ArrayLike | Tensor
) -> NDArray[np.float64]:
    """[N], log-density of each example under its own class at a layer."""
    if values.ndim not in (1, 2):
        raise ValueError(f"log_prob of layer {name!r} has shape {values.shape}, but it must be [N] or [N, M].")
    if len(values) != len(scores):
        raise ValueError(
            f"scores has length {len(scores)}, but log_prob of layer {name!r} has {len(values)} examples: pass one "
            "score for each training example, in the same order."
        )
    classes = _as_classes(labels, f"layer {name!r} has", scores)
    if values.ndim == 2:
        values = values[np.arange(len(values)), as_labels(classes, len(values), values.shape[1])]
    return values.astype(np.float64)


def _check_resampling(confidence: float, n_resamples: int) -> None:
    check_integer("n_resamples", n_resamples, 1)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, but it must be between 0 and 1: 0.95, say.")
