"""Changes of clusters: one is opened, a point goes from one to another."""

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
def change_statistics(k, sign, s, row, points, prior, clusters, scratch):
    """A point joins cluster k (sign 1) or leaves it (-1), by the formula of Sherman and Morrison.

    With d = x - m, w = S^-1 d and kappa before the move: S changes by ``sign kappa / (kappa + sign) d d'``, m by
    ``sign / (kappa + sign) d``. What the distances need to follow is kept in row s of the scratch. False, and nothing
    is changed, where too many digits would be lost.
    """
    columns, mean, inverse, delta, w = points.columns, clusters.mean, clusters.inverse, scratch.delta, scratch.w
    n_padded = columns.shape[0]
    kappa = prior.kappa + clusters.counts[k]
    for d in range(n_padded):
        delta[d] = columns[d, row] - mean[k, d]
        w[s, d] = 0
    for i in range(0, n_padded, 4):
        d0, d1, d2, d3 = delta[i], delta[i + 1], delta[i + 2], delta[i + 3]
        for j in range(n_padded):
            w[s, j] += (
                d0 * inverse[k, i, j]
                + d1 * inverse[k, i + 1, j]
                + d2 * inverse[k, i + 2, j]
                + d3 * inverse[k, i + 3, j]
            )
    g, offset = 0.0, 0.0
    for d in range(n_padded):
        g += delta[d] * w[s, d]
        offset += mean[k, d] * w[s, d]
    step = -sign / (kappa + sign)
    scale = kappa / (kappa + sign)
    ratio = 1 + sign * scale * g
    if not ratio > SMALLEST_RATIO:
        return False
    coefficient = -sign * scale / ratio
    for i in range(n_padded):
        c = coefficient * w[s, i]
        for j in range(n_padded):
            inverse[k, i, j] += c * w[s, j]
    for d in range(n_padded):
        mean[k, d] -= step * delta[d]
    clusters.log_det[k] += math.log(ratio)
    clusters.counts[k] += sign
    clusters.moves[k] += 1
    refresh_weights(k, prior, clusters)
    # The squared distance of x changes by a quadratic in w'(x - m).
    scratch.quadratic[s, 0] = offset
    scratch.quadratic[s, 1] = step * step * g + coefficient * step * step * g * g
    scratch.quadratic[s, 2] = 2 * step + 2 * coefficient * step * g
    scratch.quadratic[s, 3] = coefficient
    return True


@kernel
def change_cluster(k, sign, s, row, order, first, n_block, label, points, prior, clusters, scratch):
    """A point joins or leaves a cluster; whether its distances have yet to follow.

    Where updates would lose too many digits, the cluster is fitted anew to its points, distances included.
    """
    if change_statistics(k, sign, s, row, points, prior, clusters, scratch):
        return True
    fit_cluster(k, k, -1, label, points, prior, clusters, scratch)
    refresh_weights(k, prior, clusters)
    fit_distances(k, points, prior, clusters, scratch)
    load_block(points, order, first, n_block, scratch)
    return False


@kernel
def four_rows(source, d, begin, end):
    """Parts of four rows, which begin at zero: of an index that is a sum numba cannot tell that it is not negative."""
    return source[d][begin:end], source[d + 1][begin:end], source[d + 2][begin:end], source[d + 3][begin:end]


@kernel
def project(source, begin, end, s, scratch):
    """``w'(x - m)`` of the columns ``begin:end`` of the source, for one change."""
    w, shift = scratch.w[s], scratch.shift[s]
    width = end - begin
    for b in range(width):
        shift[b] = -scratch.quadratic[s, 0]
    for d in range(0, source.shape[0], 4):
        w0, w1, w2, w3 = w[d], w[d + 1], w[d + 2], w[d + 3]
        x0, x1, x2, x3 = four_rows(source, d, begin, end)
        for b in range(width):
            shift[b] += w0 * x0[b] + w1 * x1[b] + w2 * x2[b] + w3 * x3[b]


@kernel
def project_both(source, begin, end, scratch):
    """As :func:`project`, for two changes, in one pass over the points."""
    w, u, shift, other = scratch.w[0], scratch.w[1], scratch.shift[0], scratch.shift[1]
    width = end - begin
    for b in range(width):
        shift[b] = -scratch.quadratic[0, 0]
        other[b] = -scratch.quadratic[1, 0]
    for d in range(0, source.shape[0], 4):
        w0, w1, w2, w3 = w[d], w[d + 1], w[d + 2], w[d + 3]
        u0, u1, u2, u3 = u[d], u[d + 1], u[d + 2], u[d + 3]
        x0, x1, x2, x3 = four_rows(source, d, begin, end)
        for b in range(width):
            shift[b] += w0 * x0[b] + w1 * x1[b] + w2 * x2[b] + w3 * x3[b]
            other[b] += u0 * x0[b] + u1 * x1[b] + u2 * x2[b] + u3 * x3[b]


