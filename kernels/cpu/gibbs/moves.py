"""Changes of a cluster: it is opened, a point joins it, a point leaves it."""

from __future__ import annotations

import math

import numpy as np
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu.gibbs.distances import fit_distances, load_block, log_one_plus
from fastdens.kernels.cpu.gibbs.refit import fit_cluster
from fastdens.kernels.cpu.gibbs.single_site import SMALLEST_RATIO, refresh_weights
from fastdens.kernels.cpu.gibbs.statistics import COLUMNS


@kernel
def free_slot(high, clusters):
    """The lowest free slot."""
    k = 0
    while k < high and clusters.counts[k] > 0:
        k += 1
    return k


@kernel
def fit_nothing(k, prior, mean, inverse):
    """Mean and inverse scale matrix of no points: those of the prior."""
    for i in range(mean.shape[1]):
        mean[k, i] = 0
        for j in range(mean.shape[1]):
            inverse[k, i, j] = 0
    for d in range(len(prior.scale)):
        inverse[k, d, d] = 1 / prior.scale[d]


@kernel
def open_cluster(k, points, prior, clusters):
    """Give a free slot the statistics of no points."""
    mahalanobis_sq = clusters.mahalanobis_sq
    fit_nothing(k, prior, clusters.mean, clusters.inverse)
    for i in range(mahalanobis_sq.shape[1]):
        mahalanobis_sq[k, i] = points.prior_mahalanobis_sq[i]
    clusters.log_det[k] = prior.log_det
    clusters.moves[k] = 0
    clusters.volatile[k] = False


@kernel
def distance_changes(source, w, offset, step, g, coefficient, shift):
    """Changes of the squared distances of the columns of ``source`` when a point moves; see :func:`move_point`."""
    width = source.shape[1]
    for b in range(width):
        shift[b] = -offset
    for d in range(0, source.shape[0], 4):
        w0, w1, w2, w3 = w[d], w[d + 1], w[d + 2], w[d + 3]
        for b in range(width):
            shift[b] += w0 * source[d, b] + w1 * source[d + 1, b] + w2 * source[d + 2, b] + w3 * source[d + 3, b]
    for b in range(width):
        moved = shift[b] + step * g
        shift[b] = 2 * step * shift[b] + step * step * g + coefficient * moved * moved


@kernel
def move_point(k, sign, row, order, first, n_block, label, points, prior, clusters, scratch):
    """A point joins cluster k (sign 1) or leaves it (-1), by the formula of Sherman and Morrison.

    With d = x - m, w = S^-1 d and kappa before the move: S changes by ``sign kappa / (kappa + sign) d d'``, m by
    ``sign / (kappa + sign) d``.
    """
    columns, mean, inverse, mahalanobis_sq, logs = (
        points.columns,
        clusters.mean,
        clusters.inverse,
        clusters.mahalanobis_sq,
        clusters.logs,
    )
    delta, w, shift, value = scratch.delta, scratch.w, scratch.shift, scratch.value
    n_padded, n_columns = columns.shape
    kappa = prior.kappa + clusters.counts[k]
    for d in range(n_padded):
        delta[d] = columns[d, row] - mean[k, d]
        w[d] = 0
    for i in range(0, n_padded, 4):
        d0, d1, d2, d3 = delta[i], delta[i + 1], delta[i + 2], delta[i + 3]
        for j in range(n_padded):
            w[j] += (
                d0 * inverse[k, i, j]
                + d1 * inverse[k, i + 1, j]
                + d2 * inverse[k, i + 2, j]
                + d3 * inverse[k, i + 3, j]
            )
    g, offset = 0.0, 0.0
    for d in range(n_padded):
        g += delta[d] * w[d]
        offset += mean[k, d] * w[d]
    step = -sign / (kappa + sign)
    scale = kappa / (kappa + sign)
    ratio = 1 + sign * scale * g
    if not ratio > SMALLEST_RATIO:
        # Too many digits would be lost: the cluster is fitted anew to its points.
        fit_cluster(k, k, -1, label, points, prior, clusters, scratch)
        refresh_weights(k, prior, clusters)
        fit_distances(k, points, prior, clusters, scratch)
        load_block(points, order, first, n_block, scratch)
        return
    coefficient = -sign * scale / ratio
    for i in range(n_padded):
        c = coefficient * w[i]
        for j in range(n_padded):
            inverse[k, i, j] += c * w[j]
    for d in range(n_padded):
        mean[k, d] -= step * delta[d]
    clusters.log_det[k] += math.log(ratio)
    clusters.counts[k] += sign
    clusters.moves[k] += 1
    refresh_weights(k, prior, clusters)
    kappa += sign
    if clusters.volatile[k]:
        width = (n_block + 7) // 8 * 8
        distance_changes(scratch.tile[:, :width], w, offset, step, g, coefficient, shift)
        for b in range(n_block):
            shift[b] += mahalanobis_sq[k, order[first + b]]
        log_one_plus(kappa / (kappa + 1), shift, width, value)
        for b in range(n_block):
            mahalanobis_sq[k, order[first + b]] = shift[b]
            logs[order[first + b], k] = value[b]
        return
    # Parts of arrays that begin at zero: of an index that is a sum numba cannot tell that it is not negative.
    for begin in range(0, n_columns, COLUMNS):
        end = min(begin + COLUMNS, n_columns)
        width = end - begin
        distance_changes(columns[:, begin:end], w, offset, step, g, coefficient, shift)
        own_distances, own_logs = mahalanobis_sq[k, begin:end], logs[begin:end, k]
        for b in range(width):
            own_distances[b] += shift[b]
        log_one_plus(kappa / (kappa + 1), own_distances, width, value)
        for b in range(width):
            own_logs[b] = value[b]


@kernel
def grow_cluster(k, label, points, prior, clusters, scratch):
    """Statistics of the points of a cluster and all distances from it, one point joining after the other.

    With n points this takes n (N + D) D operations, where a fit takes n D^2 + N D^2 / 2.
    """
    none = np.zeros(0, np.int64)
    open_cluster(k, points, prior, clusters)
    for i in range(len(label)):
        if label[i] == k:
            move_point(k, 1, i, none, 0, 0, label, points, prior, clusters, scratch)
    clusters.moves[k] = 0
