"""Modes of class fitting: do the classes of a layer fall into a densely and a sparsely fitted group?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_labels, as_numpy, check_resampling
from fastdens.analysis._unimodality import (
    Valley,
    critical_bandwidth_pvalue,
    find_valley,
    fit_two_gaussians,
    most_outliers,
    unimodal_log_likelihood,
)

_SIGNIFICANCE = 0.05
_FEWEST_CLASSES = 4
# Chosen so that shapes of one mode are announced as two at most 5 % of the time (benchmarks/mode_test.py): how much a
# nat of likelihood discounts the p-value, how many nats count, and how many are given to large samples and taken from
# small ones.
_DISCOUNT, _MOST_NATS, _NATS_OF_LARGE, _NATS_BY_SIZE = 1 / 3, 5.0, 1.2, 40.0
_TESTED_RESAMPLES = 100


class Modes(NamedTuple):
    """Groups of classes.

    ``n_groups`` is 1 or 2; ``line`` separates two groups, NaN for one; ``group`` int64 [M] is 1 for classes above the
    line, else 0; ``dip_pvalue`` is that of Hartigan's test of unimodality; ``bic_gain`` is the BIC of one Gaussian less
    that of two, of equal or of own variances, whichever is lower (positive: two are better); ``pvalue`` is that of the
    test that decides. The last three are NaN where there is nothing to test.
    """

    n_groups: int
    line: float
    group: NDArray[np.int64]
    dip_pvalue: float
    bic_gain: float
    pvalue: float = math.nan


class ModeIntervals(NamedTuple):
    """Percentile intervals under resampling of the examples of each class.

    ``line_low`` and ``line_high`` are those of the line; ``mean_low`` and ``mean_high`` float64 [M] those of the class
    means; ``membership`` float64 [M] is the share of resamples in which the class lies above the line;
    ``n_groups_share`` that of resamples, of the first hundred, in which there are two groups. Line and membership are
    NaN if the classes are one group.
    """

    line_low: float
    line_high: float
    mean_low: NDArray[np.float64]
    mean_high: NDArray[np.float64]
    membership: NDArray[np.float64]
    n_groups_share: float


def find_modes(class_means: ArrayLike | Tensor, random_state: int = 0) -> Modes:
    """Split classes by their mean log-density, if the data show two groups.

    Two groups need two Gaussians of lower BIC than one, with a valley between them and more than two classes and more
    than 5 % of the classes each; and a p-value of at most 0.05. That starts from Silverman's test: the share of
    samples, drawn from the kernel density at the least bandwidth that leaves it one mode, that have two modes there.
    Modes of no more than two classes or 5 % do not count, so heavy tails and outlying classes make no group. Alone it
    takes flat tops for two groups and misses small groups; so the p-value is discounted by the cube root of a
    likelihood ratio (of e^5 at most): two Gaussians against the best two-piece exponential power density, which may be
    uniform, normal, Laplace or exponential. The discount is measured, not derived, and so are the error rates, in
    ``benchmarks/results/mode_test.json``: of 100 classes, 99 % of equal groups 4 deviations apart are found, where
    Hartigan's test finds 83 %, and under 5 % of samples of one mode are announced as two groups, trapezoids (7 %)
    excepted.

    The line is the midpoint of the largest gap between sorted means, of the gaps between the two modes of the
    Gaussians. The largest of all is often one in a tail: for equal groups 4 deviations apart it puts 36 % of classes on
    the wrong side, this one 4 %.

    Parameters
    ----------
    class_means : array or Tensor
        [M], mean log-density of each class (nats). Under four classes are one group: there is nothing to test.
    random_state : int
        Of the samples that Silverman's test draws.

    Raises
    ------
    ValueError
        If a mean is not finite.
    ImportError
        If diptest is missing.

    References
    ----------
    Jamroz & Kurdziel, AAAI 2023 (the line). Silverman, Using kernel density estimates to investigate multimodality,
    JRSS B 43, 1981. Fernandez, Osiewalski & Steel, Modeling and inference with v-spherical distributions, JASA 90, 1995
    (the two-piece exponential power density). Hartigan & Hartigan, The dip test of unimodality, Annals of Statistics
    13, 1985. Schwarz, Estimating the dimension of a model, Annals of Statistics 6, 1978.
    """
    means = as_numpy(class_means).astype(np.float64)
    if means.ndim != 1:
        raise ValueError(f"class_means has shape {means.shape}, but it must be [M].")
    bad = ~np.isfinite(means)
    if bad.any():
        raise ValueError(f"the mean log-density of class {int(bad.argmax())} is {means[bad][0]}: leave that class out.")
    return _find_modes(means, random_state)[0]


def mode_intervals(
    log_density: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    random_state: int = 0,
) -> ModeIntervals:
    """How firm the class means, the line and the groups are, were other examples of the same classes taken.

    The examples of each class are resampled with replacement. The line of a resample is drawn by the rule of
    `find_modes`, between the modes found in the data.

    Parameters
    ----------
    log_density : array or Tensor
        [N], log-density of each example under its own class (nats).
    labels : array or Tensor
        [N] integers from 0; every class up to the largest needs two examples.
    confidence : float
        Between 0 and 1.
    n_resamples : int
        At least 1.
    random_state : int
        A class's resamples depend on it and on that class alone.

    Raises
    ------
    TypeError, ValueError
        If the shapes disagree, a class has under two examples, or a density is not finite.
    ImportError
        If diptest is missing.

    References
    ----------
    Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    values = as_numpy(log_density).astype(np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"log_density has shape {values.shape}, but it must be [N] with at least one example.")
    labels = as_labels(labels, len(values))
    check_resampling(confidence, n_resamples)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"the log-density of example {int(bad.argmax())}, of class {labels[bad][0]}, is {values[bad][0]}: "
            "leave it out."
        )
    sizes = np.bincount(labels)
    if sizes.min() < 2:
        raise ValueError(f"class {int(sizes.argmin())} has {sizes.min()} examples, but resampling needs two: renumber.")
    classes = np.split(values[np.argsort(labels, kind="stable")], np.cumsum(sizes)[:-1])
    resampled = np.stack(
        [
            own[np.random.default_rng([random_state, c]).integers(len(own), size=(n_resamples, len(own)))].mean(1)
            for c, own in enumerate(classes)
        ],
        1,
    )
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(resampled, ends, axis=0)
    n_groups = [_find_modes(means, random_state)[0].n_groups for means in resampled[:_TESTED_RESAMPLES]]
    _, valley = _find_modes(np.array([own.mean() for own in classes]), random_state)
    line_low = line_high = math.nan
    membership = np.full(len(classes), math.nan)
    if valley is not None:
        lines = _widest_gap(np.sort(resampled, 1), valley)
        line_low, line_high = (float(end) for end in np.quantile(lines, ends))
        membership = (resampled > lines[:, None]).mean(0)
    return ModeIntervals(line_low, line_high, low, high, membership, float(np.mean(np.array(n_groups) == 2)))