@kernel
def shift_distances(k, begin, end, s, clusters, scratch):
    """Distances of points from cluster k after the change whose projections are known."""
    shift, own_distances = scratch.shift[s], clusters.mahalanobis_sq[k][begin:end]
    constant, linear, square = scratch.quadratic[s, 1], scratch.quadratic[s, 2], scratch.quadratic[s, 3]
    for b in range(end - begin):
        own_distances[b] += constant + shift[b] * (linear + square * shift[b])


@kernel
def refresh_logs(k, begin, end, prior, clusters, scratch):
    """Logarithms of distances from cluster k."""
    own_distances, logs, value = clusters.mahalanobis_sq[k][begin:end], clusters.logs[begin:end, k], scratch.value
    width = end - begin
    kappa = prior.kappa + clusters.counts[k]
    log_one_plus(kappa / (kappa + 1), own_distances, width, value)
    for b in range(width):
        logs[b] = value[b]


@kernel
def shift_block_distances(k, order, first, n_block, s, prior, clusters, scratch):
    """As :func:`shift_distances`, of the points in the tile."""
    shift, value = scratch.shift[s], scratch.value
    constant, linear, square = scratch.quadratic[s, 1], scratch.quadratic[s, 2], scratch.quadratic[s, 3]
    mahalanobis_sq, logs = clusters.mahalanobis_sq, clusters.logs
    kappa = prior.kappa + clusters.counts[k]
    width = (n_block + 7) // 8 * 8
    project(scratch.tile, 0, width, s, scratch)
    for b in range(width):
        shift[b] = constant + shift[b] * (linear + square * shift[b])
    for b in range(n_block):
        shift[b] += mahalanobis_sq[k, order[first + b]]
    log_one_plus(kappa / (kappa + 1), shift, width, value)
    for b in range(n_block):
        mahalanobis_sq[k, order[first + b]] = shift[b]
        logs[order[first + b], k] = value[b]


@kernel
def follow(k, s, order, first, n_block, points, prior, clusters, scratch):
    """Distances from cluster k follow its last change: of all points or, if it is volatile, of those of the block."""
    if clusters.volatile[k]:
        shift_block_distances(k, order, first, n_block, s, prior, clusters, scratch)
        return
    n_columns = points.columns.shape[1]
    for begin in range(0, n_columns, COLUMNS):
        end = min(begin + COLUMNS, n_columns)
        project(points.columns, begin, end, s, scratch)
        shift_distances(k, begin, end, s, clusters, scratch)
        refresh_logs(k, begin, end, prior, clusters, scratch)


@kernel
def follow_both(first_cluster, second_cluster, points, prior, clusters, scratch):
    """Distances of all points follow two changes, of two clusters or of the same."""
    n_columns = points.columns.shape[1]
    for begin in range(0, n_columns, COLUMNS):
        end = min(begin + COLUMNS, n_columns)
        project_both(points.columns, begin, end, scratch)
        shift_distances(first_cluster, begin, end, 0, clusters, scratch)
        shift_distances(second_cluster, begin, end, 1, clusters, scratch)
        refresh_logs(second_cluster, begin, end, prior, clusters, scratch)
        if first_cluster != second_cluster:
            refresh_logs(first_cluster, begin, end, prior, clusters, scratch)


@kernel
def close_cluster(k, prior, clusters):
    """The slot of a cluster whose last points have left becomes free."""
    clusters.counts[k] = 0
    refresh_weights(k, prior, clusters)


@kernel
def transfer_point(old, new, row, order, first, n_block, label, points, prior, clusters, scratch):
    """A point, whose label is already the new one, goes from one cluster to another."""
    volatile = clusters.volatile
    left = False
    if clusters.counts[old] == 1:
        close_cluster(old, prior, clusters)
    else:
        left = change_cluster(old, -1, 0, row, order, first, n_block, label, points, prior, clusters, scratch)
    joined = change_cluster(new, 1, 1, row, order, first, n_block, label, points, prior, clusters, scratch)
    if left and joined and not volatile[old] and not volatile[new]:
        follow_both(old, new, points, prior, clusters, scratch)
        return
    if left:
        follow(old, 0, order, first, n_block, points, prior, clusters, scratch)
    if joined:
        follow(new, 1, order, first, n_block, points, prior, clusters, scratch)


@kernel
def grow_cluster(k, label, points, prior, clusters, scratch):
    """Statistics of the points of a cluster and all distances from it, one point joining after the other.

    With n points this takes n (N + D) D operations, where a fit takes n D^2 + N D^2 / 2.
    """
    none = np.zeros(0, np.int64)
    open_cluster(k, points, prior, clusters)
    # Distances follow two points at a time.
    waits = 0
    for i in range(len(label)):
        if label[i] == k:
            waits += change_statistics(k, 1, waits, i, points, prior, clusters, scratch)
            if waits == 2:
                follow_both(k, k, points, prior, clusters, scratch)
                waits = 0
    if waits == 1:
        follow(k, 0, none, 0, 0, points, prior, clusters, scratch)
    clusters.moves[k] = 0
