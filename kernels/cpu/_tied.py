"""Components that share one factor, on tiles: what costs D^2 a point is done once, not once for each component.

E step: ``|(x - mean_k) U|^2 = |(x - c) U - (mean_k - c) U|^2`` with the mean of one component as c.

M step: ``sum_k r_k (x - mean_k)(x - mean_k)'`` is ``r (x - m)(x - m)'`` about the point's own centre
``m = sum_k r_k mean_k / r``, where ``r = sum_k r_k``, plus the scatter of the means about m (the parallel axis
theorem), which is ``sum_{j<k} r_j r_k / r (mean_j - mean_k)(mean_j - mean_k)'``. No term is negative: nothing cancels.
"""

from __future__ import annotations

import numpy as np
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._products import block_columns, subtract_product
from fastdens.kernels.cpu._tiles import add_scatter, pack_columns, quadratic_form, whole_vectors


@kernel
def heaviest(weights):
    """The component of the largest weight: a centre that no single wild row can choose."""
    c = 0
    for k in range(1, len(weights)):
        if weights[k] > weights[c]:
            c = k
    return c


@kernel
def shift_means(means, c, factor, shift, near):
    """``(mean_k - mean_c) U`` into ``shift`` [K, D padded], and ``near[k]``, whether distances may be taken by it.

    The distance of a point at a few standard deviations, shifted by s of them, has an error of about s eps. The limit
    on s makes that eps^(2/3); a bound on s stands for it that also covers rounding within the product. A component
    alone has nobody to share with.
    """
    n_components, n_features = means.shape
    limit = np.finfo(means.dtype).eps ** (-1 / 3)
    bound = np.empty(n_features, means.dtype)
    for k in range(n_components):
        shift[k] = 0
        bound[:] = 0
        for i in range(n_features):
            delta = means[k, i] - means[c, i]
            for j in range(i, n_features):
                term = delta * factor[i, j]
                shift[k, j] += term
                bound[j] += abs(term)
        total = 0.0
        for j in range(n_features):
            total += np.float64(bound[j]) ** 2
        near[k] = n_components > 1 and total <= limit * limit


@kernel
def tied_forms(tile, width, means, factor, c, shift, near, panel, centred, y, form):
    """Squared Mahalanobis distances ``|(x - mean_k) U|^2`` of a tile from all components into ``form`` [K, B].

    ``c``, ``shift`` and ``near`` are those of :func:`shift_means`; ``panel``, ``centred`` and ``y``, which has the
    shape of the tile, are scratch as of :func:`fastdens.kernels.cpu._tiles.quadratic_form`.
    """
    n_components, n_features = means.shape
    n_padded, columns = tile.shape[0], whole_vectors(width)
    if near[c]:
        for d in range(n_padded):
            mu = means[c, min(d, n_features - 1)]
            for b in range(columns):
                y[d, b] = 0
                if d < n_features:
                    centred[d, b] = tile[d, b] - mu
        for j in range(0, n_padded, 4):
            pack_columns(factor, j, panel)
            for b in range(0, columns, block_columns(tile)):
                subtract_product(panel, centred, b, 0, j + 4, y, j)
    for k in range(n_components):
        if not near[k]:
            quadratic_form(tile, width, means[k], factor, panel, centred, form[k])
            continue
        for b in range(columns):
            form[k, b] = 0
        for d in range(0, n_padded, 4):
            s0, s1, s2, s3 = shift[k, d], shift[k, d + 1], shift[k, d + 2], shift[k, d + 3]
            for b in range(columns):
                # y is minus the transformed point.
                z0, z1, z2, z3 = y[d, b] + s0, y[d + 1, b] + s1, y[d + 2, b] + s2, y[d + 3, b] + s3
                form[k, b] += z0 * z0 + z1 * z1 + z2 * z2 + z3 * z3


@kernel
def add_tied_scatter(tile, width, resp, means, c, root, share, panel, centred, scatter, between):
    """Add ``sum_b r_b (x_b - m_b)(x_b - m_b)'`` of a tile to ``scatter``, ``sum_b r_jb r_kb / r_b`` to ``between``.

    ``resp`` [K, B] is zero past the last point; ``c`` is the component from whose mean differences are taken. ``root``
    [B], ``share`` [K padded, B + 16], ``panel`` [K, 4] and ``centred`` are scratch, of which the padding of ``share``
    and ``centred`` must be zero on entry and stays so.
    """
    n_components, n_features = means.shape
    zero, width = tile.dtype.type(0), whole_vectors(width)
    for b in range(width):
        root[b] = 0
    for k in range(n_components):
        for b in range(width):
            root[b] += resp[k, b]
    for b in range(width):
        root[b] = np.sqrt(root[b])
    for k in range(n_components):
        for b in range(width):
            share[k, b] = resp[k, b] / root[b] if root[b] != zero else zero
    for d in range(n_features):
        mu = means[c, d]
        for b in range(width):
            centred[d, b] = root[b] * (tile[d, b] - mu) if root[b] != zero else zero
    for d in range(0, tile.shape[0], 4):
        for k in range(n_components):
            for r in range(4):
                panel[k, r] = means[k, d + r] - means[c, d + r] if d + r < n_features else zero
        for b in range(0, width, block_columns(tile)):
            subtract_product(panel, share, b, 0, n_components, centred, d)
    # A share that is NaN has made the padding NaN, and the tiles to come need it to be zero.
    for d in range(n_features, tile.shape[0]):
        for b in range(width):
            centred[d, b] = zero
    add_scatter(centred, width, scatter)
    add_scatter(share, width, between)


@kernel
def add_between(means, between, centred, scatter):
    """Add ``sum_{j<k} between_jk (mean_j - mean_k)(mean_j - mean_k)'`` to ``scatter``; ``centred`` is scratch."""
    n_components, n_features = means.shape
    filled, size = 0, centred.shape[1] - 16
    for j in range(n_components):
        for k in range(j + 1, n_components):
            if between[j, k] != 0:
                root = np.sqrt(between[j, k])
                for d in range(n_features):
                    centred[d, filled] = root * (means[j, d] - means[k, d])
                filled += 1
                if filled == size:
                    add_scatter(centred, filled, scatter)
                    filled = 0
    add_scatter(centred, filled, scatter)
