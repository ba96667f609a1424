"""Split-merge moves of a chain on a CPU; see :mod:`fastdens.kernels.gibbs.split_merge` for the move and its proof."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._random import uniform
from fastdens.kernels.cpu.gibbs.distances import fit_distances
from fastdens.kernels.cpu.gibbs.moves import close_cluster, fit_nothing, free_slot
from fastdens.kernels.cpu.gibbs.single_site import SMALLEST_RATIO, refresh_weights
from fastdens.kernels.gibbs.split_merge import ACCEPTANCE, ALLOCATION, CANDIDATES, MOVE, NEARBY, SCAN
from numpy.typing import NDArray

# Sides of a proposal: that of the first anchor, that of the second, and the union of both.
FIRST, SECOND, UNION = 0, 1, 2


class Sides(NamedTuple):
    """Statistics of a proposal's two sides and of their union, and which side each point is on."""

    side: NDArray[Any]  # int64 [n]
    counts: NDArray[Any]  # int64 [3]
    mean: NDArray[Any]  # [3, D]
    inverse: NDArray[Any]  # [3, D, D]
    log_det: NDArray[Any]  # [3]
    delta: NDArray[Any]  # [3, D], a point about each mean
    w: NDArray[Any]  # [3, D], the inverse times that


@kernel
def new_sides(n_points, n_padded):
    """Memory for proposals."""
    return Sides(
        np.zeros(n_points, np.int64),
        np.zeros(3, np.int64),
        np.zeros((3, n_padded)),
        np.zeros((3, n_padded, n_padded)),
        np.zeros(3),
        np.zeros((3, n_padded)),
        np.zeros((3, n_padded)),
    )


@kernel
def empty_side(s, prior, sides):
    """The statistics of no points."""
    fit_nothing(s, prior, sides.mean, sides.inverse)
    sides.log_det[s] = prior.log_det
    sides.counts[s] = 0


@kernel
def copy_to_side(s, k, clusters, sides):
    """The statistics of cluster k."""
    sides.mean[s] = clusters.mean[k]
    sides.inverse[s] = clusters.inverse[k]
    sides.log_det[s] = clusters.log_det[k]
    sides.counts[s] = clusters.counts[k]


@kernel
def distance_from(s, row, columns, sides):
    """Squared distance of a point from a side; its difference from the mean, and S^-1 times that, are kept."""
    mean, inverse, delta, w = sides.mean, sides.inverse, sides.delta, sides.w
    n_padded = columns.shape[0]
    for d in range(n_padded):
        delta[s, d] = columns[d, row] - mean[s, d]
        w[s, d] = 0
    for i in range(0, n_padded, 4):
        d0, d1, d2, d3 = delta[s, i], delta[s, i + 1], delta[s, i + 2], delta[s, i + 3]
        for j in range(n_padded):
            w[s, j] += (
                d0 * inverse[s, i, j]
                + d1 * inverse[s, i + 1, j]
                + d2 * inverse[s, i + 2, j]
                + d3 * inverse[s, i + 3, j]
            )
    q = 0.0
    for d in range(n_padded):
        q += delta[s, d] * w[s, d]
    return q


@kernel
def move_point_of_side(s, sign, q, prior, sides):
    """The point of the last :func:`distance_from`, at squared distance q, joins a side (sign 1) or leaves it (-1)."""
    mean, inverse, delta, w = sides.mean, sides.inverse, sides.delta, sides.w
    n_padded = mean.shape[1]
    kappa = prior.kappa + sides.counts[s]
    scale = kappa / (kappa + sign)
    ratio = 1 + sign * scale * q
    coefficient = -sign * scale / ratio
    for i in range(n_padded):
        c = coefficient * w[s, i]
        for j in range(n_padded):
            inverse[s, i, j] += c * w[s, j]
    step = sign / (kappa + sign)
    for d in range(n_padded):
        mean[s, d] += step * delta[s, d]
    sides.log_det[s] += math.log(ratio)
    sides.counts[s] += sign


