"""Rank correlation of a score with densities and other predictors (Spearman's rho, Kendall's tau-b)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_labels, as_numpy, check_log_prob, check_resampling, own_class, random_numbers
from fastdens.analysis.kendall import kendall_tau
from fastdens.analysis.multiple_testing import holm
from fastdens.analysis.ranks import (
    RankedPairs,
    Ranking,
    dense_ranks,
    draw_examples,
    draw_strata,
    weighted_correlation,
)
from fastdens.kernels.optional import require
from fastdens.kernels.options import suggest

# Two examples always correlate at 1 or -1.
_FEWEST_EXAMPLES = 3

T = TypeVar("T", float, NDArray[np.float64])


class Coefficient(NamedTuple):
    """Correlation at each of L layers, with its interval and p-value.

    Attributes
    ----------
    value : ndarray
        float64 [L]; NaN where it is undefined.
    low, high : ndarray
        float64 [L], ends of the interval.
    pvalue : ndarray
        float64 [L], two-sided, of no association.
    pvalue_corrected : ndarray
        float64 [L], corrected for the L layers by Holm's method.
    """

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    pvalue: NDArray[np.float64]
    pvalue_corrected: NDArray[np.float64]


class Interval(NamedTuple, Generic[T]):
    """Estimates and the ends of their intervals.

    Attributes
    ----------
    value, low, high : float or ndarray
        An estimate and the lower and upper end of its interval; or float64 arrays of them, of one shape.
    """

    value: T
    low: T
    high: T


@dataclass(frozen=True)
class Correlations:
    """Correlation of a score with the log-density, at each of L layers.

    Attributes
    ----------
    layers : tuple of str
        Names of the layers.
    spearman, kendall : Coefficient
        [L], Spearman's rho and Kendall's tau-b over all examples.
    spearman_within, kendall_within : Coefficient
        [L], the mean of the coefficients of the classes, over those that have one.
    spearman_by_class, kendall_by_class : ndarray
        float64 [L, C], the coefficient of each class; NaN for a class of fewer than two examples, or whose scores or
        log-densities are all equal.
    n_examples, n_left_out : ndarray
        int64 [L], examples used, and examples left out because their score or log-density is NaN.
    """

    layers: tuple[str, ...]
    spearman: Coefficient
    kendall: Coefficient
    spearman_within: Coefficient
    kendall_within: Coefficient
    spearman_by_class: NDArray[np.float64]
    kendall_by_class: NDArray[np.float64]
    n_examples: NDArray[np.int64]
    n_left_out: NDArray[np.int64]


@dataclass(frozen=True)
class PredictorComparison:
    """Comparison of P predictors by their rank correlation with a score.

    All coefficients are of the same examples.

    Attributes
    ----------
    names : tuple of str
        Names of the predictors.
    rho : Interval of ndarray
        float64 [P], Spearman's rho of each predictor with the score; NaN for a constant predictor.
    win_share : ndarray
        float64 [P], share of the resamples in which the absolute rho is larger than those of all others.
    best, runner_up : str
        The predictors of largest and second largest absolute rho.
    lead : Interval of float
        Absolute rho of the best less that of the best of the others.
    decided : bool
        Whether the interval of the lead is above zero.
    n_examples, n_left_out : int
        Examples used, and examples left out because their score or a predictor is NaN.
    """

    names: tuple[str, ...]
    rho: Interval[NDArray[np.float64]]
    win_share: NDArray[np.float64]
    best: str
    runner_up: str
    lead: Interval[float]
    decided: bool
    n_examples: int
    n_left_out: int


class _Estimate(NamedTuple):
    """Mean coefficient over strata, its interval and p-value, and the coefficient [S] of each stratum."""

    value: float
    low: float
    high: float
    pvalue: float
    by_stratum: NDArray[np.float64]


def correlate(
    scores: ArrayLike | Tensor,
    log_prob: ArrayLike | Tensor | Mapping[str, ArrayLike | Tensor],
    labels: ArrayLike | Tensor,
    *,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    random_state: int = 0,
) -> Correlations:
    """Rank correlation of a score with the log-density at each layer, over all examples and within classes.

    The log-density of example i is ``log p(x_i | its class)``.

    Parameters
    ----------
    scores : array or Tensor
        [N], score of each example, such as its memorization score. NaN where unknown.
    log_prob : array or Tensor, or mapping of str to them
        Log-density (nats) of each example under its own class, [N], or under every class, [N, M]: of one layer, or of
        each layer by its name. NaN where unknown; minus infinity is a rank like any other.
    labels : array or Tensor
        [N] integers from 0.
    confidence : float
        Level of the intervals.
    n_resamples : int
        Bootstrap resamples behind the intervals of Spearman's rho.
    random_state : int
        Seed. The result of a layer does not depend on the other layers.

    Returns
    -------
    Correlations
        A single array is the layer ``"log_prob"``. Coefficients are NaN at a layer with fewer than three known
        log-densities, or where all of them are equal.

    Raises
    ------
    ValueError
        If lengths disagree, or fewer than three examples have a score or all scores are equal.
    ImportError
        If scipy is missing.

    Notes
    -----
    Ties share their mean rank in rho, and tau-b corrects for them.

    The intervals of rho are bootstrap percentiles. Examples are resampled within their class, which keeps its size, and
    the resampled coefficients are shifted so that their mean is the coefficient itself. The intervals of tau are
    normal, with the variance of the infinitesimal jackknife, which costs as much as a few resamples.

    The p-values over all examples are scipy's two-sided ones. Those within classes are normal, with the exact variance
    under permutation inside each class: ``1 / (n_c - 1)`` for rho, and Kendall's with ties for tau.

    In a class of n examples, the expected rho is closer to zero than in a large one, by a share of about 1 / n (Moran);
    the mean within classes and its interval inherit this bias. Tau without ties is unbiased.

    References
    ----------
    Spearman, The Proof and Measurement of Association between Two Things, American Journal of Psychology 15, 1904.
    Kendall, The Treatment of Ties in Ranking Problems, Biometrika 33, 1945. Efron & Tibshirani, An Introduction to the
    Bootstrap, 1993. Jaeckel, The Infinitesimal Jackknife, Bell Laboratories, 1972. Holm, A Simple Sequentially
    Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979. Moran, Rank Correlation and
    Product-Moment Correlation, Biometrika 35, 1948.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdens.analysis import correlate
    >>> rng = np.random.default_rng(0)
    >>> scores, labels = rng.uniform(size=300), np.arange(300) % 3
    >>> correlations = correlate(scores, {"layer4": -scores + rng.normal(size=300)}, labels, n_resamples=100)
    >>> correlations.layers, correlations.spearman.value.round(1)
    (('layer4',), array([-0.3]))
    """
    stats = require("scipy.stats", "correlate", "analysis")
    check_resampling(confidence, n_resamples)
    score_values = _as_scores(scores)
    named = log_prob if isinstance(log_prob, Mapping) else {"log_prob": log_prob}
    layers = {name: as_numpy(values) for name, values in named.items()}
    if not layers:
        raise ValueError("log_prob is an empty mapping: pass the log-density of at least one layer.")
    densities = {name: _own_class_density(name, values, score_values, labels) for name, values in layers.items()}
    classes = as_labels(labels, len(score_values))
    n_classes = max([int(classes.max(initial=-1)) + 1, *(x.shape[1] for x in layers.values() if x.ndim == 2)])

    # Value, ends of the interval and p-value of each layer.
    spearman, kendall, spearman_within, kendall_within = np.full((4, 4, len(layers)), np.nan)
    spearman_by_class, kendall_by_class = np.full((2, len(layers), n_classes), np.nan)
    n_examples = np.zeros(len(layers), np.int64)
    for layer, density in enumerate(densities.values()):
        known = ~(np.isnan(density) | np.isnan(score_values))
        n_examples[layer] = known.sum()
        if n_examples[layer] < _FEWEST_EXAMPLES:
            continue
        x, y = dense_ranks(score_values[known]), dense_ranks(density[known])
        overall = RankedPairs.sort(x, y, np.zeros(len(x), np.int64))
        within = RankedPairs.sort(x, y, classes[known])
        for pairs, rho, tau in ((overall, spearman, kendall), (within, spearman_within, kendall_within)):
            rho_estimate = _estimate_spearman(pairs, confidence, n_resamples, random_numbers(random_state))
            tau_estimate = _estimate_kendall(pairs, confidence)
            rho[:, layer], tau[:, layer] = rho_estimate[:4], tau_estimate[:4]
        spearman_by_class[layer, within.names] = rho_estimate.by_stratum
        kendall_by_class[layer, within.names] = tau_estimate.by_stratum
        # scipy's p-values need two distinct values; equal values all have rank zero.
        if x.any() and y.any():
            spearman[3, layer] = stats.spearmanr(x, y).pvalue
            kendall[3, layer] = stats.kendalltau(x, y).pvalue
    return Correlations(
        tuple(layers),
        _as_coefficient(spearman),
        _as_coefficient(kendall),
        _as_coefficient(spearman_within),
        _as_coefficient(kendall_within),
        spearman_by_class=spearman_by_class,
        kendall_by_class=kendall_by_class,
        n_examples=n_examples,
        n_left_out=len(score_values) - n_examples,
    )


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
    """Compare predictors by their absolute Spearman correlation with a score.

    Parameters
    ----------
    scores : array or Tensor
        [N], score of each example, such as its memorization score. NaN where unknown.
    predictors : mapping of str to array or Tensor
        At least two, [N] each, such as log-density, distance to the nearest neighbours, or the relative entropy of the
        class of each example. NaN where unknown; an example that lacks one of them is left out of all.
    labels : array or Tensor
        [N] integers from 0.
    resample : {"examples", "classes"}
        The sampling unit of the bootstrap. "examples" are resampled within their class, for an answer about these
        classes; "classes" are resampled whole, for an answer about classes like these. The latter gives wider
        intervals, above all for a predictor with one value per class, and needs a few dozen classes.
    confidence : float
        Level of the intervals.
    n_resamples : int
        Bootstrap resamples. All predictors are compared on the same ones.
    random_state : int
        Seed.

    Returns
    -------
    PredictorComparison
        Each predictor's correlation, and how sure it is which of them is best.

    Raises
    ------
    ValueError
        If lengths disagree, there is only one predictor, fewer than three examples have a score and all predictors, all
        scores are equal, or classes are to be resampled and there is only one.

    Notes
    -----
    In each resample, the lead of the best predictor is over the best of the others in that resample, not over the
    runner-up of the sample. It is positive exactly where the best predictor wins, and several close rivals make it
    harder to decide.

    References
    ----------
    Efron & Tibshirani, An Introduction to the Bootstrap, 1993. Davison & Hinkley, Bootstrap Methods and their
    Application, 1997, section 3.8 (resampling of groups).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdens.analysis import compare_predictors
    >>> rng = np.random.default_rng(0)
    >>> scores, labels = rng.uniform(size=300), np.arange(300) % 3
    >>> predictors = {"near": scores + rng.normal(size=300) / 5, "far": scores + rng.normal(size=300)}
    >>> comparison = compare_predictors(scores, predictors, labels, n_resamples=100)
    >>> comparison.best, comparison.decided
    ('near', True)
    """
    check_resampling(confidence, n_resamples)
    if resample not in ("examples", "classes"):
        raise ValueError(
            f"resample is {resample!r}, but it must be one of {suggest(str(resample), ['examples', 'classes'])}."
        )
    score_values = _as_scores(scores)
    values = [score_values, *_as_predictors(predictors, score_values)]
    classes = _as_classes(labels, "there are", score_values)
    known = np.logical_and.reduce([~np.isnan(value) for value in values])
    by_class = np.argsort(classes[known], kind="stable")
    sizes = np.unique(classes[known], return_counts=True)[1]
    if resample == "classes" and len(sizes) < 2:
        raise ValueError("all examples are of one class: draw examples instead, with resample='examples'.")
    if known.sum() < _FEWEST_EXAMPLES:
        raise ValueError(
            f"{known.sum()} examples have a score and all predictors: at least {_FEWEST_EXAMPLES} are needed, so leave "
            "out the predictor that is NaN at most of them."
        )
    spearman = _spearman_of_predictors([value[known][by_class] for value in values])
    rho = spearman(np.ones(len(by_class), np.int64))
    draw = draw_strata if resample == "classes" else draw_examples
    resampled = np.array([spearman(counts) for counts in draw(sizes, n_resamples, random_numbers(random_state))])
    # A constant predictor orders nothing: it competes with a correlation of zero.
    strength = np.nan_to_num(np.abs(rho))
    best, runner_up = np.argsort(-strength, kind="stable")[:2]
    leads = _leads(np.nan_to_num(np.abs(resampled)))
    lead_low, lead_high = _percentile_interval(leads[:, [best]], confidence)[:, 0]
    names = tuple(predictors)
    return PredictorComparison(
        names,
        Interval(rho, *_percentile_interval(resampled, confidence)),
        win_share=(leads > 0).mean(0),
        best=names[best],
        runner_up=names[runner_up],
        lead=Interval(float(_leads(strength[None])[0, best]), float(lead_low), float(lead_high)),
        decided=bool(lead_low > 0),
        n_examples=len(by_class),
        n_left_out=len(known) - len(by_class),
    )


def _spearman_of_predictors(
    values: Iterable[NDArray[np.float64]],
) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
    """Function from a resample, counts [N], to Spearman's rho [P] of the first values with each of the others."""
    one_stratum = np.zeros(1, np.int64)
    rankings = [Ranking.sort(dense_ranks(value), np.zeros(len(value), np.int64)) for value in values]

    def spearman(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        score_ranks, *predictor_ranks = (ranking.centred_ranks(counts, one_stratum) for ranking in rankings)
        return np.concatenate(
            [weighted_correlation(score_ranks, ranks, counts, one_stratum) for ranks in predictor_ranks]
        )

    return spearman


def _leads(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column less the largest of the others in its row."""
    others: NDArray[np.float64] = np.stack([np.delete(strength, k, 1).max(1) for k in range(strength.shape[1])], 1)
    return strength - others


def _as_coefficient(parts: NDArray[np.float64]) -> Coefficient:
    """The coefficient of value, ends of the interval and p-value, [4, L]."""
    value, low, high, pvalue = parts
    return Coefficient(value, low, high, pvalue, holm(pvalue))


def _estimate_spearman(pairs: RankedPairs, confidence: float, n_resamples: int, rng: np.random.Generator) -> _Estimate:
    rho = pairs.spearman(np.ones(len(pairs.x.order), np.int64))
    value = _mean(rho)
    resampled = np.array([_mean(pairs.spearman(counts)) for counts in draw_examples(pairs.sizes, n_resamples, rng)])
    # An example drawn twice agrees with itself, so that resamples of small strata correlate too well on average.
    shifted = resampled - _mean(resampled) + value
    low, high = _percentile_interval(shifted[:, None], confidence).clip(-1, 1)
    with np.errstate(divide="ignore"):
        null_variance = 1 / (pairs.sizes - 1)
    return _Estimate(value, float(low[0]), float(high[0]), _normal_pvalue(rho, null_variance), rho)


def _estimate_kendall(pairs: RankedPairs, confidence: float) -> _Estimate:
    tau, variance, null_variance = kendall_tau(pairs)
    value = _mean(tau)
    defined = ~np.isnan(tau)
    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    reach = quantile * math.sqrt(variance[defined].sum()) / max(int(defined.sum()), 1)
    low, high = max(value - reach, -1.0), min(value + reach, 1.0)
    return _Estimate(value, low, high, _normal_pvalue(tau, null_variance), tau)


def _mean(by_stratum: NDArray[np.float64]) -> float:
    """Mean over the strata that have a coefficient."""
    defined = by_stratum[~np.isnan(by_stratum)]
    return float(defined.mean()) if len(defined) else math.nan


def _normal_pvalue(by_stratum: NDArray[np.float64], null_variance: NDArray[np.float64]) -> float:
    """Two-sided p-value of the mean of independent coefficients with these variances under no association."""
    defined = ~np.isnan(by_stratum)
    if not defined.any():
        return math.nan
    return math.erfc(abs(by_stratum[defined].sum()) / math.sqrt(2 * null_variance[defined].sum()))


def _percentile_interval(resampled: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    """Lower and upper ends [2, P] for resampled coefficients [B, P]; undefined resamples (NaN) are left out."""
    ends = np.full((2, resampled.shape[1]), np.nan)
    some = ~np.isnan(resampled).all(0)
    ends[:, some] = np.nanquantile(resampled[:, some], [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return ends


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


def _as_predictors(
    predictors: Mapping[str, ArrayLike | Tensor], scores: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    if len(predictors) < 2:
        raise ValueError(f"predictors has {len(predictors)} entry: pass at least two to compare.")
    values = [as_numpy(given).astype(np.float64) for given in predictors.values()]
    for name, predictor in zip(predictors, values, strict=True):
        if predictor.shape != scores.shape:
            raise ValueError(
                f"scores has length {len(scores)}, but predictor {name!r} has shape {predictor.shape}: pass one "
                "value for each example, a quantity of the class repeated for its examples."
            )
    return values


def _as_classes(labels: ArrayLike | Tensor, owner: str, scores: NDArray[np.float64]) -> NDArray[np.int64]:
    given = as_numpy(labels)
    if given.shape != scores.shape:
        raise ValueError(
            f"labels has shape {given.shape}, but {owner} {len(scores)} examples: pass one label for each."
        )
    return as_labels(given, len(scores))


def _own_class_density(
    layer: str, log_prob: NDArray[Any], scores: NDArray[np.float64], labels: ArrayLike | Tensor
) -> NDArray[np.float64]:
    """Log-density [N] of each example under its own class at a layer."""
    name = f"log_prob of layer {layer!r}"
    check_log_prob(name, log_prob)
    if len(log_prob) != len(scores):
        raise ValueError(
            f"scores has length {len(scores)}, but {name} has {len(log_prob)} examples: pass one score for each "
            "training example, in the same order."
        )
    return own_class(log_prob, _as_classes(labels, f"layer {layer!r} has", scores))
