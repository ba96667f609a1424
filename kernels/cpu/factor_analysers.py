"""CPU twin of :mod:`fastdens.kernels.factor_analysers`: points under factor analysers, and the sums of the M step.

All arithmetic is in float64. A tile of points is kept twice: as it was read, [B, D], for the sums over points, and in
units of the noise of one component, [D, B], for the sums over dimensions.
"""

from __future__ import annotations

import numpy as np
import torch
from fastdens.kernels.cpu._mixture_tiles import normalise
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import as_array, parallel_for
from fastdens.kernels.cpu._products import block_columns, subtract_product
from fastdens.kernels.cpu._tiles import padded, whole_vectors
from fastdens.kernels.cpu.factor_m_step import whitened
from fastdens.kernels.cpu.mixture import tiles_and_models
from fastdens.kernels.layout import Layout
from fastdens.kernels.reference.factor_analysers import log_normaliser
from numpy.typing import NDArray
from torch import Tensor

# Points in a tile of at most so many dimensions, and in one of more.
_WIDE, _NARROW, _MOST_OF_WIDE = 64, 32, 256

Components = tuple[NDArray[np.float64], ...]


@kernel
def _tile_width(n_features):
    return _WIDE if n_features <= _MOST_OF_WIDE else _NARROW


@kernel
def _whole_blocks(n_features, like):
    """D rounded up to whole blocks of products."""
    columns = block_columns(like)
    return (n_features + columns - 1) // columns * columns


@kernel
def _new_rows(n_rows, n_features, like):
    """Zeros; rows are kept 64 bytes apart from a power of two, which would put them all in a few cache sets."""
    return np.zeros((n_rows, _whole_blocks(n_features, like) + 8))


@kernel
def _load_rows(points, start, width, rows):
    """Fill ``rows`` [B, D] with zeros past the last point, up to a multiple of four."""
    for b in range(width, padded(width)):
        for d in range(points.shape[1]):
            rows[b, d] = 0.0
    for b in range(width):
        for d in range(points.shape[1]):
            rows[b, d] = points[start + b, d]


@kernel
def _in_units_of_noise(rows, width, mean, scale, tile):
    """Fill ``tile`` [D padded, B] with ``(x - mean) scale``; zeros in the padding, where NaN may have been left."""
    n_features, width = mean.shape[0], whole_vectors(width)
    whole = n_features // 4 * 4
    for d in range(0, whole, 4):
        m0, m1, m2, m3 = mean[d], mean[d + 1], mean[d + 2], mean[d + 3]
        s0, s1, s2, s3 = scale[d], scale[d + 1], scale[d + 2], scale[d + 3]
        for b in range(width):
            tile[d, b] = (rows[b, d] - m0) * s0
            tile[d + 1, b] = (rows[b, d + 1] - m1) * s1
            tile[d + 2, b] = (rows[b, d + 2] - m2) * s2
            tile[d + 3, b] = (rows[b, d + 3] - m3) * s3
    for d in range(whole, tile.shape[0]):
        for b in range(width):
            tile[d, b] = (rows[b, d] - mean[d]) * scale[d] if d < n_features else 0.0


@kernel
def _pack(begin, end, directions, shrinkage, onto, back):
    """Four rows of -V' beside each other, [Q padded / 4, D, 4], and four of ``V c``, [D padded / 4, Q, 4]."""
    n_factors, n_features = directions.shape[1:]
    for g in range(begin, end):
        for block in range(onto.shape[1]):
            for d in range(n_features):
                for r in range(4):
                    q = 4 * block + r
                    onto[g, block, d, r] = -directions[g, q, d] if q < n_factors else 0.0
        for block in range(back.shape[1]):
            for q in range(n_factors):
                for r in range(4):
                    d = 4 * block + r
                    back[g, block, q, r] = shrinkage[g, q] * directions[g, q, d] if d < n_features else 0.0


@kernel
def _weigh(width, onto, back, log_norm, tile, z, joint):
    """From ``tile`` [D padded, B] in units of the noise, ``z = V' y`` and log joint densities [B].

    ``y - V (c z)`` with ``c = 1 - 1 / sqrt(1 + e)`` takes the place of y: its length is the Mahalanobis distance.
    """
    width, step = whole_vectors(width), block_columns(tile)
    for block in range(len(onto)):
        for q in range(4 * block, 4 * block + 4):
            for b in range(width):
                z[q, b] = 0.0
        for b in range(0, width, step):
            subtract_product(onto[block], tile, b, 0, onto.shape[1], z, 4 * block)
    for b in range(width):
        joint[b] = 0.0
    for block in range(len(back)):
        d = 4 * block
        for b in range(0, width, step):
            subtract_product(back[block], z, b, 0, back.shape[1], tile, d)
        for b in range(width):
            y0, y1, y2, y3 = tile[d, b], tile[d + 1, b], tile[d + 2, b], tile[d + 3, b]
            joint[b] += y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3
    for b in range(width):
        joint[b] = log_norm - 0.5 * joint[b]