@kernel
def join_side(s, row, columns, prior, sides):
    """A point joins a side."""
    move_point_of_side(s, 1, distance_from(s, row, columns, sides), prior, sides)


@kernel
def log_weight_of_side(s, q, prior, sides):
    """``log n t(x)`` of a point that the side does not hold."""
    n = sides.counts[s]
    kappa = prior.kappa + n
    spread = math.log(1 + kappa / (kappa + 1) * q)
    return prior.predictive_norm[n] - 0.5 * (sides.log_det[s] + (prior.nu + n + 1) * spread)


@kernel
def log_weight_of_own_side(s, q, prior, sides):
    """``log n t(x)`` of the side without its point; NaN where the closed form has lost its digits."""
    n = sides.counts[s]
    kappa = prior.kappa + n
    ratio = 1 - kappa / (kappa - 1) * q
    if not ratio > SMALLEST_RATIO:
        return np.nan
    return prior.predictive_norm[n - 1] - 0.5 * (sides.log_det[s] - (prior.nu + n - 1) * math.log(ratio))


@kernel
def log_marginal(n, log_det, prior):
    """A cluster's factor of p(points, labels) without alpha and without the prior's determinant."""
    return prior.marginal_norm[n] - 0.5 * (prior.nu + n) * log_det


@kernel
def log_sigmoid(x):
    """``log(1 / (1 + exp(-x)))``."""
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


@kernel
def anchors(stream, base, columns, n_points, prior):
    """Two points: any, and any other or the nearest of some; twice the same where there is no other."""
    i = np.int64(uniform(stream, base) * n_points)
    n_candidates = CANDIDATES if uniform(stream, base + NEARBY) < 0.5 else 1
    j, nearest = i, np.inf
    for r in range(1, n_candidates + 1):
        candidate = np.int64(uniform(stream, base + r) * n_points)
        if candidate == i:
            continue
        q = 0.0
        for d in range(len(prior.scale)):
            difference = columns[d, candidate] - columns[d, i]
            q += difference * difference / prior.scale[d]
        if q < nearest:
            j, nearest = candidate, q
    return i, j


@kernel
def is_divided(p, i, j, a, b, label):
    """Whether a proposal puts the point on a side: it is in cluster a or b, and no anchor."""
    return label[p] in (a, b) and p not in (i, j)


@kernel
def launch(stream, base, i, j, a, b, order, label, columns, prior, sides):
    """The state that a proposal starts from: points join the sides of the anchors one after the other."""
    side = sides.side
    empty_side(FIRST, prior, sides)
    empty_side(SECOND, prior, sides)
    join_side(FIRST, i, columns, prior, sides)
    join_side(SECOND, j, columns, prior, sides)
    side[i], side[j] = FIRST, SECOND
    for p in order:
        if is_divided(p, i, j, a, b, label):
            q_first = distance_from(FIRST, p, columns, sides)
            q_second = distance_from(SECOND, p, columns, sides)
            log_odds = log_weight_of_side(FIRST, q_first, prior, sides)
            log_odds -= log_weight_of_side(SECOND, q_second, prior, sides)
            if uniform(stream, base + ALLOCATION + p) * (1 + math.exp(-log_odds)) < 1:
                side[p] = FIRST
                move_point_of_side(FIRST, 1, q_first, prior, sides)
            else:
                side[p] = SECOND
                move_point_of_side(SECOND, 1, q_second, prior, sides)


