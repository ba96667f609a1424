"""CPU twin of :mod:`fastdens.kernels.mixture`: the loop over the components of mixtures."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from fastdens.kernels.cpu._elementary import exp_minus, log1p
from fastdens.kernels.cpu._mixture_tiles import normalise
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import as_array, parallel_for
from fastdens.kernels.cpu._tied import heaviest, shift_means, tied_forms
from fastdens.kernels.cpu._tiles import (
    load_tile,
    new_tile,
    padded,
    quadratic_form,
    tile_width,
    whole_vectors,
)
from fastdens.kernels.layout import Layout
from fastdens.kernels.mixture import Components, empty_log_prob, empty_responsibilities
from numpy.typing import NDArray
from torch import Tensor

_ITEMS_PER_THREAD = 4
# Multiply-adds that are worth a thread's while.
_MIN_WORK = 1 << 20


@kernel
def _add_student_t(form, width, log_joint_norm, dof, n_features, top, total):
    """Add ``exp(log_joint_norm - (nu + D)/2 log(1 + form / nu))`` to the sums ``exp(top) total``."""
    number = form.dtype.type
    norm, scale, power = number(log_joint_norm), number(1 / dof), number(0.5 * (dof + n_features))
    for b in range(whole_vectors(width)):
        joint = norm - power * log1p(form[b] * scale, number)
        rise = joint - top[b]
        # The smaller of the two terms in units of the larger; one exponential is enough.
        ratio = exp_minus(abs(rise), number)
        larger = rise > number(0)
        total[b] = total[b] * ratio + number(1) if larger else total[b] + (ratio if rise == rise else rise)
        top[b] = joint if larger else top[b]


@kernel
def _shift_all(begin, end, offsets, log_joint_norm, means, factors, centre, shift, near):
    """Of models whose components share a factor: the component they are seen from [M], shifts and nearness [G]."""
    for m in range(begin, end):
        own = slice(offsets[m], offsets[m + 1])
        centre[m] = heaviest(log_joint_norm[own])
        shift_means(means[own], centre[m], factors[m], shift[own], near[own])


@kernel
def _mixture_tiles(
    begin,
    end,
    first_model,
    last_model,
    start,
    stop,
    points,
    offsets,
    log_joint_norm,
    means,
    factors,
    tied,
    degrees_of_freedom,
    log_prob,
    resp,
):
    """Rows ``start:stop`` of each tile under models ``first_model:last_model``.

    ``tied`` is None where each component has a factor of its own, else what :func:`_shift_all` fills.
    Without degrees of freedom (None) the components are Gaussians: few and of one number K in every model, so that
    their joint densities are kept and summed at the end. Those of Student-t mixtures may be many and are summed as
    they come.
    """
    n_features, n_columns = points.shape[1], log_prob.shape[1]
    n_padded, size = padded(n_features), tile_width(n_features)
    tile = new_tile(n_features, size, points)
    centred = new_tile(n_features, size, points)
    panel = np.empty((n_padded, 4), points.dtype)
    y = np.empty((0 if tied is None else n_padded, size + 16), points.dtype)
    form = np.empty(size, points.dtype)
    top = np.empty(size, points.dtype)
    total = np.empty(size, points.dtype)
    number = points.dtype.type
    if degrees_of_freedom is None:
        n_components = offsets[1] - offsets[0]
        joint = np.empty((n_components, size), points.dtype)
    else:
        lowest = np.finfo(points.dtype).min
    for item in range(begin, end):
        row = start[item]
        width = stop[item] - row
        load_tile(points, row, width, tile)
        for m in range(first_model[item], last_model[item]):
            first, last, column = offsets[m], offsets[m + 1], m % n_columns
            if degrees_of_freedom is None:
                if tied is None:
                    for k in range(n_components):
                        quadratic_form(tile, width, means[first + k], factors[first + k], panel, centred, joint[k])
                else:
                    centre, shift, near = tied
                    own = slice(first, last)
                    tied_forms(
                        tile, width, means[own], factors[m], centre[m], shift[own], near[own], panel, centred, y, joint
                    )
                for k in range(n_components):
                    norm = number(log_joint_norm[first + k])
                    for b in range(whole_vectors(width)):
                        joint[k, b] = norm - number(0.5) * joint[k, b]
                normalise(joint, width, total, top)
                for b in range(width):
                    log_prob[row + b, column] = top[b]
                    if resp is not None:
                        for k in range(n_components):
                            resp[row + b, k] = joint[k, b]
            else:
                # Below every log-density, yet finite: the first component needs no case of its own.
                top[:] = lowest
                total[:] = 0
                for g in range(first, last):
                    if log_joint_norm[g] != -np.inf:
                        quadratic_form(tile, width, means[g], factors[g], panel, centred, form)
                        _add_student_t(form, width, log_joint_norm[g], degrees_of_freedom[g], n_features, top, total)
                for b in range(width):
                    value = np.nan if first == last else top[b] + np.log(total[b])
                    log_prob[row + b, column] = value


def _run(points: Tensor, components: Components, layout: Layout | None, log_prob: Tensor, resp: Tensor | None) -> None:
    n_points, n_features = points.shape
    if layout is None:
        point_work = components.log_joint_norm.numel() * n_features * n_features
        first, last, start, stop = tiles_and_models(
            n_points, tile_width(n_features), components.n_models, point_work, torch.get_num_threads()
        )
    else:
        first, start, stop, _ = (t.numpy() for t in layout.tiles(tile_width(n_features)))
        last = first + 1
        log_prob = log_prob[:, None]
    dof = components.degrees_of_freedom
    offsets, norm = as_array(components.offsets), as_array(components.log_joint_norm).reshape(-1)
    means = as_array(components.means).reshape(-1, n_features)
    factors = as_array(components.factors).reshape(-1, *[n_features] * (2 if components.triangular else 1))
    tied = None
    if components.tied:
        tied = (
            np.empty(components.n_models, np.int64),
            np.empty((len(means), padded(n_features)), means.dtype),
            np.empty(len(means), np.bool_),
        )
        parallel_for(_shift_all, components.n_models, offsets, norm, means, factors, *tied)
    parallel_for(
        _mixture_tiles,
        len(start),
        first,
        last,
        start,
        stop,
        as_array(points),
        offsets,
        norm,
        means,
        factors,
        tied,
        None if dof is None else as_array(dof.double()),
        log_prob.numpy(),
        None if resp is None else resp.numpy(),
    )


def log_prob(points: Tensor, components: Components, layout: Layout | None = None) -> Tensor:
    """As :func:`fastdens.kernels.mixture.log_prob`."""
    out = empty_log_prob(points, components, layout)
    _run(points, components, layout, out, None)
    return out


def responsibilities(points: Tensor, components: Components, layout: Layout) -> tuple[Tensor, Tensor]:
    """As :func:`fastdens.kernels.mixture.responsibilities`."""
    resp, out = empty_responsibilities(points, components), empty_log_prob(points, components, layout)
    _run(points, components, layout, out, resp)
    return resp, out


@lru_cache(maxsize=64)
def tiles_and_models(
    n_points: int, size: int, n_models: int, point_work: int, n_threads: int
) -> tuple[NDArray[np.int64], ...]:
    """Every tile under all models; where tiles are fewer than the threads can share, under a part of them.

    Four arrays, an item for each program: first model and one past the last, first row and one past the last.
    ``point_work`` is the number of multiply-adds that a point takes under all models.
    """
    start = np.arange(0, n_points, size)
    wanted = _ITEMS_PER_THREAD * n_threads
    work = min(size, n_points) * point_work
    n_blocks = max(1, min(n_models, -(-wanted // max(1, len(start))), work // _MIN_WORK))
    bounds = np.arange(n_blocks + 1) * n_models // n_blocks
    first, last = np.tile(bounds[:-1], len(start)), np.tile(bounds[1:], len(start))
    start = np.repeat(start, n_blocks)
    return first, last, start, np.minimum(start + size, n_points)
