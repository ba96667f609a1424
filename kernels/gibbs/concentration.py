"""The concentration alpha inside Triton kernels: gamma numbers, and a draw of alpha after each sweep."""

from __future__ import annotations

from fastdens.kernels.counter_random_triton import uniform
from fastdens.kernels.optional_triton import tl, triton


@triton.jit
def gamma(stream, counter, shape):
    """A gamma number of rate one (Marsaglia & Tsang 2000) from counters ``counter``, ``counter + 1``, ..."""
    d = tl.where(shape >= 1.0, shape, shape + 1.0) - 1.0 / 3.0
    c = 1.0 / tl.sqrt(9.0 * d)
    value = d
    accepted = shape < 0.0
    trial = counter
    while not accepted:
        radius = tl.sqrt(-2.0 * tl.log(uniform(stream, trial)))
        normal = radius * tl.cos(6.283185307179586 * uniform(stream, trial + 1))
        root = 1.0 + c * normal
        v = root * root * root
        log_u = tl.log(uniform(stream, trial + 2))
        bound = 0.5 * normal * normal + d - d * v + d * tl.log(tl.where(root > 0.0, v, 1.0))
        accepted = (root > 0.0) & (log_u < bound)
        value = d * v
        trial += 3
    boost = tl.exp(tl.log(uniform(stream, counter + 2147483648)) / shape)
    return tl.where(shape >= 1.0, value, value * boost)


@triton.jit
def resample_concentration(stream, alpha, n_points, n_clusters, shape, rate):
    """A draw of alpha given its last value and the number of clusters (Escobar & West 1995, section 6)."""
    n = n_points.to(tl.float64)
    k = n_clusters.to(tl.float64)
    u = uniform(stream, tl.full([], 0, tl.int64))
    log_eta, drawn_shape, last, drawn = 0.0 * n, alpha + 1.0, n, n
    # By the same code, since it is long: two numbers whose share is eta, and alpha times its rate.
    for number in tl.range(3, disable_licm=True):
        last = drawn
        # Counters of the three numbers lie 2^32 apart.
        drawn = gamma(stream, tl.cast(number + 1, tl.int64) << 32, drawn_shape)
        if number == 1:
            log_eta = tl.log(last) - tl.log(last + drawn)
        odds = (shape + k - 1.0) / (n * (rate - log_eta))
        drawn_shape = tl.where(u * (1.0 + odds) < odds, shape + k, shape + k - 1.0)
        drawn_shape = tl.where(number == 0, n, drawn_shape)
    return tl.maximum(drawn / (rate - log_eta), 1e-300)
