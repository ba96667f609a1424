"""CPU twin of :mod:`fastdens.kernels.student_t_log_prob`."""

from __future__ import annotations

import numpy as np
import torch
from fastdens.kernels.cpu._elementary import exp_minus, log1p
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import parallel_for
from fastdens.kernels.cpu._tiles import _whole_vectors, load_tile, new_tile, padded, quadratic_form, tile_width
from fastdens.kernels.gaussian_pieces import tiles
from torch import Tensor

_ITEMS_PER_THREAD = 4


@kernel
def _add_component(form, width, log_joint_norm, dof, n_features, top, total):
    """Add ``exp(log_joint_norm - (nu + D)/2 log(1 + form / nu))`` to the sums ``exp(top) total``."""
    number = form.dtype.type
    norm, scale, power = number(log_joint_norm), number(1 / dof), number(0.5 * (dof + n_features))
    for b in range(_whole_vectors(width)):
        joint = norm - power * log1p(form[b] * scale, number)
        rise = joint - top[b]
        # The smaller of the two terms in units of the larger; one exponential is enough.
        ratio = exp_minus(abs(rise), number)
        larger = rise > number(0)
        total[b] = total[b] * ratio + number(1) if larger else total[b] + (ratio if rise == rise else rise)
        top[b] = joint if larger else top[b]


@kernel
def _log_prob_tiles(
    begin,
    end,
    start,
    stop,
    first_model,
    last_model,
    points,
    offsets,
    log_joint_norm,
    locations,
    factors,
    degrees_of_freedom,
    out,
):
    n_features = points.shape[1]
    n_columns = out.shape[1]
    n_padded, size = padded(n_features), tile_width(n_features)
    tile = new_tile(n_features, size, points)
    centred = new_tile(n_features, size, points)
    upper = np.zeros((n_padded, n_padded), points.dtype)
    y = np.empty((4, size), points.dtype)
    form = np.empty(size, points.dtype)
    top = np.empty(size, points.dtype)
    total = np.empty(size, points.dtype)
    lowest = np.finfo(points.dtype).min
    for item in range(begin, end):
        width = stop[item] - start[item]
        load_tile(points, start[item], width, tile)
        for m in range(first_model[item], last_model[item]):
            # Below every log-density, yet finite: the first component needs no case of its own.
            top[:] = lowest
            total[:] = 0
            for g in range(offsets[m], offsets[m + 1]):
                if log_joint_norm[g] != -np.inf:
                    quadratic_form(tile, width, locations[g], factors[g], upper, centred, y, form)
                    _add_component(form, width, log_joint_norm[g], degrees_of_freedom[g], n_features, top, total)
            for b in range(width):
                value = top[b] + np.log(total[b])
                out[start[item] + b, m % n_columns] = np.nan if offsets[m] == offsets[m + 1] else value


def student_t_log_prob(
    points: Tensor,
    offsets: Tensor,
    log_joint_norm: Tensor,
    locations: Tensor,
    scale_precisions_cholesky: Tensor,
    degrees_of_freedom: Tensor,
    ranges: Tensor | None,
) -> Tensor:
    """Log-density of each point under every model [N, M], or under the one that owns its row [N].

    ``log_joint_norm`` float64 [G] is the log weight plus the log normaliser of each component.
    """
    n_points, n_features = points.shape
    n_models = len(offsets) - 1
    size = tile_width(n_features)
    if ranges is None:
        out = torch.empty(n_points, n_models, dtype=points.dtype)
        # Every tile under all models; where tiles are fewer than the threads can share, under a part of them.
        start = torch.arange(0, n_points, size)
        wanted = _ITEMS_PER_THREAD * torch.get_num_threads()
        n_blocks = max(1, min(n_models, -(-wanted // max(1, len(start)))))
        bounds = torch.arange(n_blocks + 1) * n_models // n_blocks
        first, last = bounds[:-1].repeat(len(start)), bounds[1:].repeat(len(start))
        start = start.repeat_interleave(n_blocks)
        stop = (start + size).clamp_max(n_points)
    else:
        out = torch.zeros(n_points, 1, dtype=points.dtype)
        first, start, stop, _ = tiles(ranges, size)
        last = first + 1
    parallel_for(
        _log_prob_tiles,
        len(start),
        *(t.numpy() for t in (start, stop, first, last)),
        points.detach().contiguous().numpy(),
        offsets.contiguous().numpy(),
        log_joint_norm.detach().numpy(),
        locations.detach().contiguous().numpy(),
        scale_precisions_cholesky.detach().contiguous().numpy(),
        degrees_of_freedom.detach().double().numpy(),
        out.numpy(),
    )
    return out if ranges is None else out[:, 0]
