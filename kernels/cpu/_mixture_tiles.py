"""What the E and the M step of mixtures do with a tile [D padded, B], beside matrix products.

Responsibilities of a tile are kept as ``resp[k, b]``, so that every loop runs over points. Sums run over whole vectors:
past the last point responsibilities must be zero. What has a responsibility of zero adds nothing, even where it is
infinite or NaN; a responsibility of NaN stays visible.
"""

from __future__ import annotations

from fastdens.kernels.cpu._elementary import exp_minus, log1p
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._tiles import whole_vectors


@kernel
def load_responsibilities(resp, start, width, tile):
    """Transpose ``resp[start:start+width]`` [N, K] into ``tile`` [K, B], with zeros past the last point."""
    for k in range(resp.shape[1]):
        for b in range(width, whole_vectors(width)):
            tile[k, b] = 0
    for b in range(width):
        for k in range(resp.shape[1]):
            tile[k, b] = resp[start + b, k]


@kernel
def normalise(joint, width, total, log_prob):
    """Turn log joint densities ``joint[k, b]`` into responsibilities, with ``log sum_k exp joint[k, b]`` in log_prob.

    Where all are minus infinity, so is the sum; where one is NaN, so is the sum; the responsibilities are then NaN.
    """
    number = joint.dtype.type
    n_components, width = joint.shape[0], whole_vectors(width)
    if n_components == 1:
        for b in range(width):
            log_prob[b] = joint[0, b]
            joint[0, b] = number(1) + (joint[0, b] - joint[0, b])
        return
    for b in range(width):
        log_prob[b] = joint[0, b]
        total[b] = 0
    for k in range(1, n_components):
        for b in range(width):
            value, top = joint[k, b], log_prob[b]
            log_prob[b] = top if value <= top or top != top else value
    for k in range(n_components):
        for b in range(width):
            # Of a top that is not finite no term is left, and the quotients below are NaN.
            term = exp_minus(log_prob[b] - joint[k, b], number)
            joint[k, b] = term
            total[b] += term
    for b in range(width):
        log_prob[b] += log1p(total[b] - number(1), number)
        total[b] = number(1) / total[b]
    for k in range(n_components):
        for b in range(width):
            joint[k, b] *= total[b]


@kernel
def _mostly_zero(resp, width, n_features):
    """Whether the points of ``resp`` [B] that are not zero are worth looking up one by one, in vectors of features."""
    filled = 0
    for b in range(width):
        filled += resp[b] != 0
    return n_features >= 16 and 4 * filled <= width


@kernel
def add_moments(points, first, tile, width, resp, centre, nk, moment):
    """Add ``sum_b r_kb`` to ``nk[k]`` and ``sum_b r_kb (x_b - centre_k)`` to ``moment[k]``, both float64.

    ``tile`` holds the rows of ``points`` from ``first`` on; ``centre`` and ``moment`` are padded as the tile is.
    """
    zero, filled, width = tile.dtype.type(0), width, whole_vectors(width)
    for k in range(resp.shape[0]):
        count = zero
        for b in range(width):
            count += resp[k, b]
        nk[k] += count
        if _mostly_zero(resp[k], filled, points.shape[1]):
            for b in range(filled):
                r = resp[k, b]
                if r != zero:
                    for d in range(points.shape[1]):
                        moment[k, d] += r * (points[first + b, d] - centre[k, d])
            continue
        for d in range(0, tile.shape[0], 4):
            c0, c1, c2, c3 = centre[k, d], centre[k, d + 1], centre[k, d + 2], centre[k, d + 3]
            s0 = s1 = s2 = s3 = zero
            for b in range(width):
                r = resp[k, b]
                s0 += r * (tile[d, b] - c0 if r != zero else zero)
                s1 += r * (tile[d + 1, b] - c1 if r != zero else zero)
                s2 += r * (tile[d + 2, b] - c2 if r != zero else zero)
                s3 += r * (tile[d + 3, b] - c3 if r != zero else zero)
            moment[k, d] += s0
            moment[k, d + 1] += s1
            moment[k, d + 2] += s2
            moment[k, d + 3] += s3


@kernel
def add_squares(points, first, tile, width, resp, mean, scatter):
    """Add ``sum_b r_kb (x_b - mean_k)^2`` to ``scatter[k]``, float64.

    Arguments are those of :func:`add_moments`.
    """
    zero, filled, width = tile.dtype.type(0), width, whole_vectors(width)
    for k in range(resp.shape[0]):
        if _mostly_zero(resp[k], filled, points.shape[1]):
            for b in range(filled):
                r = resp[k, b]
                if r != zero:
                    for d in range(points.shape[1]):
                        z = points[first + b, d] - mean[k, d]
                        scatter[k, d] += r * (z * z)
            continue
        for d in range(0, tile.shape[0], 4):
            m0, m1, m2, m3 = mean[k, d], mean[k, d + 1], mean[k, d + 2], mean[k, d + 3]
            s0 = s1 = s2 = s3 = zero
            for b in range(width):
                r = resp[k, b]
                z0 = tile[d, b] - m0 if r != zero else zero
                z1 = tile[d + 1, b] - m1 if r != zero else zero
                z2 = tile[d + 2, b] - m2 if r != zero else zero
                z3 = tile[d + 3, b] - m3 if r != zero else zero
                s0 += r * (z0 * z0)
                s1 += r * (z1 * z1)
                s2 += r * (z2 * z2)
                s3 += r * (z3 * z3)
            scatter[k, d] += s0
            scatter[k, d + 1] += s1
            scatter[k, d + 2] += s2
            scatter[k, d + 3] += s3
