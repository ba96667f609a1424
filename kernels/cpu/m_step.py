"""CPU twin of :mod:`fastdens.kernels.m_step`, the sums of the M step."""

from __future__ import annotations

import numpy as np
import torch
from fastdens.kernels.cpu._mixture_tiles import add_moments, add_squares, load_responsibilities
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import as_array, parallel_for
from fastdens.kernels.cpu._tied import add_between, add_tied_scatter, heaviest
from fastdens.kernels.cpu._tiles import add_scatter, load_tile, new_tile, padded, tile_width
from fastdens.kernels.layout import Layout
from numpy.typing import NDArray
from torch import Tensor

# Enough for an even share where items differ in their number of points.
_ITEMS_PER_THREAD = 4
# The sums of add_scatter run over points: wide tiles keep the share of their horizontal sums small.
_SCATTER_COLUMNS = 512
# Rows and columns of a matrix that are mirrored together, and elements whose sums are formed together.
_BLOCK = 16
_RUN = 1024


@kernel
def _group(item, n_groups, n_components):
    """The components of an item."""
    g = item % n_groups
    return slice(g * n_components // n_groups, (g + 1) * n_components // n_groups)


@kernel
def _copy(source, out):
    """The columns that both matrices have.

    Element by element: an assignment of arrays brings a message on their shapes, which takes long to compile.
    """
    for i in range(source.shape[0]):
        for j in range(min(source.shape[1], out.shape[1])):
            out[i, j] = source[i, j]


@kernel
def _first_moments(begin, end, model, first_row, last_row, points, resp, n_groups, centres, nk, moment):
    """Item ``c * n_groups + g`` is chunk c for the components of group g."""
    n_components, n_features = centres.shape[1:]
    size = tile_width(n_features)
    tile = new_tile(n_features, size, points)
    shares = np.empty((n_components, size), points.dtype)
    centre = np.zeros((n_components, tile.shape[0]), points.dtype)
    for item in range(begin, end):
        c = item // n_groups
        group = _group(item, n_groups, n_components)
        nk[c, group] = 0
        moment[c, group] = 0
        _copy(centres[model[c]], centre)
        for start in range(first_row[c], last_row[c], size):
            width = min(size, last_row[c] - start)
            load_tile(points, start, width, tile)
            load_responsibilities(resp[:, group], start, width, shares[group])
            add_moments(points, start, tile, width, shares[group], centre[group], nk[c, group], moment[c, group])


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
def centre_columns(tile, width, resp, mean, column, root, centred):
    """Fill ``centred`` with ``sqrt(r) (x - mean)`` of the points of a tile; their number.

    Where most r are zero, their points are left out.
    """
    zero = tile.dtype.type(0)
    filled = 0
    for b in range(width):
        filled += resp[b] != zero
    if 2 * filled > width:
        for b in range(width):
            root[b] = np.sqrt(resp[b])
        for d in range(mean.shape[0]):
            mu = mean[d]
            for b in range(width):
                # A point may be infinite where r is zero.
                centred[d, b] = root[b] * (tile[d, b] - mu) if root[b] != zero else zero
        return width
    filled = 0
    for b in range(width):
        if resp[b] != zero:
            column[filled] = b
            root[filled] = np.sqrt(resp[b])
            filled += 1
    for d in range(mean.shape[0]):
        mu = mean[d]
        for b in range(filled):
            centred[d, b] = root[b] * (tile[d, column[b]] - mu)
    return filled


@kernel
def _full_scatter(begin, end, model, first_row, last_row, points, resp, n_groups, means, out):
    """Item ``c * n_groups + g`` is chunk c for the components of group g."""
    n_components, n_features = means.shape[1:]
    n_padded = padded(n_features)
    size = _SCATTER_COLUMNS
    tile = new_tile(n_features, size, points)
    centred = new_tile(n_features, size, points)
    shares = np.empty((n_components, size), points.dtype)
    column = np.empty(size, np.int32)
    root = np.empty(size, points.dtype)
    # Without padding the sums are formed where they belong.
    padding = n_padded > n_features
    padded_scatter = np.empty((n_components if padding else 0, n_padded, n_padded), points.dtype)
    for item in range(begin, end):
        c = item // n_groups
        group = _group(item, n_groups, n_components)
        scatter = padded_scatter if padding else out[c]
        scatter[group] = 0
        for start in range(first_row[c], last_row[c], size):
            width = min(size, last_row[c] - start)
            load_tile(points, start, width, tile)
            load_responsibilities(resp[:, group], start, width, shares[group])
            for k in range(group.start, group.stop):
                filled = centre_columns(tile, width, shares[k], means[model[c], k], column, root, centred)
                add_scatter(centred, filled, scatter[k])
        for k in range(group.start, group.stop):
            _copy_symmetric(scatter[k], out[c, k])


@kernel
def _tied_scatter(begin, end, model, first_row, last_row, points, resp, nk, means, out, between):
    n_components, n_features = means.shape[1:]
    n_padded, n_components_padded = padded(n_features), padded(n_components)
    size = _SCATTER_COLUMNS
    tile = new_tile(n_features, size, points)
    centred = new_tile(n_features, size, points)
    shares = np.empty((n_components, size), points.dtype)
    share = new_tile(n_components, size, points)
    root = np.empty(size, points.dtype)
    panel = np.empty((n_components, 4), points.dtype)
    scatter = np.empty((n_padded, n_padded), points.dtype)
    products = np.empty((n_components_padded, n_components_padded), points.dtype)
    for c in range(begin, end):
        m = model[c]
        centre = heaviest(nk[m])
        scatter[:] = 0
        products[:] = 0
        for start in range(first_row[c], last_row[c], size):
            width = min(size, last_row[c] - start)
            load_tile(points, start, width, tile)
            load_responsibilities(resp, start, width, shares)
            add_tied_scatter(tile, width, shares, means[m], centre, root, share, panel, centred, scatter, products)
        _copy_symmetric(scatter, out[c])
        _copy_symmetric(products, between[c])


@kernel
def _between(begin, end, means, between, out):
    n_features = means.shape[2]
    n_padded, size = padded(n_features), tile_width(n_features)
    centred = new_tile(n_features, size, means)
    scatter = np.empty((n_padded, n_padded), means.dtype)
    for m in range(begin, end):
        scatter[:] = 0
        for i in range(n_features):
            for j in range(i, n_features):
                scatter[i, j] = out[m, i, j]
        add_between(means[m], between[m], centred, scatter)
        _copy_symmetric(scatter, out[m])


@kernel
def _copy_symmetric(upper, out):
    """A symmetric matrix [D, D] from its upper triangle, in blocks of which the columns stay in the first cache."""
    n = out.shape[0]
    for first in range(0, n, _BLOCK):
        for left in range(first, n, _BLOCK):
            for i in range(first, min(first + _BLOCK, n)):
                for j in range(max(i, left), min(left + _BLOCK, n)):
                    out[i, j] = upper[i, j]
                    out[j, i] = upper[i, j]


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
        _copy(means[model[c]], mean)
        for start in range(first_row[c], last_row[c], size):
            width = min(size, last_row[c] - start)
            load_tile(points, start, width, tile)
            load_responsibilities(resp, start, width, shares)
            add_squares(points, start, tile, width, shares, mean, scatter)
        _copy(scatter, out[c])


@kernel
def _add_chunks(begin, end, first, n_runs, partial, out):
    """Item ``m * n_runs + i`` is the i-th run of elements of model m, its chunks added in order."""
    total = np.empty(_RUN)
    for item in range(begin, end):
        m, left = item // n_runs, item % n_runs * _RUN
        n = min(_RUN, partial.shape[1] - left)
        total[:] = 0
        for c in range(first[m], first[m + 1]):
            for e in range(n):
                total[e] += partial[c, left + e]
        for e in range(n):
            out[m, left + e] = total[e]


def _sum_chunks(partial: Tensor, first: NDArray[np.int64]) -> Tensor:
    n_models = len(first) - 1
    if len(partial) == n_models:
        return partial
    total = torch.empty(n_models, *partial.shape[1:], dtype=partial.dtype, device="cpu")
    n_runs = -(-partial[0].numel() // _RUN)
    parallel_for(
        _add_chunks,
        n_models * n_runs,
        first,
        n_runs,
        partial.reshape(len(partial), -1).numpy(),
        total.reshape(n_models, -1).numpy(),
    )
    return total


def sufficient_statistics(
    points: Tensor, layout: Layout, resp: Tensor, centres: Tensor, *, covariance_type: str = "full"
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts [M, K], means [M, K, D] and scatter about those means, in two passes over the points."""
    n_models, n_components, n_features = centres.shape
    dtype = points.dtype

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="cpu")

    model, start, stop, first = (t.numpy() for t in layout.chunks(n_components, n_features))
    n_chunks = len(model)
    rows = (as_array(points), as_array(resp))
    # Few chunks are shared out by groups of components, each of which has sums of its own.
    n_groups = min(n_components, -(-_ITEMS_PER_THREAD * torch.get_num_threads() // max(1, n_chunks)))
    work = (model, start, stop, *rows)
    centre_array = as_array(centres)

    nk_chunk = np.empty((n_chunks, n_components))
    moment = np.empty((n_chunks, n_components, padded(n_features)))
    parallel_for(_first_moments, n_chunks * n_groups, *work, n_groups, centre_array, nk_chunk, moment)
    nk, means = empty(n_models, n_components), empty(n_models, n_components, n_features)
    eps = 10 * torch.finfo(dtype).eps
    parallel_for(_means, n_models, first, nk_chunk, moment, centre_array, eps, nk.numpy(), means.numpy())
    del moment

    if covariance_type == "full":
        scatter = empty(n_chunks, n_components, n_features, n_features)
        parallel_for(_full_scatter, n_chunks * n_groups, *work, n_groups, means.numpy(), scatter.numpy())
        scatter = _sum_chunks(scatter, first)
    elif covariance_type == "tied":
        # One matrix a chunk, not K: the chunks may be shorter.
        model, start, stop, first = (t.numpy() for t in layout.chunks(1, max(n_features, n_components)))
        scatter = empty(len(model), n_features, n_features)
        between = empty(len(model), n_components, n_components)
        parallel_for(
            _tied_scatter,
            len(model),
            model,
            start,
            stop,
            *rows,
            nk.numpy(),
            means.numpy(),
            scatter.numpy(),
            between.numpy(),
        )
        scatter, between = _sum_chunks(scatter, first), _sum_chunks(between, first)
        parallel_for(_between, n_models, means.numpy(), between.numpy(), scatter.numpy())
    else:
        scatter = empty(n_chunks, n_components, n_features)
        parallel_for(_diagonal_scatter, n_chunks, *work, means.numpy(), scatter.numpy())
        scatter = _sum_chunks(scatter, first)
    if covariance_type == "spherical":
        scatter = scatter.sum(-1)
    return nk, means, scatter
