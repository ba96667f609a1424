"""CPU twin of :mod:`fastdens.kernels.gibbs.gibbs_sweep`: compiled, a thread a chain, in float64.

That a point is left out of its own cluster is a closed form of its quadratic form, so a point that stays where it was
changes nothing. One that moves costs two rank-one updates, and the quadratic forms of all other points under the two
clusters follow from one dot product each: N D operations, where working them out anew takes N D^2 / 2. A cluster that
changes so often in a sweep that this would not pay is volatile: its forms are worked out for each block of points
when the block's turn comes, and only those of the block follow its changes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from fastdens.kernels.cpu._cholesky import factor, invert
from fastdens.kernels.cpu._elementary import exp_minus, log1p
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import parallel_for
from fastdens.kernels.cpu._random import bits_of, stream_of, uniform
from fastdens.kernels.cpu._tiles import add_scatter, padded
from numpy.typing import NDArray
from torch import Tensor

_BLOCK = 64
_COLUMNS = 256
_SMALLEST_RATIO = 1e-6


class _Prior(NamedTuple):
    """Of one model: diagonal of S0, its log-determinant, kappa0, nu0, and the constants that depend on n alone."""

    scale: NDArray[Any]
    log_det: float
    kappa: float
    nu: float
    predictive_norm: NDArray[Any]
    marginal_norm: NDArray[Any]


class _Points(NamedTuple):
    """Of one model, about the prior mean: dimension first [D, N], both padded; forms and log-density of the prior."""

    columns: NDArray[Any]
    prior_form: NDArray[Any]
    prior_log_prob: NDArray[Any]


class _Clusters(NamedTuple):
    """Slots of a chain, a slot without points being free; the last is kept for work on the side.

    ``form[k, i]`` is ``(x_i - m_k)' S_k^-1 (x_i - m_k)`` and ``logs[i, k]`` is ``log(1 + kappa / (kappa + 1) form)``:
    the log-weight of cluster k for a point that is not in it is ``base[k] - power[k] logs[i, k]``.
    """

    counts: NDArray[Any]
    mean: NDArray[Any]
    inverse: NDArray[Any]
    log_det: NDArray[Any]
    base: NDArray[Any]
    power: NDArray[Any]
    form: NDArray[Any]
    logs: NDArray[Any]
    log_weight: NDArray[Any]
    moves: NDArray[Any]
    volatile: NDArray[Any]


class _Scratch(NamedTuple):
    """Memory that a thread uses again for every chain."""

    tile: NDArray[Any]
    centred: NDArray[Any]
    y: NDArray[Any]
    value: NDArray[Any]
    shift: NDArray[Any]
    delta: NDArray[Any]
    w: NDArray[Any]
    a: NDArray[Any]
    inv: NDArray[Any]
    s: NDArray[Any]


@kernel
def _gamma(stream, counter, shape):
    """A gamma number of rate one, from counters on (Marsaglia & Tsang 2000)."""
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
def _resample_concentration(stream, alpha, n_points, n_clusters, shape, rate):
    """Escobar & West (1995), section 6."""
    first = _gamma(stream, np.int64(1) << 32, alpha + 1)
    second = _gamma(stream, np.int64(2) << 32, np.float64(n_points))
    log_eta = math.log(first) - math.log(first + second)
    odds = (shape + n_clusters - 1) / (n_points * (rate - log_eta))
    first_part = uniform(stream, 0) * (1 + odds) < odds
    drawn = _gamma(stream, np.int64(3) << 32, shape + n_clusters - (0 if first_part else 1))
    return max(drawn / (rate - log_eta), 1e-300)


@kernel
def _scan_order(stream, n_points, bits, first, order):
    """Rows in ascending order of 40 random bits: by buckets, then by insertion."""
    first[:] = 0
    for i in range(n_points):
        bits[i] = np.int64(bits_of(stream, i) >> np.uint64(13))
        first[((bits[i] >> 16) * n_points >> 24) + 1] += 1
    for g in range(n_points):
        first[g + 1] += first[g]
    for i in range(n_points):
        bucket = (bits[i] >> 16) * n_points >> 24
        order[first[bucket]] = i
        first[bucket] += 1
    for p in range(1, n_points):
        i = order[p]
        q = p
        while q > 0 and bits[order[q - 1]] > bits[i]:
            order[q] = order[q - 1]
            q -= 1
        order[q] = i


@kernel
def _new_scratch(n_features):
    n_padded = padded(n_features)
    return _Scratch(
        np.zeros((n_padded, _COLUMNS + 16)),
        np.zeros((n_padded, _COLUMNS + 16)),
        np.zeros((4, _COLUMNS)),
        np.zeros(_COLUMNS),
        np.zeros(_COLUMNS),
        np.zeros(n_padded),
        np.zeros(n_padded),
        np.zeros((n_padded, n_padded)),
        np.zeros((n_padded, (n_padded + 31) // 32 * 32 + 16)),
        np.zeros((4, 4)),
    )


@kernel
def _new_clusters(capacity, n_padded, n_columns):
    return _Clusters(
        np.zeros(capacity, np.int64),
        np.zeros((capacity, n_padded)),
        np.zeros((capacity, n_padded, n_padded)),
        np.zeros(capacity),
        np.full(capacity, -np.inf),
        np.zeros(capacity),
        np.zeros((capacity, n_columns)),
        np.zeros((n_columns, capacity)),
        np.zeros(capacity),
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.bool_),
    )


@kernel
def _grow(clusters):
    """The same clusters with twice as many slots."""
    capacity, n_padded = clusters.mean.shape
    larger = _new_clusters(2 * capacity, n_padded, clusters.form.shape[1])
    larger.counts[:capacity] = clusters.counts
    larger.mean[:capacity] = clusters.mean
    larger.inverse[:capacity] = clusters.inverse
    larger.log_det[:capacity] = clusters.log_det
    larger.base[:capacity] = clusters.base
    larger.power[:capacity] = clusters.power
    larger.form[:capacity] = clusters.form
    larger.logs[:, :capacity] = clusters.logs
    larger.moves[:capacity] = clusters.moves
    larger.volatile[:capacity] = clusters.volatile
    return larger


@kernel
def _load_points(points, start, stop, prior_mean, prior):
    n_points, n_features = stop - start, points.shape[1]
    # Columns are whole vectors, and rows not a power of two apart, which would put them all in a few cache sets.
    n_columns = (n_points + 7) // 8 * 8
    n_columns += 8 if n_columns % 64 == 0 else 0
    columns = np.zeros((padded(n_features), n_columns))
    form, log_prob = np.zeros(n_columns), np.zeros(n_columns)
    for i in range(n_points):
        for d in range(n_features):
            columns[d, i] = points[start + i, d] - prior_mean[d]
            form[i] += columns[d, i] * columns[d, i] / prior.scale[d]
        spread = math.log(1 + prior.kappa / (prior.kappa + 1) * form[i])
        log_prob[i] = prior.predictive_norm[0] - 0.5 * prior.log_det - 0.5 * (prior.nu + 1) * spread
    return _Points(columns, form, log_prob)


@kernel
def _refresh_weights(k, prior, clusters):
    """What the log-weights of a cluster owe to its count and determinant."""
    n = clusters.counts[k]
    clusters.base[k] = prior.predictive_norm[n] - 0.5 * clusters.log_det[k] if n > 0 else -np.inf
    clusters.power[k] = 0.5 * (prior.nu + n + 1) if n > 0 else 0.0


@kernel
def _fit_cluster(slot, cluster, left_out, label, points, prior, clusters, scratch):
    """Statistics of the points of ``cluster`` without the point ``left_out``, from the points, into ``slot``."""
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
                if filled == _COLUMNS:
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
    factor(a, scratch.s)
    log_det = 0.0
    for d in range(n_features):
        log_det += 2 * math.log(a[d, d])
    invert(a, inv, scratch.s)
    # S^-1 = R^-1 R^-T, the products of the rows of an upper-triangular matrix.
    a[:] = 0
    add_scatter(inv, n_padded, a)
    for i in range(n_padded):
        for j in range(i, n_padded):
            padding = j >= n_features
            inverse[slot, i, j] = 0 if padding else a[i, j]
            inverse[slot, j, i] = 0 if padding else a[i, j]
    clusters.counts[slot] = n
    clusters.log_det[slot] = log_det


@kernel
def _quadratic_forms(k, source, mean, inverse, centred, y, out):
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
def _log_one_plus(ratio, form, width, value):
    """``value = log(1 + ratio form)``; rounding may have left a form a little under zero."""
    for b in range(width):
        value[b] = log1p(max(ratio * form[b], 0.0), np.float64)


@kernel
def _work_out_forms(k, points, prior, clusters, scratch):
    """Forms of all points under a cluster, and their logarithms, from its inverse scatter."""
    form, logs, shift, value = clusters.form, clusters.logs, scratch.shift, scratch.value
    kappa = prior.kappa + clusters.counts[k]
    n_columns = form.shape[1]
    for first in range(0, n_columns, _COLUMNS):
        width = min(_COLUMNS, n_columns - first)
        part = points.columns[:, first : first + width]
        _quadratic_forms(k, part, clusters.mean, clusters.inverse, scratch.centred, scratch.y, shift)
        _log_one_plus(kappa / (kappa + 1), shift, width, value)
        form[k, first : first + width] = shift[:width]
        logs[first : first + width, k] = value[:width]


@kernel
def _load_block(points, order, first, n_block, scratch):
    """The points of a block, in the order of their turns, into the tile."""
    columns, tile = points.columns, scratch.tile
    for d in range(columns.shape[0]):
        for b in range(n_block):
            tile[d, b] = columns[d, order[first + b]]


@kernel
def _work_out_block(k, order, first, n_block, prior, clusters, scratch):
    """As :func:`_work_out_forms`, of the points in the tile."""
    form, logs, shift, value = clusters.form, clusters.logs, scratch.shift, scratch.value
    kappa = prior.kappa + clusters.counts[k]
    width = (n_block + 7) // 8 * 8
    tile = scratch.tile[:, :width]
    _quadratic_forms(k, tile, clusters.mean, clusters.inverse, scratch.centred, scratch.y, shift)
    _log_one_plus(kappa / (kappa + 1), shift, width, value)
    for b in range(n_block):
        form[k, order[first + b]] = shift[b]
        logs[order[first + b], k] = value[b]


@kernel
def _changes(source, w, offset, step, g, coefficient, shift):
    """By how much the forms of the columns of ``source`` change when a point moves; see :func:`_move_point`."""
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
def _move_point(k, sign, row, order, first, n_block, label, points, prior, clusters, scratch):
    """Put a point into cluster k (sign 1) or take it out (-1), by Sherman & Morrison.

    With d = x - m, w = P d and kappa before the move: S changes by ``sign kappa / (kappa + sign) d d'``, m by
    ``sign / (kappa + sign) d``.
    """
    columns, mean, inverse, form, logs = points.columns, clusters.mean, clusters.inverse, clusters.form, clusters.logs
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
    if not ratio > _SMALLEST_RATIO:
        # Too many digits would be lost: the cluster is made anew from its points.
        _fit_cluster(k, k, -1, label, points, prior, clusters, scratch)
        _refresh_weights(k, prior, clusters)
        _work_out_forms(k, points, prior, clusters, scratch)
        _load_block(points, order, first, n_block, scratch)
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
    _refresh_weights(k, prior, clusters)
    kappa += sign
    if clusters.volatile[k]:
        width = (n_block + 7) // 8 * 8
        _changes(scratch.tile[:, :width], w, offset, step, g, coefficient, shift)
        for b in range(n_block):
            shift[b] += form[k, order[first + b]]
        _log_one_plus(kappa / (kappa + 1), shift, width, value)
        for b in range(n_block):
            form[k, order[first + b]] = shift[b]
            logs[order[first + b], k] = value[b]
        return
    # Parts of arrays that begin at zero: of an index that is a sum numba cannot tell that it is not negative.
    for begin in range(0, n_columns, _COLUMNS):
        end = min(begin + _COLUMNS, n_columns)
        width = end - begin
        _changes(columns[:, begin:end], w, offset, step, g, coefficient, shift)
        own_form, own_logs = form[k, begin:end], logs[begin:end, k]
        for b in range(width):
            own_form[b] += shift[b]
        _log_one_plus(kappa / (kappa + 1), own_form, width, value)
        for b in range(width):
            own_logs[b] = value[b]


@kernel
def _found_cluster(k, points, prior, clusters):
    """Give a free slot the statistics of no points."""
    mean, inverse, form = clusters.mean, clusters.inverse, clusters.form
    for i in range(mean.shape[1]):
        mean[k, i] = 0
        for j in range(mean.shape[1]):
            inverse[k, i, j] = 0
    for d in range(len(prior.scale)):
        inverse[k, d, d] = 1 / prior.scale[d]
    for i in range(form.shape[1]):
        form[k, i] = points.prior_form[i]
    clusters.log_det[k] = prior.log_det
    clusters.moves[k] = 0
    clusters.volatile[k] = False


@kernel
def _log_weight_without(i, k, label, points, prior, clusters, scratch):
    """Log-weight of the cluster that a point is in, from all its points but that one."""
    n = clusters.counts[k] - 1
    kappa = prior.kappa + n
    side = len(clusters.counts) - 1
    _fit_cluster(side, k, i, label, points, prior, clusters, scratch)
    clusters.counts[side] = 0
    own = points.columns[:, i : i + 1]
    _quadratic_forms(side, own, clusters.mean, clusters.inverse, scratch.centred, scratch.y, scratch.shift)
    spread = math.log(1 + kappa / (kappa + 1) * scratch.shift[0])
    return prior.predictive_norm[n] - 0.5 * (clusters.log_det[side] + (prior.nu + n + 1) * spread)


@kernel
def _draw_slot(own, own_log_weight, fresh, i, high, stream, base, power, logs, log_weight):
    """A slot with probability proportional to its weight; -1 is a new cluster."""
    top = max(fresh, own_log_weight)
    for k in range(high):
        log_weight[k] = base[k] - power[k] * logs[i, k]
    log_weight[own] = own_log_weight
    for k in range(high):
        top = max(top, log_weight[k])
    total = 0.0
    for k in range(high):
        log_weight[k] = exp_minus(top - log_weight[k], np.float64)
        total += log_weight[k]
    target = uniform(stream, i) * (total + exp_minus(top - fresh, np.float64))
    running = 0.0
    for k in range(high):
        running += log_weight[k]
        if target < running:
            return k
    return -1


@kernel
def _sweep(stream, order, log_alpha, high, label, points, prior, clusters, scratch):
    """One turn for every point; the clusters and the number of slots in use, which may have grown."""
    n_points, n_padded = len(label), points.columns.shape[0]
    # Taken out of their tuples once: to do so in the turn of each point would cost more than the turn.
    count, log_det, form = clusters.counts, clusters.log_det, clusters.form
    base, power, logs, log_weight = clusters.base, clusters.power, clusters.logs, clusters.log_weight
    prior_log_prob, predictive_norm, kappa0, nu0 = points.prior_log_prob, prior.predictive_norm, prior.kappa, prior.nu
    for k in range(high):
        often = 2 * clusters.moves[k] > n_padded
        if clusters.volatile[k] and not often and clusters.counts[k] > 0:
            _work_out_forms(k, points, prior, clusters, scratch)
        clusters.volatile[k] = often
        clusters.moves[k] = 0
    for first in range(0, n_points, _BLOCK):
        n_block = min(_BLOCK, n_points - first)
        loaded = False
        for k in range(high):
            clusters.volatile[k] = clusters.volatile[k] or 2 * clusters.moves[k] > n_padded
            if clusters.volatile[k] and clusters.counts[k] > 0:
                if not loaded:
                    _load_block(points, order, first, n_block, scratch)
                    loaded = True
                _work_out_block(k, order, first, n_block, prior, clusters, scratch)
        for b in range(n_block):
            i = order[first + b]
            old = label[i]
            n = count[old]
            own = -np.inf
            if n > 1:
                # To leave the point out of its own cluster is a closed form of its quadratic form.
                kappa = kappa0 + n
                ratio = 1 - kappa / (kappa - 1) * form[old, i]
                if ratio > _SMALLEST_RATIO:
                    own = predictive_norm[n - 1] - 0.5 * (log_det[old] - (nu0 + n - 1) * math.log(ratio))
                else:
                    own = _log_weight_without(i, old, label, points, prior, clusters, scratch)
                    _load_block(points, order, first, n_block, scratch)
            new = _draw_slot(old, own, log_alpha + prior_log_prob[i], i, high, stream, base, power, logs, log_weight)
            # A point that was alone and founds a new cluster stays where it was.
            if new == old or (new < 0 and count[old] == 1):
                continue
            if new < 0:
                new = 0
                while new < high and clusters.counts[new] > 0:
                    new += 1
                if new == len(clusters.counts) - 1:
                    clusters = _grow(clusters)
                    count, log_det, form = clusters.counts, clusters.log_det, clusters.form
                    base, power, logs, log_weight = clusters.base, clusters.power, clusters.logs, clusters.log_weight
                high = max(high, new + 1)
                _found_cluster(new, points, prior, clusters)
            label[i] = new
            if clusters.counts[old] == 1:
                clusters.counts[old] = 0
                _refresh_weights(old, prior, clusters)
            else:
                _move_point(old, -1, i, order, first, n_block, label, points, prior, clusters, scratch)
            _move_point(new, 1, i, order, first, n_block, label, points, prior, clusters, scratch)
    return clusters, high


@kernel
def _ranks(used, high, rank):
    """Number of the slots in use, and the rank of each among them."""
    n = 0
    for k in range(high):
        rank[k] = n
        n += used[k] > 0
    return n


@kernel
def _chains(
    begin,
    end,
    n_chains,
    points,
    ranges,
    prior_mean,
    prior_scale,
    kappa0,
    nu0,
    predictive_norm,
    marginal_norm,
    keys,
    labels,
    alphas,
    shape,
    rate,
    first_sweep,
    n_sweeps,
    thin,
    stop,
    out_labels,
    trace_alpha,
    trace_components,
    trace_log_joint,
):
    scratch = _new_scratch(points.shape[1])
    for item in range(begin, end):
        m, c = item // n_chains, item % n_chains
        start, n_points = ranges[m, 0], ranges[m, 1] - ranges[m, 0]
        key, alpha = keys[m, c], alphas[m, c]
        prior_log_det = 0.0
        for d in range(points.shape[1]):
            prior_log_det += math.log(prior_scale[m, d])
        prior = _Prior(prior_scale[m], prior_log_det, kappa0, nu0, predictive_norm, marginal_norm)
        own = _load_points(points, start, ranges[m, 1], prior_mean[m], prior)
        order, bits = np.empty(n_points, np.int64), np.empty(n_points, np.int64)
        bucket = np.empty(n_points + 1, np.int64)

        # Labels become slots 0, 1, ... in the order of their values.
        label = np.empty(n_points, np.int64)
        highest = 0
        for i in range(n_points):
            label[i] = labels[c, start + i]
            highest = max(highest, label[i] + 1)
        used, rank = np.zeros(highest, np.int64), np.zeros(highest, np.int64)
        for i in range(n_points):
            used[label[i]] = 1
        high = _ranks(used, highest, rank)
        for i in range(n_points):
            label[i] = rank[label[i]]
        clusters = _new_clusters(high + 8, own.columns.shape[0], own.columns.shape[1])
        for k in range(high):
            _fit_cluster(k, k, -1, label, own, prior, clusters, scratch)
            _refresh_weights(k, prior, clusters)
            _work_out_forms(k, own, prior, clusters, scratch)

        for t in range(n_sweeps):
            if stop[0] != 0:
                return
            draw = 4 * (first_sweep + t)
            _scan_order(stream_of(key, draw), n_points, bits, bucket, order)
            clusters, high = _sweep(
                stream_of(key, draw + 1), order, math.log(alpha), high, label, own, prior, clusters, scratch
            )
            rank = np.empty(high, np.int64)
            n_clusters = _ranks(clusters.counts, high, rank)
            log_joint = 0.5 * n_clusters * nu0 * prior_log_det
            for k in range(high):
                n = clusters.counts[k]
                if n > 0:
                    log_joint += marginal_norm[n] - 0.5 * (nu0 + n) * clusters.log_det[k]
            if shape > 0:
                alpha = _resample_concentration(stream_of(key, draw + 2), alpha, n_points, n_clusters, shape, rate)
            trace_alpha[m, c, t] = alpha
            trace_components[m, c, t] = n_clusters
            trace_log_joint[m, c, t] = log_joint
            if (t + 1) % thin == 0:
                for i in range(n_points):
                    out_labels[(t + 1) // thin - 1, c, start + i] = rank[label[i]]


def gibbs_sweep(
    points: Tensor,
    ranges: Tensor,
    labels: Tensor,
    alpha: Tensor,
    keys: Tensor,
    prior_mean: Tensor,
    prior_scale: Tensor,
    kappa0: float,
    nu0: float,
    predictive_norm: Tensor,
    marginal_norm: Tensor,
    alpha_prior: tuple[float, float],
    first_sweep: int,
    n_sweeps: int,
    thin: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Labels after every ``thin``-th sweep, and of every sweep alpha, number of clusters and log-joint without the
    factors of alpha.
    """
    n_models, n_chains = alpha.shape
    out_labels = torch.zeros(n_sweeps // thin, n_chains, points.shape[0], dtype=torch.int32)
    trace_alpha = torch.empty(n_models, n_chains, n_sweeps, dtype=torch.float64)
    trace_components = torch.empty(n_models, n_chains, n_sweeps, dtype=torch.int32)
    trace_log_joint = torch.empty(n_models, n_chains, n_sweeps, dtype=torch.float64)
    stop = np.zeros(1, np.int64)
    try:
        parallel_for(
            _chains,
            n_models * n_chains,
            n_chains,
            points.numpy(),
            ranges.numpy(),
            prior_mean.numpy(),
            prior_scale.numpy(),
            kappa0,
            nu0,
            predictive_norm.numpy(),
            marginal_norm.numpy(),
            keys.numpy(),
            labels.numpy(),
            alpha.numpy(),
            *alpha_prior,
            first_sweep,
            n_sweeps,
            thin,
            stop,
            out_labels.numpy(),
            trace_alpha.numpy(),
            trace_components.numpy(),
            trace_log_joint.numpy(),
        )
    except BaseException:
        # Ctrl-C reaches this thread alone: the others end after the sweep they are in.
        stop[0] = 1
        raise
    return out_labels, trace_alpha, trace_components, trace_log_joint
