"""Statistics of a cluster from its points: at the start, and where a point carries its cluster."""

from __future__ import annotations

import math

import numpy as np
from fastdens.kernels.cpu._cholesky import factor, invert
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._tiles import add_scatter
from fastdens.kernels.cpu.gibbs.distances import distances
from fastdens.kernels.cpu.gibbs.statistics import COLUMNS


@kernel
def fit_cluster(slot, cluster, left_out, label, points, prior, clusters, scratch):
    """Statistics of the points of ``cluster`` without the point ``left_out``, from the points, into ``slot``.

    The log-determinant is NaN where rounding leaves the scale matrix not positive definite.
    """
    columns, mean, inverse = points.columns, clusters.mean, clusters.inverse
    tile, a, inv = scratch.tile, scratch.a, scratch.inv
    n_features, n_padded = len(prior.scale), columns.shape[0]
    n = 0
    for d in range(n_padded):
        mean[slot, d] = 0
    for i in range(len(label)):
        if label[i] == cluster and i != left_out:
            n += 1
            for d in range(n_features):
                mean[slot, d] += columns[d, i]
    kappa = prior.kappa + n
    a[:] = 0
    for d in range(n_features, n_padded):
        a[d, d] = 1
    if n > 0:
        for d in range(n_features):
            mean[slot, d] /= n
        filled = 0
        for i in range(len(label)):
            if label[i] == cluster and i != left_out:
                for d in range(n_features):
                    tile[d, filled] = columns[d, i] - mean[slot, d]
                filled += 1
                if filled == COLUMNS:
                    add_scatter(tile, filled, a)
                    filled = 0
        add_scatter(tile, filled, a)
    for i in range(n_features):
        shift = prior.kappa * n / kappa * mean[slot, i]
        for j in range(i, n_features):
            a[i, j] += shift * mean[slot, j]
        a[i, i] += prior.scale[i]
    for d in range(n_features):
        mean[slot, d] *= n / kappa
    clusters.counts[slot] = n
    if not factor(a, scratch.panel):
        clusters.log_det[slot] = np.nan
        return
    log_det = 0.0
    for d in range(n_features):
        log_det += 2 * math.log(a[d, d])
    invert(a, inv, scratch.panel)
    # S^-1 = R^-1 R^-T, the products of the rows of an upper-triangular matrix.
    a[:] = 0
    add_scatter(inv, n_padded, a)
    for i in range(n_padded):
        for j in range(i, n_padded):
            padding = j >= n_features
            inverse[slot, i, j] = 0 if padding else a[i, j]
            inverse[slot, j, i] = 0 if padding else a[i, j]
    clusters.log_det[slot] = log_det


@kernel
def weigh_without(i, k, label, points, prior, clusters, scratch):
    """Log-weight of the point's own cluster without the point, from its other points."""
    n = clusters.counts[k] - 1
    kappa = prior.kappa + n
    side = len(clusters.counts) - 1
    fit_cluster(side, k, i, label, points, prior, clusters, scratch)
    clusters.counts[side] = 0
    own = points.columns[:, i : i + 1]
    distances(side, own, clusters.mean, clusters.inverse, scratch.centred, scratch.y, scratch.shift[0])
    spread = math.log(1 + kappa / (kappa + 1) * scratch.shift[0, 0])
    return prior.predictive_norm[n] - 0.5 * (clusters.log_det[side] + (prior.nu + n + 1) * spread)
