"""The concentration alpha on a CPU: gamma numbers, and a draw of alpha after each sweep."""

from __future__ import annotations

import math

import numpy as np
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._random import uniform


@kernel
def gamma(stream, counter, shape):
    """A gamma number of rate one (Marsaglia & Tsang 2000) from counters ``counter``, ``counter + 1``, ..."""
    d = (shape if shape >= 1 else shape + 1) - 1 / 3
    c = 1 / math.sqrt(9 * d)
    value = 0.0
    accepted = False
    trial = np.int64(0)
    while not accepted:
        radius = math.sqrt(-2 * math.log(uniform(stream, counter + 3 * trial)))
        normal = radius * math.cos(2 * math.pi * uniform(stream, counter + 3 * trial + 1))
        v = 1 + c * normal
        if v > 0:
            v = v * v * v
            log_u = math.log(uniform(stream, counter + 3 * trial + 2))
            accepted = log_u < 0.5 * normal * normal + d - d * v + d * math.log(v)
            value = d * v
        trial += 1
    if shape < 1:
        value *= uniform(stream, counter + (np.int64(1) << 31)) ** (1 / shape)
    return value


@kernel
def resample_concentration(stream, alpha, n_points, n_clusters, shape, rate):
    """A draw of alpha given its last value and the number of clusters (Escobar & West 1995, section 6)."""
    first = gamma(stream, np.int64(1) << 32, alpha + 1)
    second = gamma(stream, np.int64(2) << 32, np.float64(n_points))
    log_eta = math.log(first) - math.log(first + second)
    odds = (shape + n_clusters - 1) / (n_points * (rate - log_eta))
    first_part = uniform(stream, 0) * (1 + odds) < odds
    drawn = gamma(stream, np.int64(3) << 32, shape + n_clusters - (0 if first_part else 1))
    return max(drawn / (rate - log_eta), 1e-300)
