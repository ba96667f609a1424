"""The inner loops of the CPU kernels, on tiles that stay in the first two levels of cache.

A tile is stored with the dimension first, [D, B], so that the innermost loop always runs over points and
vectorises for every D. Elements are addressed as ``tile[d, b]``: a row taken as an array of its own would cost two
atomic reference counts. D is padded with zeros to a multiple of four, and loops over dimensions are unrolled
four by four, which is what keeps the arithmetic units busy.
"""

from __future__ import annotations

import numpy as np
from fastdens.kernels.cpu._numba import inlined, kernel
from fastdens.kernels.cpu._products import add_squares_of_product, block_columns


@kernel
def padded(n_features):
    """D rounded up to a multiple of four."""
    return (n_features + 3) // 4 * 4


@kernel
def tile_width(n_features):
    """Points in a tile: as many as keep the tile within the second level of cache."""
    if n_features <= 128:
        return 256
    return 128 if n_features <= 256 else 64


@kernel
def new_tile(n_features, size, like):
    """A zeroed tile. Rows are kept 64 bytes apart from a power of two, which would put them all in a few cache sets."""
    return np.zeros((padded(n_features), size + 16), like.dtype)


@kernel
def whole_vectors(width):
    """Width rounded up to whole vectors: columns past the end cost less than a scalar remainder loop."""
    return (width + 31) // 32 * 32


@kernel
def load_tile(points, start, width, tile):
    """Transpose ``points[start:start+width]`` into ``tile`` [D padded, B]."""
    n_features = points.shape[1]
    for b in range(width):
        for d in range(n_features):
            tile[d, b] = points[start + b, d]


@inlined
def pack_columns(factor, j, panel):
    """Columns ``j:j + 4`` of an upper-triangular factor [D, D] into ``panel`` [D padded, 4], padded with zeros."""
    n_features, zero = factor.shape[0], panel.dtype.type(0)
    if j + 4 <= n_features:
        for i in range(j):
            for r in range(4):
                panel[i, r] = factor[i, j + r]
    else:
        for i in range(j):
            for r in range(4):
                panel[i, r] = factor[i, j + r] if j + r < n_features else zero
    for i in range(j, j + 4):
        for r in range(4):
            panel[i, r] = factor[i, j + r] if i <= j + r < n_features else zero


@inlined
def _triangular_form(tile, width, mean, factor, panel, centred, form):
    width = whole_vectors(width)
    for d in range(mean.shape[0]):
        mu = mean[d]
        for b in range(width):
            centred[d, b] = tile[d, b] - mu
    for b in range(width):
        form[b] = 0
    for j in range(0, tile.shape[0], 4):
        pack_columns(factor, j, panel)
        for b in range(0, width, block_columns(tile)):
            add_squares_of_product(panel, centred, b, j + 4, form)


@inlined
def _diagonal_form(tile, width, mean, factor, form):
    n_features, width = mean.shape[0], whole_vectors(width)
    for b in range(width):
        form[b] = 0
    whole = n_features // 4 * 4
    for d in range(0, whole, 4):
        m0, m1, m2, m3 = mean[d], mean[d + 1], mean[d + 2], mean[d + 3]
        u0, u1, u2, u3 = factor[d], factor[d + 1], factor[d + 2], factor[d + 3]
        for b in range(width):
            z0, z1 = (tile[d, b] - m0) * u0, (tile[d + 1, b] - m1) * u1
            z2, z3 = (tile[d + 2, b] - m2) * u2, (tile[d + 3, b] - m3) * u3
            form[b] += z0 * z0 + z1 * z1 + z2 * z2 + z3 * z3
    for d in range(whole, n_features):
        mu, u = mean[d], factor[d]
        for b in range(width):
            z = (tile[d, b] - mu) * u
            form[b] += z * z


@kernel
def quadratic_form(tile, width, mean, factor, panel, centred, form):
    """Squared Mahalanobis distances ``|(x - mean) U|^2`` of a tile into ``form`` [B].

    ``factor`` is U, upper triangular [D, D], or its diagonal [D]; ``panel`` [D padded, 4] and ``centred`` are scratch,
    of which the padding of ``centred`` must be zero on entry and stays so.
    """
    if factor.ndim == 2:
        _triangular_form(tile, width, mean, factor, panel, centred, form)
    else:
        _diagonal_form(tile, width, mean, factor, form)


@kernel
def add_scatter(centred, width, scatter):
    """Add ``Z Z'`` of a tile Z [D padded, B] to the blocks on and above the diagonal of ``scatter``."""
    n_padded, zero = centred.shape[0], centred.dtype.type(0)
    filled, width = width, whole_vectors(width)
    for d in range(n_padded):
        for n in range(filled, width):
            centred[d, n] = 0
    for i in range(0, n_padded, 4):
        for j in range(i, n_padded, 4):
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = zero
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = zero
            for n in range(width):
                p0, p1, p2, p3 = centred[i, n], centred[i + 1, n], centred[i + 2, n], centred[i + 3, n]
                q0, q1, q2, q3 = centred[j, n], centred[j + 1, n], centred[j + 2, n], centred[j + 3, n]
                s00 += p0 * q0
                s01 += p0 * q1
                s02 += p0 * q2
                s03 += p0 * q3
                s10 += p1 * q0
                s11 += p1 * q1
                s12 += p1 * q2
                s13 += p1 * q3
                s20 += p2 * q0
                s21 += p2 * q1
                s22 += p2 * q2
                s23 += p2 * q3
                s30 += p3 * q0
                s31 += p3 * q1
                s32 += p3 * q2
                s33 += p3 * q3
            scatter[i, j] += s00
            scatter[i, j + 1] += s01
            scatter[i, j + 2] += s02
            scatter[i, j + 3] += s03
            scatter[i + 1, j] += s10
            scatter[i + 1, j + 1] += s11
            scatter[i + 1, j + 2] += s12
            scatter[i + 1, j + 3] += s13
            scatter[i + 2, j] += s20
            scatter[i + 2, j + 1] += s21
            scatter[i + 2, j + 2] += s22
            scatter[i + 2, j + 3] += s23
            scatter[i + 3, j] += s30
            scatter[i + 3, j + 1] += s31
            scatter[i + 3, j + 2] += s32
            scatter[i + 3, j + 3] += s33
