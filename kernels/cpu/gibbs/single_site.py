"""Weights of the clusters for one point, and the draw of one of them."""

from __future__ import annotations

import math

import numpy as np
from fastdens.kernels.cpu._elementary import exp_minus
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._random import uniform

# A point carries its cluster where the closed form of the cluster without it has lost six digits.
SMALLEST_RATIO = 1e-6


@kernel
def refresh_weights(k, prior, clusters):
    """The parts of a cluster's log-weights that depend on its count and determinant."""
    n = clusters.counts[k]
    clusters.base[k] = prior.predictive_norm[n] - 0.5 * clusters.log_det[k] if n > 0 else -np.inf
    clusters.power[k] = 0.5 * (prior.nu + n + 1) if n > 0 else 0.0


@kernel
def weigh_own(n, mahalanobis_sq, log_det, predictive_norm, kappa0, nu0):
    """Log-weight of the point's own cluster without the point, in closed form; NaN where that is not precise.

    The ratio is that of the determinants of S without the point and with it, up to a factor: where it is small, the
    point carries its cluster, and the difference has lost its digits.
    """
    if n == 1:
        return -np.inf
    kappa = kappa0 + n
    ratio = 1 - kappa / (kappa - 1) * mahalanobis_sq
    if not ratio > SMALLEST_RATIO:
        return np.nan
    return predictive_norm[n - 1] - 0.5 * (log_det - (nu0 + n - 1) * math.log(ratio))


@kernel
def draw_slot(own, own_log_weight, log_weight_new, i, high, beta, stream, base, power, logs, log_weight):
    """A slot with probability proportional to its weight to the power beta; -1 is a new cluster."""
    top = max(log_weight_new, own_log_weight)
    for k in range(high):
        log_weight[k] = base[k] - power[k] * logs[i, k]
    log_weight[own] = own_log_weight
    for k in range(high):
        top = max(top, log_weight[k])
    total = 0.0
    for k in range(high):
        log_weight[k] = exp_minus(beta * (top - log_weight[k]), np.float64)
        total += log_weight[k]
    target = uniform(stream, i) * (total + exp_minus(beta * (top - log_weight_new), np.float64))
    running = 0.0
    for k in range(high):
        running += log_weight[k]
        if target < running:
            return k
    return -1