def _find_modes(means: NDArray[np.float64], random_state: int) -> tuple[Modes, Valley | None]:
    """The groups; and between which modes the line was drawn, None for one group."""
    one_group = Modes(1, math.nan, np.zeros(len(means), np.int64), math.nan, math.nan, math.nan)
    if len(means) < _FEWEST_CLASSES or np.ptp(means) == 0:
        return one_group, None
    try:
        from diptest import diptest
    except ImportError:
        raise ImportError("find_modes needs diptest, not installed: pip install 'fastdens[analysis]'.") from None
    ordered = np.sort(means)
    center, scale = ordered.mean(), ordered.std()
    x = (ordered - center) / scale
    two = fit_two_gaussians(x)
    one_log_likelihood = -0.5 * len(x) * (math.log(2 * math.pi) + 1)
    bic_gain = 2 * (two.log_likelihood - one_log_likelihood) - (two.n_parameters - 2) * math.log(len(x))
    valley = find_valley(two)
    pvalue = 1.0
    if valley is not None and len(x) * two.weight.min() > most_outliers(len(x)):
        # The exponential power density has four parameters, as two Gaussians of equal variances.
        nats = two.log_likelihood - unimodal_log_likelihood(x) - 0.5 * (two.n_parameters - 4) * math.log(len(x))
        nats += _NATS_OF_LARGE - _NATS_BY_SIZE / len(x)
        silverman = critical_bandwidth_pvalue(x, np.random.default_rng(random_state))
        pvalue = min(1.0, silverman * math.exp(-_DISCOUNT * min(nats, _MOST_NATS)))
    one_group = one_group._replace(dip_pvalue=float(diptest(means)[1]), bic_gain=bic_gain, pvalue=pvalue)
    if valley is None or pvalue > _SIGNIFICANCE or bic_gain <= 0:
        return one_group, None
    valley = Valley(*(center + scale * mode for mode in valley))
    line = float(_widest_gap(ordered, valley))
    return one_group._replace(n_groups=2, line=line, group=(means > line).astype(np.int64)), valley


def _widest_gap(ordered: NDArray[np.float64], valley: Valley) -> NDArray[np.float64]:
    """Midpoint of the largest gap between sorted means [..., M], of those between the modes."""
    between = (ordered[..., 1:] > valley.low_mode) & (ordered[..., :-1] < valley.high_mode)
    widest = np.where(between, np.diff(ordered), -1).argmax(-1)[..., None]
    ends = np.take_along_axis(ordered, np.concatenate([widest, widest + 1], -1), -1)
    return ends.mean(-1)
