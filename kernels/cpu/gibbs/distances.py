"""Squared Mahalanobis distances of points from clusters."""

from __future__ import annotations

import numpy as np
from fastdens.kernels.cpu._elementary import log1p
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu.gibbs.statistics import COLUMNS


@kernel
def distances(k, source, mean, inverse, centred, y, out):
    """``(x - m_k)' P_k (x - m_k)`` of the columns of ``source``, by the upper half of a symmetric P."""
    n_padded, width = source.shape
    for d in range(n_padded):
        mu = mean[k, d]
        for b in range(width):
            centred[d, b] = source[d, b] - mu
    for b in range(width):
        out[b] = 0
    for j in range(0, n_padded, 4):
        for b in range(width):
            y[0, b] = 0
            y[1, b] = 0
            y[2, b] = 0
            y[3, b] = 0
        for i in range(0, j, 4):
            u00, u01, u02, u03 = inverse[k, i, j], inverse[k, i, j + 1], inverse[k, i, j + 2], inverse[k, i, j + 3]
            u10, u11, u12, u13 = (
                inverse[k, i + 1, j],
                inverse[k, i + 1, j + 1],
                inverse[k, i + 1, j + 2],
                inverse[k, i + 1, j + 3],
            )
            u20, u21, u22, u23 = (
                inverse[k, i + 2, j],
                inverse[k, i + 2, j + 1],
                inverse[k, i + 2, j + 2],
                inverse[k, i + 2, j + 3],
            )
            u30, u31, u32, u33 = (
                inverse[k, i + 3, j],
                inverse[k, i + 3, j + 1],
                inverse[k, i + 3, j + 2],
                inverse[k, i + 3, j + 3],
            )
            for b in range(width):
                a0, a1, a2, a3 = centred[i, b], centred[i + 1, b], centred[i + 2, b], centred[i + 3, b]
                y[0, b] += u00 * a0 + u10 * a1 + u20 * a2 + u30 * a3
                y[1, b] += u01 * a0 + u11 * a1 + u21 * a2 + u31 * a3
                y[2, b] += u02 * a0 + u12 * a1 + u22 * a2 + u32 * a3
                y[3, b] += u03 * a0 + u13 * a1 + u23 * a2 + u33 * a3
        # Half of the block on the diagonal: the sum is doubled at the end.
        d0, d1, d2, d3 = (
            0.5 * inverse[k, j, j],
            0.5 * inverse[k, j + 1, j + 1],
            0.5 * inverse[k, j + 2, j + 2],
            0.5 * inverse[k, j + 3, j + 3],
        )
        u01, u02, u03 = inverse[k, j, j + 1], inverse[k, j, j + 2], inverse[k, j, j + 3]
        u12, u13, u23 = inverse[k, j + 1, j + 2], inverse[k, j + 1, j + 3], inverse[k, j + 2, j + 3]
        for b in range(width):
            a0, a1, a2, a3 = centred[j, b], centred[j + 1, b], centred[j + 2, b], centred[j + 3, b]
            out[b] += (
                a0 * (y[0, b] + d0 * a0)
                + a1 * (y[1, b] + d1 * a1 + u01 * a0)
                + a2 * (y[2, b] + d2 * a2 + u02 * a0 + u12 * a1)
                + a3 * (y[3, b] + d3 * a3 + u03 * a0 + u13 * a1 + u23 * a2)
            )
    for b in range(width):
        out[b] *= 2


@kernel
def log_one_plus(ratio, mahalanobis_sq, width, value):
    """``value = log(1 + ratio mahalanobis_sq)``; rounding may have left a distance a little under zero."""
    for b in range(width):
        value[b] = log1p(max(ratio * mahalanobis_sq[b], 0.0), np.float64)


@kernel
def fit_distances(k, points, prior, clusters, scratch):
    """Squared distances of all points from a cluster, and their logarithms, from its inverse scale matrix."""
    mahalanobis_sq, logs, shift, value = clusters.mahalanobis_sq, clusters.logs, scratch.shift[0], scratch.value
    kappa = prior.kappa + clusters.counts[k]
    n_columns = mahalanobis_sq.shape[1]
    for first in range(0, n_columns, COLUMNS):
        width = min(COLUMNS, n_columns - first)
        part = points.columns[:, first : first + width]
        distances(k, part, clusters.mean, clusters.inverse, scratch.centred, scratch.y, shift)
        log_one_plus(kappa / (kappa + 1), shift, width, value)
        mahalanobis_sq[k, first : first + width] = shift[:width]
        logs[first : first + width, k] = value[:width]


@kernel
def load_block(points, order, first, n_block, scratch):
    """The points of a block, in the order of their updates, into the tile."""
    columns, tile = points.columns, scratch.tile
    for d in range(columns.shape[0]):
        for b in range(n_block):
            tile[d, b] = columns[d, order[first + b]]


@kernel
def fit_block_distances(k, order, first, n_block, prior, clusters, scratch):
    """As :func:`fit_distances`, of the points in the tile."""
    mahalanobis_sq, logs, shift, value = clusters.mahalanobis_sq, clusters.logs, scratch.shift[0], scratch.value
    kappa = prior.kappa + clusters.counts[k]
    width = (n_block + 7) // 8 * 8
    tile = scratch.tile[:, :width]
    distances(k, tile, clusters.mean, clusters.inverse, scratch.centred, scratch.y, shift)
    log_one_plus(kappa / (kappa + 1), shift, width, value)
    for b in range(n_block):
        mahalanobis_sq[k, order[first + b]] = shift[b]
        logs[order[first + b], k] = value[b]