@kernel
def _add_sums(rows, width, mean, r, z, panel, nk, moment, squares, cross, inner):
    """Add ``sum r``, ``sum r (x - mean)``, ``sum r (x - mean)^2``, ``sum r z x'`` and ``sum r z``; ``nk`` is [1].

    Past the last point, up to a multiple of four, r and the rows must be zero.
    """
    n_features, n_columns = mean.shape[0], rows.shape[1] - 8
    for b in range(0, width, 4):
        r0, r1, r2, r3 = r[b], r[b + 1], r[b + 2], r[b + 3]
        nk[0] += r0 + r1 + r2 + r3
        if r0 != 0.0 or r1 != 0.0 or r2 != 0.0 or r3 != 0.0:
            for d in range(n_features):
                mu = mean[d]
                y0, y1, y2, y3 = rows[b, d] - mu, rows[b + 1, d] - mu, rows[b + 2, d] - mu, rows[b + 3, d] - mu
                moment[d] += r0 * y0 + r1 * y1 + r2 * y2 + r3 * y3
                squares[d] += r0 * (y0 * y0) + r1 * (y1 * y1) + r2 * (y2 * y2) + r3 * (y3 * y3)
    for first in range(0, z.shape[0], 4):
        for b in range(width):
            for q in range(4):
                share = r[b] * z[first + q, b] if r[b] != 0.0 else 0.0
                panel[b, q] = -share
                inner[first + q] += share
        for d in range(0, n_columns, block_columns(rows)):
            subtract_product(panel, rows, d, 0, width, cross, first)


@kernel
def _under_all(begin, end, first_model, last_model, start, stop, points, components, log_prob):
    """Rows ``start:stop`` of each tile under models ``first_model:last_model``, log-densities [N, M]."""
    log_joint_norm, means, scale, onto, back = components
    (n_components, n_features), n_factors = means.shape[1:], back.shape[3]
    size, n_padded = _tile_width(n_features), padded(n_features)
    rows = _new_rows(size, n_features, scale)
    tile = np.zeros((n_padded, size + 16))
    z = np.zeros((padded(n_factors), size + 16))
    joint = np.empty((n_components, size))
    total = np.empty(size)
    top = np.empty(size)
    for item in range(begin, end):
        width = stop[item] - start[item]
        _load_rows(points, start[item], width, rows)
        for m in range(first_model[item], last_model[item]):
            for k in range(n_components):
                _in_units_of_noise(rows, width, means[m, k], scale[m, k], tile)
                _weigh(width, onto[m, k], back[m, k], log_joint_norm[m, k], tile, z, joint[k])
            normalise(joint, width, total, top)
            for b in range(width):
                log_prob[start[item] + b, m] = top[b]


@kernel
def _under_own(begin, end, model, first_row, last_row, points, sample_weight, given, components, log_prob, resp, sums):
    """Rows of each chunk under the model that owns them: log-densities [N], responsibilities [N, K] and sums.

    ``given`` [N, K] are responsibilities to sum with in the place of those found; it has no rows where there are none,
    as ``sample_weight`` [N] and ``resp`` have. ``sums`` are those of each chunk; they have none where none are wanted.
    """
    log_joint_norm, means, scale, onto, back = components
    likelihood, nk, moment, squares, cross = sums
    (n_components, n_features), n_factors = means.shape[1:], back.shape[3]
    size, n_padded = _tile_width(n_features), padded(n_features)
    rows = _new_rows(size, n_features, scale)
    tile = np.zeros((n_padded, size + 16))
    z = np.zeros((n_components, padded(n_factors), size + 16))
    panel = np.zeros((size, 4))
    joint = np.empty((n_components, size))
    total = np.empty(size)
    top = np.empty(size)
    own_cross = np.zeros((n_components, *_new_rows(padded(n_factors), n_features, scale).shape))
    inner = np.zeros((n_components, padded(n_factors)))
    summed = len(nk) > 0
    for c in range(begin, end):
        m = model[c]
        if summed:
            own_cross[:] = 0.0
            inner[:] = 0.0
            likelihood[c] = 0.0
            nk[c] = 0.0
            moment[c] = 0.0
            squares[c] = 0.0
        for start in range(first_row[c], last_row[c], size):
            width = min(size, last_row[c] - start)
            _load_rows(points, start, width, rows)
            for k in range(n_components):
                _in_units_of_noise(rows, width, means[m, k], scale[m, k], tile)
                _weigh(width, onto[m, k], back[m, k], log_joint_norm[m, k], tile, z[k], joint[k])
            normalise(joint, width, total, top)
            for b in range(width):
                log_prob[start + b] = top[b]
            if len(resp) > 0:
                for b in range(width):
                    for k in range(n_components):
                        resp[start + b, k] = joint[k, b]
            if summed:
                for b in range(width):
                    weight = sample_weight[start + b] if len(sample_weight) > 0 else 1.0
                    if weight != 0.0:
                        likelihood[c] += weight * top[b]
                    for k in range(n_components):
                        share = given[start + b, k] if len(given) > 0 else joint[k, b]
                        joint[k, b] = weight * share if weight != 0.0 else 0.0
                for k in range(n_components):
                    for b in range(width, padded(width)):
                        joint[k, b] = 0.0
                    if np.any(joint[k, :width] != 0.0):
                        _add_sums(
                            rows,
                            width,
                            means[m, k],
                            joint[k],
                            z[k],
                            panel,
                            nk[c, k : k + 1],
                            moment[c, k],
                            squares[c, k],
                            own_cross[k],
                            inner[k],
                        )
        if summed:
            for k in range(n_components):
                for q in range(n_factors):
                    for d in range(n_features):
                        cross[c, k, q, d] = own_cross[k, q, d] - inner[k, q] * means[m, k, d]


