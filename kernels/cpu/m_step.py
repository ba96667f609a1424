"""CPU twin of :mod:`fastdens.kernels.m_step`, the sums of the M step."""

from __future__ import annotations

import numpy as np
import torch
from fastdens.kernels.cpu._mixture_tiles import add_moments, add_squares, load_responsibilities
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import as_array, parallel_for
from fastdens.kernels.cpu._tiles import add_scatter, load_tile, new_tile, padded, tile_width
from fastdens.kernels.layout import Layout
from torch import Tensor


@kernel
def _first_moments(begin, end, model, first_row, last_row, points, resp, centres, nk, moment):
    n_components, n_features = centres.shape[1:]
    size = tile_width(n_features)
    tile = new_tile(n_features, size, points)
    shares = np.empty((n_components, size), points.dtype)
    centre = np.zeros((n_components, tile.shape[0]), points.dtype)
    for c in range(begin, end):
        nk[c] = 0
        moment[c] = 0
        centre[:, :n_features] = centres[model[c]]
        for start in range(first_row[c], last_row[c], size):
            width = min(size, last_row[c] - start)
            load_tile(points, start, width, tile)
            load_responsibilities(resp, start, width, shares)
            add_moments(tile, width, shares, centre, nk[c], moment[c])


@kernel
def _means(begin, end, first, nk_chunk, moment, centres, eps, nk, means):
    n_components, n_features = centres.shape[1:]
    for m in range(begin, end):
        for k in range(n_components):
            total = nk_chunk[first[m], k]
            for c in range(first[m] + 1, first[m + 1]):
                total += nk_chunk[c, k]
            total += eps
            nk[m, k] = total
            for d in range(n_features):
                shift = moment[first[m], k, d]
                for c in range(first[m] + 1, first[m + 1]):
                    shift += moment[c, k, d]
                means[m, k, d] = centres[m, k, d] + shift / total


@kernel
def centre_columns(tile, start, width, resp, k, mean, column, root, centred):
    """Fill ``centred`` with ``sqrt(r) (x - mean)`` of the points of a tile whose r is not zero; their number."""
    filled = 0
    for b in range(width):
        r = resp[start + b, k]
        if r != 0:
            column[filled] = b
            root[filled] = np.sqrt(r)
            filled += 1
    for d in range(mean.shape[0]):
        mu = mean[d]
        if filled == width:
            for b in range(width):
                centred[d, b] = root[b] * (tile[d, b] - mu)
        else:
            for b in range(filled):
                centred[d, b] = root[b] * (tile[d, column[b]] - mu)
    return filled


@kernel
def _full_scatter(begin, end, model, first_row, last_row, points, resp, means, tied, out):
    n_components, n_features = means.shape[1:]
    n_padded = padded(n_features)
    # The reductions of add_scatter run over points: twice the width halves the share of their horizontal sums.
    size = 2 * tile_width(n_features)
    tile = new_tile(n_features, size, points)
    centred = new_tile(n_features, size, points)
    column = np.empty(size, np.int32)
    root = np.empty(size, points.dtype)
    n_factors = out.shape[1]
    scatter = np.empty((n_factors, n_padded, n_padded), points.dtype)
    for c in range(begin, end):
        m = model[c]
        scatter[:] = 0
        for start in range(first_row[c], last_row[c], size):
            width = min(size, last_row[c] - start)
            load_tile(points, start, width, tile)
            for k in range(n_components):
                filled = centre_columns(tile, start, width, resp, k, means[m, k], column, root, centred)
                add_scatter(centred, filled, scatter[0 if tied else k])
        for f in range(n_factors):
            for i in range(n_features):
                for j in range(i, n_features):
                    out[c, f, i, j] = scatter[f, i, j]
                    out[c, f, j, i] = scatter[f, i, j]


@kernel
def _diagonal_scatter(begin, end, model, first_row, last_row, points, resp, means, out):
    n_components, n_features = means.shape[1:]
    size = tile_width(n_features)
    tile = new_tile(n_features, size, points)
    shares = np.empty((n_components, size), points.dtype)
    mean = np.zeros((n_components, tile.shape[0]), points.dtype)
    scatter = np.empty(mean.shape)
    for c in range(begin, end):
        scatter[:] = 0
        mean[:, :n_features] = means[model[c]]
        for start in range(first_row[c], last_row[c], size):
            width = min(size, last_row[c] - start)
            load_tile(points, start, width, tile)
            load_responsibilities(resp, start, width, shares)
            add_squares(tile, width, shares, mean, scatter)
        out[c] = scatter[:, :n_features]


@kernel
def _add_chunks(begin, end, first, partial, out):
    for m in range(begin, end):
        for e in range(partial.shape[1]):
            total = np.float64(partial[first[m], e])
            for c in range(first[m] + 1, first[m + 1]):
                total += partial[c, e]
            out[m, e] = total


def sufficient_statistics(
    points: Tensor, layout: Layout, resp: Tensor, centres: Tensor, *, covariance_type: str = "full"
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts [M, K], means [M, K, D] and scatter about those means, in two passes over the points."""
    n_models, n_components, n_features = centres.shape
    dtype = points.dtype
    model, start, stop, first = (t.numpy() for t in layout.chunks(n_components, n_features))
    n_chunks = len(model)
    work = (model, start, stop, as_array(points), as_array(resp))
    centre_array = as_array(centres)

    nk_chunk = np.empty((n_chunks, n_components))
    moment = np.empty((n_chunks, n_components, padded(n_features)))
    parallel_for(_first_moments, n_chunks, *work, centre_array, nk_chunk, moment)
    nk = torch.empty(n_models, n_components, dtype=dtype, device="cpu")
    means = torch.empty(n_models, n_components, n_features, dtype=dtype, device="cpu")
    eps = 10 * torch.finfo(dtype).eps
    parallel_for(_means, n_models, first, nk_chunk, moment, centre_array, eps, nk.numpy(), means.numpy())
    del moment

    if covariance_type in ("full", "tied"):
        n_factors = n_components if covariance_type == "full" else 1
        scatter = torch.empty(n_chunks, n_factors, n_features, n_features, dtype=dtype, device="cpu")
        tied = covariance_type == "tied"
        parallel_for(_full_scatter, n_chunks, *work, means.numpy(), tied, scatter.numpy())
    else:
        scatter = torch.empty(n_chunks, n_components, n_features, dtype=dtype, device="cpu")
        parallel_for(_diagonal_scatter, n_chunks, *work, means.numpy(), scatter.numpy())
    if n_chunks != n_models:
        total = torch.empty(n_models, *scatter.shape[1:], dtype=dtype, device="cpu")
        parallel_for(
            _add_chunks,
            n_models,
            first,
            scatter.reshape(n_chunks, -1).numpy(),
            total.reshape(n_models, -1).numpy(),
        )
        scatter = total
    if covariance_type == "tied":
        scatter = scatter[:, 0]
    elif covariance_type == "spherical":
        scatter = scatter.sum(-1)
    return nk, means, scatter
