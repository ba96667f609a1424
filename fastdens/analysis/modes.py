"""Modes of class fitting: the split of the classes of a layer into a densely and a sparsely fitted group.

``docs/mathematics/mode_test.md`` derives the test and reports its measured error rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis._unimodality import (
    Valley,
    critical_bandwidth_pvalue,
    find_valley,
    fit_two_gaussians,
    most_outliers,
    unimodal_log_likelihood,
)
from fastdens.analysis.arguments import as_labels, as_numpy, check_resampling, random_numbers
from fastdens.kernels.optional import require

_SIGNIFICANCE = 0.05
_FEWEST_CLASSES = 4
_TESTED_RESAMPLES = 100


@dataclass(frozen=True)
class ModeTestCalibration:
    """Constants by which a likelihood ratio discounts the p-value of Silverman's test.

    They are measured, not derived: with them, shapes of one mode are announced as two groups at most 5 % of the time
    (``benchmarks/mode_test.py``).

    Attributes
    ----------
    exponent : float
        Power of the likelihood ratio in the p-value.
    max_nats : float
        Largest log-likelihood ratio that counts.
    bonus_nats : float
        Added to the log-likelihood ratio at any number of classes M.
    penalty_nats : float
        This over M is subtracted from it.
    """

    exponent: float = 1 / 3
    max_nats: float = 5.0
    bonus_nats: float = 1.2
    penalty_nats: float = 40.0

    def discount(self, nats: float, n_classes: int) -> float:
        """Factor of the p-value for a log-likelihood ratio of two modes against one."""
        nats += self.bonus_nats - self.penalty_nats / n_classes
        return math.exp(-self.exponent * min(nats, self.max_nats))


_CALIBRATION = ModeTestCalibration()


class Modes(NamedTuple):
    """Groups of M classes.

    Attributes
    ----------
    n_groups : int
        1 or 2.
    line : float
        Mean log-density (nats) that separates two groups; NaN for one.
    group : ndarray
        int64 [M], 1 for classes above the line, else 0.
    dip_pvalue : float
        p-value of Hartigan's test of unimodality, for comparison. This and what follows is NaN where there is nothing
        to test.
    bic_gain : float
        BIC of one Gaussian less that of two, of equal or of own variances, whichever is lower; positive if two are
        better.
    pvalue : float
        p-value of the test that decides.
    """

    n_groups: int
    line: float
    group: NDArray[np.int64]
    dip_pvalue: float
    bic_gain: float
    pvalue: float = math.nan


class ModeIntervals(NamedTuple):
    """Percentile intervals under resampling of the examples of each class.

    Attributes
    ----------
    line_low, line_high : float
        Interval of the line; NaN if the classes are one group.
    mean_low, mean_high : ndarray
        float64 [M], intervals of the class means.
    membership : ndarray
        float64 [M], share of the resamples in which the class lies above the line; NaN if the classes are one group.
    n_groups_share : float
        Share of the first hundred resamples in which there are two groups.
    """

    line_low: float
    line_high: float
    mean_low: NDArray[np.float64]
    mean_high: NDArray[np.float64]
    membership: NDArray[np.float64]
    n_groups_share: float


def find_modes(class_means: ArrayLike | Tensor, random_state: int = 0) -> Modes:
    """Split classes into two groups by their mean log-density, if their distribution has two modes.

    Two groups are announced if two Gaussians have a lower BIC than one, with a valley between them, each with more than
    two classes and more than 5 % of the classes, and the p-value is at most 0.05. The p-value is that of Silverman's
    test of one mode, discounted by the likelihood ratio of two Gaussians against a flexible density of one mode. The
    line is the midpoint of the largest gap between sorted means, of those between the modes of the two Gaussians.

    With 100 classes in two equal groups 4 standard deviations apart, two groups are announced in 99 % of samples, and
    4 % of the classes are on the wrong side of the line. With 100 classes of one mode, two groups are announced in at
    most 5 % of samples, trapezoids (7 %) excepted. ``docs/mathematics/mode_test.md`` explains the test and
    tabulates its error rates.

    Parameters
    ----------
    class_means : array or Tensor
        [M], mean log-density of each class (nats). Fewer than four classes are one group: there is nothing to test.
    random_state : int
        Seed of the samples that Silverman's test draws.

    Returns
    -------
    Modes
        The group of each class, the line between them, and the evidence.

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

    Examples
    --------
    >>> import numpy as np
    >>> from fastdens.analysis import find_modes
    >>> rng = np.random.default_rng(0)
    >>> means = np.concatenate([rng.normal(-60, 2, 50), rng.normal(-40, 2, 50)])
    >>> modes = find_modes(means)
    >>> modes.n_groups, modes.group.sum().item()
    (2, 50)
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
    """Bootstrap intervals of the class means, of the line between two groups, and of the membership of each class.

    The examples of each class are resampled with replacement. `find_modes` gives the modes of the data; the line of a
    resample is the midpoint of its largest gap between them.

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
        Seed. The resamples of a class depend on it and on that class alone.

    Returns
    -------
    ModeIntervals
        The intervals, and the share of resamples in which each class lies above the line.

    Raises
    ------
    TypeError, ValueError
        If the shapes disagree, a class has fewer than two examples, or a density is not finite.
    ImportError
        If diptest is missing.

    References
    ----------
    Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdens.analysis import mode_intervals
    >>> labels = np.repeat(np.arange(20), 10)
    >>> log_density = np.where(labels < 10, -60.0, -40.0) + np.random.default_rng(0).normal(size=200)
    >>> intervals = mode_intervals(log_density, labels, n_resamples=20)
    >>> bool(intervals.line_low < -50 < intervals.line_high)
    True
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
            own[random_numbers(random_state, c).integers(len(own), size=(n_resamples, len(own)))].mean(1)
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
    """The groups, and the modes between which the line was drawn, None for one group."""
    one_group = Modes(1, math.nan, np.zeros(len(means), np.int64), math.nan, math.nan, math.nan)
    if len(means) < _FEWEST_CLASSES or np.ptp(means) == 0:
        return one_group, None
    diptest = require("diptest", "find_modes", "analysis").diptest
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
        silverman = critical_bandwidth_pvalue(x, random_numbers(random_state))
        pvalue = min(1.0, silverman * _CALIBRATION.discount(nats, len(x)))
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
    return np.asarray(ends.mean(-1))