def _components(weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor) -> tuple[Components, Tensor]:
    """What the loops over points read, and the directions [M, K, Q, D] as a tensor."""
    (n_models, k, d), q = means.shape, loadings.shape[-1]
    scale, directions, strengths = whitened(loadings, noise_variances)
    log_joint_norm = weights.double().log() + log_normaliser(scale, strengths)
    onto, back = _empty(n_models, k, -(-q // 4), d, 4).numpy(), _empty(n_models, k, -(-d // 4), q, 4).numpy()
    shrinkage = 1 - (1 + strengths).rsqrt()
    by_component = (a.reshape(-1, *a.shape[2:]) for a in (directions.numpy(), shrinkage.numpy(), onto, back))
    parallel_for(_pack, n_models * k, *by_component)
    return (*map(as_array, (log_joint_norm, means.double(), scale)), onto, back), directions


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device="cpu")


def factor_mixture_log_prob(
    points: Tensor, weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor
) -> Tensor:
    """As :func:`fastdens.kernels.reference.factor_analysers.factor_mixture_log_prob`."""
    (n_points, n_features), (n_models, n_components) = points.shape, weights.shape
    components, _ = _components(weights, means, loadings, noise_variances)
    out = _empty(n_points, n_models)
    work = n_models * n_components * n_features * loadings.shape[-1]
    size = _tile_width(n_features)
    first, last, start, stop = tiles_and_models(n_points, size, n_models, work, torch.get_num_threads())
    parallel_for(_under_all, len(start), first, last, start, stop, as_array(points), components, out.numpy())
    return out


def factor_responsibilities(
    points: Tensor, layout: Layout, weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor
) -> tuple[Tensor, Tensor]:
    """As :func:`fastdens.kernels.reference.factor_analysers.factor_responsibilities`."""
    components, _ = _components(weights, means, loadings, noise_variances)
    k, q, d = means.shape[1], loadings.shape[-1], means.shape[-1]
    resp = torch.zeros(len(points), k, dtype=torch.float64, device="cpu")
    log_prob = torch.zeros(len(points), dtype=torch.float64, device="cpu")
    sums = tuple(_empty(*shape).numpy() for shape in ((0,), (0, k), (0, k, d), (0, k, d), (0, k, q, d)))
    model, start, stop, _ = (t.numpy() for t in layout.tiles(_tile_width(d)))
    work = model, start, stop, as_array(points), _empty(0).numpy(), _empty(0, k).numpy(), components
    parallel_for(_under_own, len(model), *work, log_prob.numpy(), resp.numpy(), sums)
    return resp, log_prob


def factor_statistics(
    points: Tensor,
    layout: Layout,
    weights: Tensor,
    means: Tensor,
    loadings: Tensor,
    noise_variances: Tensor,
    sample_weight: Tensor | None,
    resp: Tensor | None,
) -> tuple[Tensor, ...]:
    """As :func:`fastdens.kernels.reference.factor_analysers.factor_statistics`."""
    components, directions = _components(weights, means, loadings, noise_variances)
    k, q, d = means.shape[1], loadings.shape[-1], means.shape[-1]
    # As many rows as make the sums of a chunk no larger than its points.
    model, start, stop, first = layout.chunks(k, q)
    n = len(model)
    sums = tuple(_empty(*shape) for shape in ((n,), (n, k), (n, k, d), (n, k, d), (n, k, q, d)))
    given = _empty(0, k) if resp is None else resp.double()
    counted = _empty(0) if sample_weight is None else sample_weight.double()
    chunks = (t.numpy() for t in (model, start, stop))
    parallel_for(
        _under_own,
        n,
        *chunks,
        as_array(points),
        as_array(counted),
        as_array(given),
        components,
        _empty(len(points)).numpy(),
        _empty(0, k).numpy(),
        tuple(value.numpy() for value in sums),
    )
    if n > layout.n_models:
        sums = tuple(torch.segment_reduce(value, "sum", offsets=first, unsafe=True) for value in sums)
    return (*sums, directions)
