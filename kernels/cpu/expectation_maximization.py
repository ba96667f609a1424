"""CPU twin of :mod:`fastdens.kernels.expectation_maximization`: all steps of a small model in one call.

A thread that takes a small model lays its points out in tiles once, and goes through the steps without leaving
compiled code. A model whose steps are worth more than one thread is left to the operations that a step consists of,
which share its chunks. Which of the two depends on the size of the model alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from fastdens.kernels.cpu._cholesky import factor, invert
from fastdens.kernels.cpu._elementary import log1p
from fastdens.kernels.cpu._mixture_tiles import add_moments, add_squares, normalise
from fastdens.kernels.cpu._numba import inlined, kernel
from fastdens.kernels.cpu._parallel import as_array, parallel_for
from fastdens.kernels.cpu._tied import add_between, add_tied_scatter, heaviest, shift_means, tied_forms
from fastdens.kernels.cpu._tiles import (
    add_scatter,
    load_tile,
    new_tile,
    padded,
    quadratic_form,
    tile_width,
    whole_vectors,
)
from fastdens.kernels.cpu.m_step import centre_columns
from fastdens.kernels.cpu.tiny_em_steps import are_tiny, tiny_steps
from fastdens.kernels.e_step import responsibilities
from fastdens.kernels.expectation_maximization import EMSteps, joined, steps_by_size
from fastdens.kernels.layout import Layout
from fastdens.kernels.m_step import sufficient_statistics
from fastdens.kernels.options import GaussianOptions
from fastdens.kernels.parameters import gaussian_parameters
from torch import Tensor

# Multiply-adds of a step that one thread does in about the time that it takes to share them.
_MOST_WORK = 1 << 24
_LOG_2_PI = math.log(2 * math.pi)


@inlined
def _load_tiles(points, start, stop, tiles):
    """Lay rows ``start:stop`` out in tiles; their number."""
    size = tile_width(points.shape[1])
    n_tiles = 0
    for row in range(start, stop, size):
        load_tile(points, row, min(size, stop - row), tiles[n_tiles])
        n_tiles += 1
    return n_tiles


@kernel
def _log_joint_norms(weights, factors, norms):
    """``log pi - D/2 log 2 pi + log det U`` of each component."""
    n_factors, n_features = factors.shape[:2]
    for k in range(len(weights)):
        f, log_det = min(k, n_factors - 1), 0.0
        for d in range(n_features):
            u = np.float64(factors[f, d, d] if factors.ndim == 3 else factors[f, d])
            larger = u if u >= 1 else 1 / u
            log = log1p(larger - 1, np.float64)
            log_det += log if u >= 1 else -log
        norms[k] = np.log(np.float64(weights[k])) - 0.5 * n_features * _LOG_2_PI + log_det


@inlined
def _expectation(
    tied,
    sample_weight,
    first,
    tiles,
    n_points,
    weights,
    means,
    factors,
    shared,
    panel,
    centred,
    norms,
    total,
    log_prob,
    resp,
):
    """Responsibilities ``resp[t, k, b]`` of each tile, and the log-likelihood, of rows from ``first`` on.

    Both are times the weights of the rows if there are weights.
    """
    number = tiles.dtype.type
    n_components, n_features = means.shape
    size = tile_width(n_features)
    _log_joint_norms(weights, factors, norms)
    log_likelihood = 0.0
    if tied is not None:
        shift, near, y, _, _, _ = shared
        c = heaviest(weights)
        shift_means(means, c, factors[0], shift, near)
    for start in range(0, n_points, size):
        t, width = start // size, min(size, n_points - start)
        joint = resp[t]
        if tied is None:
            for k in range(n_components):
                quadratic_form(tiles[t], width, means[k], factors[k], panel, centred, joint[k])
        else:
            tied_forms(tiles[t], width, means, factors[0], c, shift, near, panel, centred, y, joint)
        for k in range(n_components):
            for b in range(whole_vectors(width)):
                joint[k, b] = norms[k] - number(0.5) * joint[k, b]
        normalise(joint, width, total, log_prob)
        if sample_weight is not None:
            for b in range(width):
                log_prob[b] *= sample_weight[first + start + b]
            for k in range(n_components):
                for b in range(width):
                    joint[k, b] *= sample_weight[first + start + b]
        for b in range(width):
            log_likelihood += log_prob[b]
        for k in range(n_components):
            for b in range(width, whole_vectors(width)):
                joint[k, b] = 0
    return log_likelihood


@inlined
def _weights_and_means(points, first, tiles, n_points, resp, centre, nk, moment, weights, means):
    """The counts, weights and means, by way of the moments about the means that stand."""
    n_components, n_features = means.shape
    size = tile_width(n_features)
    eps = 10 * np.finfo(means.dtype).eps
    for k in range(n_components):
        nk[k] = 0
        for d in range(n_features):
            centre[k, d] = means[k, d]
        for d in range(moment.shape[1]):
            moment[k, d] = 0
    for start in range(0, n_points, size):
        t = start // size
        add_moments(points, first + start, tiles[t], min(size, n_points - start), resp[t], centre, nk, moment)
    total = 0.0
    for k in range(n_components):
        nk[k] += eps
        total += nk[k]
    for k in range(n_components):
        weights[k] = nk[k] / total
        for d in range(n_features):
            means[k, d] = centre[k, d] + moment[k, d] / nk[k]
            centre[k, d] = means[k, d]


@inlined
def _scatter(tied, tiles, n_points, resp, means, nk, shared, column, root, centred, scatter):
    """Scatter about the means, [K, D padded, D padded], or summed over the components where they share a factor."""
    n_components, n_features = means.shape
    size = tile_width(n_features)
    scatter[:] = 0
    if tied is not None:
        _, _, _, share, numbers, between = shared
        c = heaviest(nk)
        between[:] = 0
    for start in range(0, n_points, size):
        t, width = start // size, min(size, n_points - start)
        if tied is None:
            for k in range(n_components):
                filled = centre_columns(tiles[t], width, resp[t, k], means[k], column, root, centred)
                add_scatter(centred, filled, scatter[k])
        else:
            add_tied_scatter(tiles[t], width, resp[t], means, c, root, share, numbers, centred, scatter[0], between)
    if tied is not None:
        add_between(means, between, centred, scatter[0])


@inlined
def _full_covariances(tied, nk, reg_covar, a, x, panel, scatter, covariances, factors):
    """Covariances [F, D, D] from their scatter and the factors of their inverses; False where one has none."""
    n_factors, n_features = covariances.shape[:2]
    good = True
    for f in range(n_factors):
        count = nk[f] if tied is None else nk.sum()
        a[:] = 0
        for i in range(a.shape[0]):
            if i >= n_features:
                a[i, i] = 1
                continue
            for j in range(i, n_features):
                a[i, j] = scatter[f, i, j] / count + (reg_covar if i == j else 0.0)
                covariances[f, i, j] = a[i, j]
                covariances[f, j, i] = a[i, j]
        if factor(a, panel):
            invert(a, x, panel)
        else:
            good = False
            x[:] = np.nan
        for i in range(n_features):
            for j in range(n_features):
                factors[f, i, j] = x[i, j]
    return good


@inlined
def _diagonal_covariances(points, first, tiles, n_points, resp, centre, nk, reg_covar, scatter, covariances, factors):
    """Variances [K, D], or [K, 1] of spherical components, and the roots of their inverses in ``factors`` [K, D]."""
    n_components, n_features = factors.shape
    size, n_columns = tile_width(n_features), covariances.shape[1]
    scatter[:] = 0
    for start in range(0, n_points, size):
        t = start // size
        add_squares(points, first + start, tiles[t], min(size, n_points - start), resp[t], centre, scatter)
    good = True
    for k in range(n_components):
        if n_columns < n_features:
            scatter[k, 0] = scatter[k].sum() / n_features
        for d in range(n_columns):
            covariances[k, d] = scatter[k, d] / nk[k] + reg_covar
            factors[k, d] = 1 / np.sqrt(covariances[k, d])
            good &= covariances[k, d] > 0 and covariances[k, d] < np.inf
        for d in range(n_columns, n_features):
            factors[k, d] = factors[k, 0]
    return good


@kernel
def _shared_scratch(tied, n_components, n_features, like):
    """Room for what tied components share: three arrays of the E step, three of the M step."""
    if tied is None:
        return None
    n_padded, size = padded(n_features), tile_width(n_features)
    return (
        np.empty((n_components, n_padded), like.dtype),
        np.empty(n_components, np.bool_),
        np.empty((n_padded, size + 16), like.dtype),
        new_tile(n_components, size, like),
        np.empty((n_components, 4), like.dtype),
        np.empty((padded(n_components), padded(n_components))),
    )


@kernel
def _all_steps(
    begin,
    end,
    tied,
    sample_weight,
    row_ranges,
    points,
    weights,
    means,
    covariances,
    factors,
    lower_bound,
    taken,
    converged,
    bad,
    n_steps,
    tol,
    reg_covar,
):
    """Steps of models ``begin:end``, whose state is overwritten.

    ``tied`` is True where several components share a factor, else None; ``sample_weight`` is [N] or None: each of the
    four cases is compiled by itself.
    """
    n_components, n_features = means.shape[1:]
    n_padded, size = padded(n_features), tile_width(n_features)
    n_tiles = 1
    for m in range(begin, end):
        n_tiles = max(n_tiles, (row_ranges[m, 1] - row_ranges[m, 0] + size - 1) // size)
    tiles = np.zeros((n_tiles, n_padded, size + 16), points.dtype)
    resp = np.empty((n_tiles, n_components, size), points.dtype)
    total, log_prob = np.empty(size, points.dtype), np.empty(size, points.dtype)
    centre, moment = np.zeros((n_components, n_padded), points.dtype), np.empty((n_components, n_padded))
    nk, norms = np.empty(n_components), np.empty(n_components, points.dtype)
    n_square = n_padded if factors.ndim == 4 else 0
    panel, centred = np.empty((n_square, 4), points.dtype), new_tile(n_square, size, points)
    scatter = np.empty((factors.shape[1], n_padded, max(n_square, 1)))
    column, root = np.empty(size, np.int32), np.empty(size, points.dtype)
    a, x = new_tile(n_square, n_square, nk), new_tile(n_square, n_square, nk)
    panel_of_a = np.empty((n_square, 4))
    shared = _shared_scratch(tied, n_components, n_features, points)
    for m in range(begin, end):
        first, last = row_ranges[m]
        n_points = last - first
        total_weight = 0.0
        for row in range(first, last):
            total_weight += 1.0 if sample_weight is None else sample_weight[row]
        _load_tiles(points, first, last, tiles)
        for _ in range(n_steps):
            bound = _expectation(
                tied,
                sample_weight,
                first,
                tiles,
                n_points,
                weights[m],
                means[m],
                factors[m],
                shared,
                panel,
                centred,
                norms,
                total,
                log_prob,
                resp,
            )
            bound /= total_weight
            _weights_and_means(points, first, tiles, n_points, resp, centre, nk, moment, weights[m], means[m])
            if factors.ndim == 4:
                _scatter(tied, tiles, n_points, resp, means[m], nk, shared, column, root, centred, scatter)
                good = _full_covariances(tied, nk, reg_covar, a, x, panel_of_a, scatter, covariances[m], factors[m])
            else:
                good = _diagonal_covariances(
                    points,
                    first,
                    tiles,
                    n_points,
                    resp,
                    centre,
                    nk,
                    reg_covar,
                    scatter[:, :, 0],
                    covariances[m],
                    factors[m],
                )
            taken[m] += 1
            bad[m] = not good
            converged[m] = good and abs(bound - lower_bound[m]) < tol
            lower_bound[m] = bound
            if bad[m] or converged[m]:
                break


def _of_one_thread(
    steps: Callable[..., None],
    points: Tensor,
    layout: Layout,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    lower_bound: Tensor,
    *,
    covariance_type: str,
    reg_covar: float,
    tol: float,
    n_steps: int,
    sample_weight: Tensor | None,
) -> EMSteps:
    """The steps of models that are worth one thread each, by a kernel that takes them in place."""
    factors = precisions_cholesky
    covariances = torch.empty_like(factors, memory_format=torch.contiguous_format)
    # One axis of factors where the components share one, one axis of features where these share a variance.
    seen: tuple[Tensor, Tensor] = covariances, factors
    if covariance_type == "tied":
        seen = covariances[:, None], factors[:, None]
    elif covariance_type == "spherical":
        seen = covariances[..., None], factors[..., None].expand_as(means)
    factors = seen[1].clone(memory_format=torch.contiguous_format)
    state = EMSteps(
        weights.clone(memory_format=torch.contiguous_format),
        means.clone(memory_format=torch.contiguous_format),
        covariances,
        factors,
        lower_bound.clone(),
        torch.zeros(layout.n_models, dtype=torch.int64, device="cpu"),
        torch.zeros(layout.n_models, dtype=torch.bool, device="cpu"),
        torch.zeros(layout.n_models, dtype=torch.bool, device="cpu"),
    )
    parallel_for(
        steps,
        layout.n_models,
        True if covariance_type == "tied" and means.shape[1] > 1 else None,
        None if sample_weight is None else as_array(sample_weight),
        layout.ranges.numpy(),
        as_array(points),
        state.weights.numpy(),
        state.means.numpy(),
        seen[0].numpy(),
        factors.numpy(),
        *(t.numpy() for t in state[4:]),
        n_steps,
        float(tol),
        float(reg_covar),
    )
    if covariance_type == "tied":
        factors = factors[:, 0]
    elif covariance_type == "spherical":
        factors = factors[..., 0].contiguous()
    return state._replace(precisions_cholesky=factors)


def _large_models(
    points: Tensor,
    layout: Layout,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    lower_bound: Tensor,
    *,
    covariance_type: str,
    reg_covar: float,
    tol: float,
    n_steps: int,
    sample_weight: Tensor | None,
) -> EMSteps:
    """The steps of models that threads share, as calls of the operations that a step consists of.

    A model that has settled leaves the work.
    """
    options: GaussianOptions = {"covariance_type": covariance_type, "backend": "cpu"}
    active, finished = torch.arange(layout.n_models, device="cpu"), []
    total_weight = layout.sizes.double() if sample_weight is None else layout.sum(sample_weight)
    # Taken out of the list, the matrices of a step go before the next ones come: memory peaks there.
    state = [(weights, means, precisions_cholesky)]
    for step in range(1, n_steps + 1):
        weights, means, precisions_cholesky = state.pop()
        resp, log_prob = responsibilities(points, layout, weights, means, precisions_cholesky, **options)
        del weights, precisions_cholesky
        if sample_weight is not None:
            resp *= sample_weight[:, None]
            log_prob *= sample_weight
        before, lower_bound = lower_bound, layout.sum(log_prob) / total_weight
        sums = sufficient_statistics(points, layout, resp, means, **options)
        del resp
        new = gaussian_parameters(
            sums, points.shape[1], reg_covar=reg_covar, covariance_type=covariance_type, backend="cpu"
        )
        del sums
        converged = ((lower_bound - before).abs() < tol) & ~new.bad
        steps = EMSteps(*new[:4], lower_bound, torch.full_like(active, step), converged, new.bad)
        del new
        leaving = converged | steps.bad
        if step == n_steps or bool(leaving.all()):
            finished.append((active, steps))
            break
        if bool(leaving.any()):
            finished.append((active[leaving], EMSteps(*(value[leaving] for value in steps))))
            steps = EMSteps(*(value[~leaving] for value in steps))
            active, layout, lower_bound = active[~leaving], layout.select(~leaving), lower_bound[~leaving]
            total_weight = total_weight[~leaving]
        state.append((steps.weights, steps.means, steps.precisions_cholesky))
        del steps
    return joined(finished)


def _steps_in_tiles(points: Tensor, layout: Layout, *state: Tensor, **options: Any) -> EMSteps:
    """The steps of models that fill a tile or more."""
    n_components, n_features = state[1].shape[1:]
    work = n_components * n_features * (n_features if options["covariance_type"] in ("full", "tied") else 1)
    is_small = layout.sizes <= _MOST_WORK // work
    small = partial(_of_one_thread, _all_steps)
    return steps_by_size(is_small, small, _large_models, points, layout, *state, **options)


def em_steps(points: Tensor, layout: Layout, *state: Tensor, **options: Any) -> EMSteps:
    """As :func:`fastdens.kernels.em_steps`."""
    _, means, factors, *_ = state
    # A start at single points has infinite precisions, which the tiles take as they are.
    tiny = are_tiny(layout, means.shape[2]) & factors.flatten(1).isfinite().all(1)
    return steps_by_size(tiny, partial(_of_one_thread, tiny_steps), _steps_in_tiles, points, layout, *state, **options)
