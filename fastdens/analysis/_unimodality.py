"""Evidence for two modes in a small sample: Silverman's test, and two Gaussians against a flexible density of one mode.

All functions take a sorted, standardized sample [M].
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# A mode of so many points, or of no more than this share of them, is one of outliers.
_MOST_OUTLIERS, _OUTLIER_SHARE = 2, 0.05

_STARTS = (0.25, 0.5, 0.75)
_EM_ITERATIONS = 60
# A Gaussian on a single point may not shrink to it: that is no group.
_SMALLEST_VARIANCE = 1e-2
_EXPONENTS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0)
_LOCATIONS = 32
_GRID = 200
_DRAWS = 500


class TwoGaussians(NamedTuple):
    """Mixture of two Gaussians in one dimension: ``weight``, ``mean``, ``variance`` [2] and its free parameters."""

    weight: Array
    mean: Array
    variance: Array
    n_parameters: int
    log_likelihood: float


class Valley(NamedTuple):
    """The two modes of a density."""

    low_mode: float
    high_mode: float


def most_outliers(n: int) -> float:
    """Number of points, of n, that a group must exceed."""
    return max(_MOST_OUTLIERS, _OUTLIER_SHARE * n)


def fit_two_gaussians(x: Array) -> TwoGaussians:
    """Maximum likelihood by EM, with equal or with own variances, whichever has the lower BIC.

    EM starts from splits of the sorted sample at its quartiles; all starts of both models run side by side.
    """
    powers = np.stack([np.ones_like(x), x, x * x], 1)
    splits = [powers[math.ceil(share * len(x)) :].sum(0) for share in _STARTS]
    upper = np.broadcast_to(splits, (2, len(splits), 3))
    for _ in range(_EM_ITERATIONS):
        weight, mean, variance = _moments(np.stack([powers.sum(0) - upper, upper], -2))
        log_joint = _log_joint(x, weight, mean, variance)
        log_density = np.logaddexp(log_joint[..., 0, :], log_joint[..., 1, :])
        upper = np.exp(log_joint[..., 1, :] - log_density) @ powers
    log_likelihood = log_density.sum(-1)
    n_parameters = np.array([4, 5])
    equal_or_own, start = np.unravel_index(
        np.argmax(2 * log_likelihood - n_parameters[:, None] * math.log(len(x))), log_likelihood.shape
    )
    best = equal_or_own, start
    return TwoGaussians(
        weight[best], mean[best], variance[best], int(n_parameters[equal_or_own]), float(log_likelihood[best])
    )


def _moments(sums: Array) -> tuple[Array, Array, Array]:
    """Weights, means and variances from sums of 1, x and x^2 [2, starts, 2, 3]; model 0 has equal variances."""
    count = np.maximum(sums[..., 0], np.finfo(np.float64).tiny)
    mean = sums[..., 1] / count
    variance = np.maximum(sums[..., 2] / count - mean**2, _SMALLEST_VARIANCE)
    weight = count / count.sum(-1, keepdims=True)
    variance[0] = (weight[0] * variance[0]).sum(-1, keepdims=True)
    return weight, mean, variance


def _log_joint(x: Array, weight: Array, mean: Array, variance: Array) -> Array:
    """log(weight) + log N(x | mean, variance), [..., 2, M]."""
    constant = np.log(weight) - 0.5 * np.log(2 * math.pi * variance)
    return constant[..., None] - (x - mean[..., None]) ** 2 / (2 * variance[..., None])


def find_valley(two: TwoGaussians) -> Valley | None:
    """The two modes of the mixture density, which lie between its means; None if it has only one."""
    grid = np.linspace(two.mean.min(), two.mean.max(), _GRID)
    density = np.exp(_log_joint(grid, two.weight, two.mean, two.variance)).sum(-2)
    troughs = np.flatnonzero((density[1:-1] < density[:-2]) & (density[1:-1] <= density[2:])) + 1
    if not len(troughs):
        return None
    bottom = int(troughs[0])
    return Valley(float(grid[density[:bottom].argmax()]), float(grid[bottom + density[bottom:].argmax()]))


def unimodal_log_likelihood(x: Array) -> float:
    """Log-likelihood of the best two-piece exponential power density.

    The density is exp(-(|x - m| / s)^b) / ((s0 + s1) Gamma(1 + 1 / b)), with s = s0 below the mode m and s1 above it.
    It is normal for b = 2, Laplace for 1, heavier below that, flatter above, and skewed up to exponential. For given m
    and b, with A and B the sums of |x - m|^b below and above, s0 : s1 = A^(1 / (b + 1)) : B^(1 / (b + 1)) and the
    likelihood are closed forms; m and b are searched on a grid. The uniform density, the limit of large b, gets one nat
    for each of the two parameters that it lacks (Akaike).
    """
    n = len(x)
    steps = np.linspace(0, 1, _LOCATIONS)
    modes = np.concatenate([np.quantile(x, steps), x[0] + np.ptp(x) * steps])
    distance = x - modes[:, None]
    best = 2 - n * math.log(np.ptp(x))
    for b in _EXPONENTS:
        power = np.abs(distance) ** b
        # Each side on its own: the difference of large sums would lose the small one.
        below, above = (power * (distance < 0)).sum(1), (power * (distance > 0)).sum(1)
        scale = below ** (1 / (b + 1)) + above ** (1 / (b + 1))
        log_likelihood = -n * ((b + 1) / b * np.log(scale) + (math.log(b / n) + 1) / b + math.lgamma(1 + 1 / b))
        best = max(best, float(log_likelihood.max()))
    return best


def critical_bandwidth_pvalue(x: Array, rng: np.random.Generator) -> float:
    """P-value of Silverman's test of one mode.

    The statistic is the critical bandwidth: the smallest at which the Gaussian kernel density has one mode, modes of
    outliers aside. Samples are drawn from that density, scaled to the variance of the sample; the p-value is the share
    of them that still have two modes at that bandwidth. The sample, with its outliers drawn in, is binned on a grid, so
    that the cost does not grow with M.
    """
    low, high = np.quantile(x, [_OUTLIER_SHARE, 1 - _OUTLIER_SHARE])
    x = np.clip(x, 2 * low - high, 2 * high - low)
    margin = 0.1 * np.ptp(x)
    grid, step = np.linspace(x[0] - margin, x[-1] + margin, _GRID, retstep=True)
    counts = _bin(x, grid)
    bandwidth = _critical_bandwidth(counts, float(step), float(np.ptp(x)))
    shrink = 1 / math.hypot(1, bandwidth / x.std())
    density = _bin(x.mean() + shrink * (x - x.mean()), grid) @ _kernel(shrink * bandwidth / step)
    draws = rng.multinomial(len(x), density / density.sum(), size=_DRAWS)
    return float((1 + _has_two_modes(draws, bandwidth / float(step)).sum()) / (1 + _DRAWS))


def _bin(x: Array, grid: Array) -> NDArray[Any]:
    """Linear binning: each point is shared by the two nearest nodes."""
    position = (x - grid[0]) / (grid[1] - grid[0])
    node = position.astype(np.int64)
    return np.bincount(node, 1 - position + node, len(grid)) + np.bincount(node + 1, position - node, len(grid))


def _kernel(bandwidth: float) -> Array:
    """Gaussian kernel between nodes of the grid, [_GRID, _GRID]; the bandwidth is in steps of it."""
    nodes = np.arange(_GRID)
    return np.exp(-0.5 * ((nodes[:, None] - nodes) / bandwidth) ** 2)


def _has_two_modes(counts: NDArray[Any], bandwidth: float) -> NDArray[np.bool_]:
    """Whether the kernel density of each row [rows, _GRID] has a trough with more than outliers on either side."""
    density = counts @ _kernel(bandwidth)
    below = np.cumsum(counts, 1)[:, 1:-1]
    n = round(float(counts[0].sum()))
    # Binning may split a point between the sides.
    outliers = most_outliers(n) + 0.5
    trough = (density[:, 1:-1] < density[:, :-2]) & (density[:, 1:-1] <= density[:, 2:])
    return np.asarray(np.any(trough & (below > outliers) & (n - below > outliers), axis=1))


def _critical_bandwidth(counts: NDArray[Any], step: float, largest: float) -> float:
    """The critical bandwidth to a thousandth, by bisection of its logarithm; at least one step of the grid."""
    low, high = step, largest
    while high > 1.001 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _has_two_modes(counts[None], middle / step)[0] else (low, middle)
    return high