@kernel
def scan(stream, base, i, j, a, b, order, label, columns, prior, least, sides):
    """A Gibbs scan between the two sides, and the log-probability of the sides that points end on.

    Where the anchors have different labels, the scan is led to those labels, and given up with ``-inf`` as soon as the
    log-probability is under ``least``.
    """
    side = sides.side
    is_led = a != b
    log_q = 0.0
    for p in order:
        if is_divided(p, i, j, a, b, label):
            own = side[p]
            q_own = distance_from(own, p, columns, sides)
            log_weight_own = log_weight_of_own_side(own, q_own, prior, sides)
            stays = not is_led or label[p] == (a if own == FIRST else b)
            if math.isnan(log_weight_own):
                # The point stays on the side that it carries.
                if not stays:
                    return -np.inf
                continue
            q_other = distance_from(1 - own, p, columns, sides)
            log_odds = log_weight_own - log_weight_of_side(1 - own, q_other, prior, sides)
            if not is_led:
                stays = uniform(stream, base + SCAN + p) * (1 + math.exp(-log_odds)) < 1
            log_q += log_sigmoid(log_odds if stays else -log_odds)
            if is_led and log_q < least:
                return -np.inf
            if not stays:
                move_point_of_side(own, -1, q_own, prior, sides)
                move_point_of_side(1 - own, 1, q_other, prior, sides)
                side[p] = 1 - own
    return log_q


@kernel
def adopt(k, s, points, prior, clusters, sides, scratch):
    """Cluster k takes the statistics of a side."""
    clusters.mean[k] = sides.mean[s]
    clusters.inverse[k] = sides.inverse[s]
    clusters.log_det[k] = sides.log_det[s]
    clusters.counts[k] = sides.counts[s]
    clusters.moves[k] = 0
    clusters.volatile[k] = False
    refresh_weights(k, prior, clusters)
    fit_distances(k, points, prior, clusters, scratch)


@kernel
def split_or_merge(stream, move, order, log_alpha, high, label, points, prior, clusters, sides, scratch, counted):
    """One move; the number of slots in use. ``counted`` [4]: splits proposed and accepted, merges likewise."""
    columns, n_points = points.columns, len(label)
    base = np.int64(move) * MOVE
    i, j = anchors(stream, base, columns, n_points, prior)
    if i == j:
        return high
    a, b = label[i], label[j]
    log_u = math.log(uniform(stream, base + ACCEPTANCE))
    # Log p(two clusters) - log p(one), without the terms that depend on the clusters.
    log_ratio = log_alpha + 0.5 * prior.nu * prior.log_det
    if a == b:
        counted[0] += 1
        launch(stream, base, i, j, a, b, order, label, columns, prior, sides)
        log_q = scan(stream, base, i, j, a, b, order, label, columns, prior, -np.inf, sides)
        for s in (FIRST, SECOND):
            log_ratio += log_marginal(sides.counts[s], sides.log_det[s], prior)
        log_ratio -= log_marginal(clusters.counts[a], clusters.log_det[a], prior)
        if not log_u < log_ratio - log_q:
            return high
        counted[1] += 1
        new = free_slot(high, clusters)
        for p in range(n_points):
            if label[p] == a and sides.side[p] == SECOND:
                label[p] = new
        adopt(a, FIRST, points, prior, clusters, sides, scratch)
        adopt(new, SECOND, points, prior, clusters, sides, scratch)
        return max(high, new + 1)
    counted[2] += 1
    larger, smaller = (a, b) if clusters.counts[a] >= clusters.counts[b] else (b, a)
    copy_to_side(UNION, larger, clusters, sides)
    for p in range(n_points):
        if label[p] == smaller:
            join_side(UNION, p, columns, prior, sides)
    for k in (a, b):
        log_ratio += log_marginal(clusters.counts[k], clusters.log_det[k], prior)
    log_ratio -= log_marginal(sides.counts[UNION], sides.log_det[UNION], prior)
    # The log-probability of the way back is at most zero: most merges are rejected before it is known.
    if not log_u < -log_ratio:
        return high
    launch(stream, base, i, j, a, b, order, label, columns, prior, sides)
    log_q = scan(stream, base, i, j, a, b, order, label, columns, prior, log_u + log_ratio, sides)
    if not log_u < log_q - log_ratio:
        return high
    counted[3] += 1
    for p in range(n_points):
        if label[p] == b:
            label[p] = a
    adopt(a, UNION, points, prior, clusters, sides, scratch)
    close_cluster(b, prior, clusters)
    return high
