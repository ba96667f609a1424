"""Kendall's tau-b within strata, with its variances, in O(N log N)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdens.analysis.ranks import FloatArray, IntArray, RankedPairs


class KendallTau(NamedTuple):
    """Kendall's tau-b of each of S strata.

    ``tau`` [S] is NaN where all values of x or of y are equal; ``variance`` [S] is that of the infinitesimal jackknife,
    ``null_variance`` [S] that under permutation within the stratum.
    """

    tau: FloatArray
    variance: FloatArray
    null_variance: FloatArray


def kendall_tau(pairs: RankedPairs) -> KendallTau:
    """Tau-b and its variances in each stratum.

    Let s_i be the sum over j of ``sign(x_i - x_j) sign(y_i - y_j)``, and u_i and v_i the numbers of examples j with
    another x and another y. Then ``tau = sum s / sqrt(sum u sum v)``, and the delta method on these three sums gives
    the influence of each example.

    References
    ----------
    Kendall, The Treatment of Ties in Ranking Problems, Biometrika 33, 1945. Kendall, Rank Correlation Methods, 1948,
    chapter 4 (the variance under permutation). Jaeckel, The Infinitesimal Jackknife, Bell Laboratories, 1972.
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

    def total(quantity: IntArray) -> FloatArray:
        return np.add.reduceat(quantity, pairs.starts).astype(np.float64)

    u, v = sizes[stratum] - same_x, sizes[stratum] - same_y
    n = sizes.astype(np.float64)
    sum_u, sum_v = total(u), total(v)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(sum_u * sum_v)
        tau = total(s) / scale
        influence = n[stratum] * (2 * (s / scale[stratum]) - tau[stratum] * (u / sum_u[stratum] + v / sum_v[stratum]))
        variance = np.add.reduceat(influence**2, pairs.starts) / (n * (n - 1))
        # Variance of sum s / 2 under permutation.
        quadratic = total(same_x - 1) * total(same_y - 1) / (2 * n * (n - 1))
        cubic = total((same_x - 1) * (same_x - 2)) * total((same_y - 1) * (same_y - 2))
        cubic = cubic / (9 * n * (n - 1) * np.maximum(n - 2, 1))
        tied = total((same_x - 1) * (2 * same_x + 5)) + total((same_y - 1) * (2 * same_y + 5))
        null_variance = 4 * ((n * (n - 1) * (2 * n + 5) - tied) / 18 + cubic + quadratic) / scale**2
    return KendallTau(tau, variance, null_variance)


def _net_below(values: IntArray, start: IntArray, stop: IntArray) -> IntArray:
    """How many of ``values[start_i:stop_i]`` are below ``values[i]``, less how many are above."""
    below, not_above = _count_below(values, start, stop, np.stack([values, values + 1]))
    net: IntArray = below + not_above - (stop - start)
    return net


def _count_below(values: IntArray, start: IntArray, stop: IntArray, threshold: IntArray) -> IntArray:
    """How many of ``values[start:stop]`` are below the threshold, for arrays of all three, in O(log) each.

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
