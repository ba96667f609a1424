"""Points of a model, and statistics of the clusters of a chain, as the CPU kernels keep them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._tiles import padded
from numpy.typing import NDArray

# Points whose distances are computed side by side.
COLUMNS = 256


class Prior(NamedTuple):
    """Prior of one model, and the constants that depend on the number of points alone."""

    scale: NDArray[Any]  # [D], diagonal of S0
    log_det: float  # log det S0
    kappa: float
    nu: float
    predictive_norm: NDArray[Any]  # [max n + 1]
    marginal_norm: NDArray[Any]  # [max n + 1]


class Points(NamedTuple):
    """Points of one model about the prior mean, dimension first; D and n are padded with zeros."""

    columns: NDArray[Any]  # [D, n]
    prior_mahalanobis_sq: NDArray[Any]  # [n], squared distance from m0 under S0
    prior_log_prob: NDArray[Any]  # [n], log t_0


class Clusters(NamedTuple):
    """Statistics of the S slots of a chain; a slot without points is free, and the last is scratch.

    The log-weight of cluster k for a point i that it does not hold is ``base[k] - power[k] logs[i, k]``, where
    ``logs[i, k]`` is ``log(1 + kappa / (kappa + 1) mahalanobis_sq[k, i])``.
    """

    counts: NDArray[Any]  # [S]
    mean: NDArray[Any]  # [S, D]
    inverse: NDArray[Any]  # [S, D, D], inverse scale matrices
    log_det: NDArray[Any]  # [S], of the scale matrices
    base: NDArray[Any]  # [S]
    power: NDArray[Any]  # [S]
    mahalanobis_sq: NDArray[Any]  # [S, n]
    logs: NDArray[Any]  # [n, S]
    log_weight: NDArray[Any]  # [S], scratch of a draw
    moves: NDArray[Any]  # [S], points that joined or left in this sweep
    volatile: NDArray[Any]  # [S], whether distances follow moves in the current block of points only


class Scratch(NamedTuple):
    """Memory that a thread uses again for every chain; D is padded."""

    tile: NDArray[Any]  # [D, COLUMNS + 16]: the points of a block, or members of a cluster
    centred: NDArray[Any]  # [D, COLUMNS + 16]
    y: NDArray[Any]  # [4, COLUMNS]
    value: NDArray[Any]  # [COLUMNS]
    shift: NDArray[Any]  # [2, COLUMNS]
    delta: NDArray[Any]  # [D]
    w: NDArray[Any]  # [2, D], of a change of a cluster
    quadratic: NDArray[Any]  # [2, 4], m'w of such a change, and the quadratic that distances change by
    a: NDArray[Any]  # [D, D + 16]
    inv: NDArray[Any]  # [D, D and whole vectors + 16]
    panel: NDArray[Any]  # [D, 4]


@kernel
def new_scratch(n_features):
    """Zeroed scratch."""
    n_padded = padded(n_features)
    return Scratch(
        np.zeros((n_padded, COLUMNS + 16)),
        np.zeros((n_padded, COLUMNS + 16)),
        np.zeros((4, COLUMNS)),
        np.zeros(COLUMNS),
        np.zeros((2, COLUMNS)),
        np.zeros(n_padded),
        np.zeros((2, n_padded)),
        np.zeros((2, 4)),
        np.zeros((n_padded, n_padded + 16)),
        np.zeros((n_padded, (n_padded + 31) // 32 * 32 + 16)),
        np.zeros((n_padded, 4)),
    )


@kernel
def new_clusters(capacity, n_padded, n_columns):
    """Free slots."""
    return Clusters(
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
def free_clusters(capacity, n_columns, clusters):
    """At least so many free slots: those of the last chain where they suffice, for new memory costs more."""
    if len(clusters.counts) < capacity or clusters.mahalanobis_sq.shape[1] != n_columns:
        return new_clusters(capacity, clusters.mean.shape[1], n_columns)
    clusters.counts[:] = 0
    clusters.base[:] = -np.inf
    clusters.power[:] = 0
    clusters.moves[:] = 0
    clusters.volatile[:] = False
    return clusters


@kernel
def add_slots(clusters):
    """The same clusters with as many free slots again."""
    capacity, n_padded = clusters.mean.shape
    larger = new_clusters(2 * capacity, n_padded, clusters.mahalanobis_sq.shape[1])
    larger.counts[:capacity] = clusters.counts
    larger.mean[:capacity] = clusters.mean
    larger.inverse[:capacity] = clusters.inverse
    larger.log_det[:capacity] = clusters.log_det
    larger.base[:capacity] = clusters.base
    larger.power[:capacity] = clusters.power
    larger.mahalanobis_sq[:capacity] = clusters.mahalanobis_sq
    larger.logs[:, :capacity] = clusters.logs
    larger.moves[:capacity] = clusters.moves
    larger.volatile[:capacity] = clusters.volatile
    return larger


@kernel
def load_points(points, start, stop, prior_mean, prior):
    """Points of the rows ``start:stop``."""
    n_points, n_features = stop - start, points.shape[1]
    # Columns are whole vectors, and rows not a power of two apart, which would put them all in a few cache sets.
    n_columns = (n_points + 7) // 8 * 8
    n_columns += 8 if n_columns % 64 == 0 else 0
    columns = np.zeros((padded(n_features), n_columns))
    mahalanobis_sq, log_prob = np.zeros(n_columns), np.zeros(n_columns)
    for i in range(n_points):
        for d in range(n_features):
            columns[d, i] = points[start + i, d] - prior_mean[d]
            mahalanobis_sq[i] += columns[d, i] * columns[d, i] / prior.scale[d]
        spread = math.log(1 + prior.kappa / (prior.kappa + 1) * mahalanobis_sq[i])
        log_prob[i] = prior.predictive_norm[0] - 0.5 * prior.log_det - 0.5 * (prior.nu + 1) * spread
    return Points(columns, mahalanobis_sq, log_prob)
