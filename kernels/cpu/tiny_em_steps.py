"""All steps of EM of tiny models: many models at a time, one in each lane of the vectors.

A model of a few points in one or two dimensions leaves most of a tile empty. Here the innermost loop runs over models,
so that no lane is, and no sum is formed across lanes: what a lane computes depends on its own model alone. Every model
has two dimensions: a missing one is zero in all points and means, its variance is one, and it adds nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from fastdens.kernels.cpu._elementary import exp_minus, log1p
from fastdens.kernels.cpu._numba import inlined, kernel
from fastdens.kernels.layout import Layout
from numpy.typing import NDArray
from torch import Tensor

# With more rows a tile is full enough, and one model alone should not pay for the lanes that it leaves empty.
_MAX_FEATURES, _MAX_ROWS = 2, 32
_LANES = 32
_LOG_2_PI = math.log(2 * math.pi)


def are_tiny(layout: Layout, n_features: int) -> Tensor:
    """The models of this kernel, bool [M], which is a matter of each one alone."""
    if n_features > _MAX_FEATURES:
        return torch.zeros_like(layout.sizes, dtype=torch.bool)
    # With no more points than dimensions a matrix is singular but for rounding and ``reg_covar``: left to the tiles.
    return (layout.sizes > n_features) & (layout.sizes <= _MAX_ROWS)


@kernel
def _log(u):
    """``log u`` of a float64 u that is not negative."""
    above = log1p((u if u >= 1 else 1 / u) - 1, np.float64)
    return above if u >= 1 else -above


@inlined
def _load_points(row_ranges, first_model, n_own, points, sample_weight, x, y, share):
    """The points ``x, y`` [N, L] of the lanes and their weights, zero past the last of a model; the most points."""
    n_features, longest = points.shape[1], 0
    for lane in range(n_own):
        longest = max(longest, row_ranges[first_model + lane, 1] - row_ranges[first_model + lane, 0])
    for lane in range(_LANES):
        first = last = 0
        if lane < n_own:
            first, last = row_ranges[first_model + lane]
        for n in range(longest):
            row = first + n
            inside = row < last
            x[n, lane] = points[row, 0] if inside else 0
            y[n, lane] = points[row, 1] if inside and n_features > 1 else 0
            share[n, lane] = 0 if not inside else 1 if sample_weight is None else sample_weight[row]
    return longest


@inlined
def _load_state(first_model, n_own, weights, means, factors, weight, centre_x, centre_y, f_xx, f_xy, f_yy):
    """Weights, means and factors of the lanes, [K, L]; lanes without a model repeat the last one."""
    n_factors, n_entries = factors.shape[1:]
    n_features = means.shape[2]
    for lane in range(_LANES):
        m = first_model + min(lane, n_own - 1)
        for k in range(weight.shape[0]):
            f = min(k, n_factors - 1)
            weight[k, lane] = weights[m, k]
            centre_x[k, lane], centre_y[k, lane] = means[m, k, 0], 0
            f_xy[k, lane], f_yy[k, lane] = 0, 1
            if n_features > 1:
                centre_y[k, lane] = means[m, k, 1]
            f_xx[k, lane] = factors[m, f, 0]
            if n_features > 1:
                f_yy[k, lane] = factors[m, f, n_entries - 1]
            if n_entries == 4:
                f_xy[k, lane] = factors[m, f, 1]


@inlined
def _expectation(
    n_points,
    n_features,
    x,
    y,
    share,
    weight,
    centre_x,
    centre_y,
    f_xx,
    f_xy,
    f_yy,
    norm,
    top,
    total,
    resp,
    nk,
    sum_x,
    sum_y,
    log_likelihood,
):
    """Responsibilities ``resp[n * K + k]``, their sums and moments about the means, and the log-likelihoods [L]."""
    number = x.dtype.type
    zero, half, one = number(0), number(0.5), number(1)
    n_components = weight.shape[0]
    for k in range(n_components):
        for b in range(_LANES):
            log_det = _log(np.float64(f_xx[k, b])) + _log(np.float64(f_yy[k, b]))
            norm[k, b] = _log(np.float64(weight[k, b])) + log_det - 0.5 * n_features * _LOG_2_PI
            nk[k, b] = sum_x[k, b] = sum_y[k, b] = zero
    for b in range(_LANES):
        log_likelihood[b] = 0
    for n in range(n_points):
        at = n * n_components
        for b in range(_LANES):
            total[b] = zero
        for k in range(n_components):
            for b in range(_LANES):
                u, v = x[n, b] - centre_x[k, b], y[n, b] - centre_y[k, b]
                z, w = u * f_xx[k, b], u * f_xy[k, b] + v * f_yy[k, b]
                joint = norm[k, b] - half * (z * z + w * w)
                highest = top[b]
                resp[at + k, b] = joint
                top[b] = highest if k > 0 and (joint <= highest or highest != highest) else joint
        for k in range(n_components):
            for b in range(_LANES):
                # Of a top that is not finite no term is left, and the quotients below are NaN.
                term = exp_minus(top[b] - resp[at + k, b], number)
                resp[at + k, b] = term
                total[b] += term
        for b in range(_LANES):
            log_prob = (top[b] + log1p(total[b] - one, number)) * share[n, b]
            log_likelihood[b] += log_prob if share[n, b] > zero else zero
            total[b] = share[n, b] / total[b]
        for k in range(n_components):
            for b in range(_LANES):
                r = resp[at + k, b] * total[b] if share[n, b] > zero else zero
                resp[at + k, b] = r
                nk[k, b] += r
                # A point may be infinite where r is zero.
                sum_x[k, b] += r * (x[n, b] - centre_x[k, b] if r != zero else zero)
                sum_y[k, b] += r * (y[n, b] - centre_y[k, b] if r != zero else zero)


@inlined
def _weights_and_means(eps, nk, sum_x, sum_y, weight, centre_x, centre_y, count, total_count):
    """The counts float64 [K, L] with their sum [L], weights and means."""
    for b in range(_LANES):
        total_count[b] = 0
    for k in range(nk.shape[0]):
        for b in range(_LANES):
            count[k, b] = nk[k, b] + eps
            total_count[b] += count[k, b]
    for k in range(nk.shape[0]):
        for b in range(_LANES):
            weight[k, b] = count[k, b] / total_count[b]
            centre_x[k, b] += sum_x[k, b] / count[k, b]
            centre_y[k, b] += sum_y[k, b] / count[k, b]


@inlined
def _scatter(n_points, x, y, resp, centre_x, centre_y, s_xx, s_xy, s_yy):
    """Scatter about the means, [K, L]."""
    zero, n_components = x.dtype.type(0), centre_x.shape[0]
    for k in range(n_components):
        for b in range(_LANES):
            s_xx[k, b] = s_xy[k, b] = s_yy[k, b] = zero
    for n in range(n_points):
        for k in range(n_components):
            for b in range(_LANES):
                r = resp[n * n_components + k, b]
                u = x[n, b] - centre_x[k, b] if r != zero else zero
                v = y[n, b] - centre_y[k, b] if r != zero else zero
                ru, rv = r * u, r * v
                s_xx[k, b] += ru * u
                s_xy[k, b] += ru * v
                s_yy[k, b] += rv * v


@inlined
def _covariances(
    tied,
    spherical,
    diagonal,
    n_features,
    reg_covar,
    count,
    total_count,
    s_xx,
    s_xy,
    s_yy,
    c_xx,
    c_xy,
    c_yy,
    f_xx,
    f_xy,
    f_yy,
    lost,
):
    """Covariances, and the factors of their inverses; NaN, and ``lost`` [L], where one has none."""
    n_components = count.shape[0]
    for b in range(_LANES):
        lost[b] = 0
    for k in range(n_components):
        for b in range(_LANES):
            c_xx[k, b], c_xy[k, b], c_yy[k, b] = s_xx[k, b], s_xy[k, b], s_yy[k, b]
    if tied:
        for k in range(1, n_components):
            for b in range(_LANES):
                c_xx[0, b] += c_xx[k, b]
                c_xy[0, b] += c_xy[k, b]
                c_yy[0, b] += c_yy[k, b]
        for k in range(1, n_components):
            for b in range(_LANES):
                c_xx[k, b], c_xy[k, b], c_yy[k, b] = c_xx[0, b], c_xy[0, b], c_yy[0, b]
    for k in range(n_components):
        for b in range(_LANES):
            n = total_count[b] if tied else count[k, b]
            xx, xy, yy = c_xx[k, b], 0.0 if diagonal else c_xy[k, b] / n, c_yy[k, b]
            if spherical:
                xx = (xx + yy) / n_features
                yy = xx
            xx, yy = xx / n + reg_covar, yy / n + reg_covar
            if n_features == 1:
                xy, yy = 0.0, 1.0
            c_xx[k, b], c_xy[k, b], c_yy[k, b] = xx, xy, yy
            inverse_x = 1 / np.sqrt(xx)
            root_xy = xy * inverse_x
            rest = yy - root_xy * root_xy
            inverse_y = 1 / np.sqrt(rest)
            good = (xx > 0) & (xx < np.inf) & (rest > 0) & (rest < np.inf)
            f_xx[k, b] = inverse_x if good else np.nan
            f_xy[k, b] = -inverse_x * root_xy * inverse_y if good else np.nan
            f_yy[k, b] = inverse_y if good else np.nan
            lost[b] += 0.0 if good else 1.0


@inlined
def _store(
    m,
    lane,
    weight,
    centre_x,
    centre_y,
    c_xx,
    c_xy,
    c_yy,
    f_xx,
    f_xy,
    f_yy,
    weights,
    means,
    covariances,
    factors,
):
    """The state of one lane, as that of its model."""
    n_components, n_features = means.shape[1:]
    for k in range(n_components):
        weights[m, k] = weight[k, lane]
        means[m, k, 0] = centre_x[k, lane]
        if n_features > 1:
            means[m, k, 1] = centre_y[k, lane]
    n_entries, n_variances = factors.shape[2], covariances.shape[2]
    for f in range(factors.shape[1]):
        covariances[m, f, 0], factors[m, f, 0] = c_xx[f, lane], f_xx[f, lane]
        if n_features > 1:
            factors[m, f, n_entries - 1] = f_yy[f, lane]
            if n_variances > 1:
                covariances[m, f, n_entries - 1] = c_yy[f, lane]
        if n_entries == 4:
            covariances[m, f, 1], factors[m, f, 1] = c_xy[f, lane], f_xy[f, lane]
            covariances[m, f, 2], factors[m, f, 2] = c_xy[f, lane], 0


@kernel
def _all_steps(
    begin,
    end,
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
    """Steps of models ``begin:end``, whose state is overwritten, each until it converges or turns bad.

    Entries of covariances and factors are [M, F, E], those of a matrix row by row, F less than K where components share
    one; ``covariances`` has a single entry where the dimensions share a variance.
    """
    n_components, n_features = means.shape[1:]
    tied, diagonal = factors.shape[1] < n_components, factors.shape[2] <= n_features
    spherical = covariances.shape[2] < n_features
    eps = 10 * np.finfo(points.dtype).eps
    of_points = np.empty((3, _MAX_ROWS, _LANES), points.dtype)
    x, y, share = of_points[0], of_points[1], of_points[2]
    resp = np.empty((_MAX_ROWS * n_components, _LANES), points.dtype)
    of_components = np.empty((13, n_components, _LANES), points.dtype)
    weight, centre_x, centre_y = of_components[0], of_components[1], of_components[2]
    f_xx, f_xy, f_yy, norm = of_components[3], of_components[4], of_components[5], of_components[6]
    nk, sum_x, sum_y = of_components[7], of_components[8], of_components[9]
    s_xx, s_xy, s_yy = of_components[10], of_components[11], of_components[12]
    in_double = np.empty((4, n_components, _LANES))
    count, c_xx, c_xy, c_yy = in_double[0], in_double[1], in_double[2], in_double[3]
    top, total = np.empty(_LANES, points.dtype), np.empty(_LANES, points.dtype)
    log_likelihood, total_count, lost = np.empty(_LANES), np.empty(_LANES), np.empty(_LANES)
    total_weight, is_done = np.empty(_LANES), np.empty(_LANES, np.bool_)
    for first in range(begin, end, _LANES):
        n_own = min(_LANES, end - first)
        n_points = _load_points(row_ranges, first, n_own, points, sample_weight, x, y, share)
        _load_state(first, n_own, weights, means, factors, weight, centre_x, centre_y, f_xx, f_xy, f_yy)
        for lane in range(_LANES):
            is_done[lane] = lane >= n_own
            total_weight[lane] = 0
            for n in range(n_points):
                total_weight[lane] += share[n, lane]
        n_done = 0
        for step in range(1, n_steps + 1):
            _expectation(
                n_points,
                n_features,
                x,
                y,
                share,
                weight,
                centre_x,
                centre_y,
                f_xx,
                f_xy,
                f_yy,
                norm,
                top,
                total,
                resp,
                nk,
                sum_x,
                sum_y,
                log_likelihood,
            )
            _weights_and_means(eps, nk, sum_x, sum_y, weight, centre_x, centre_y, count, total_count)
            _scatter(n_points, x, y, resp, centre_x, centre_y, s_xx, s_xy, s_yy)
            _covariances(
                tied,
                spherical,
                diagonal,
                n_features,
                reg_covar,
                count,
                total_count,
                s_xx,
                s_xy,
                s_yy,
                c_xx,
                c_xy,
                c_yy,
                f_xx,
                f_xy,
                f_yy,
                lost,
            )
            for lane in range(n_own):
                if is_done[lane]:
                    continue
                m, bound = first + lane, log_likelihood[lane] / total_weight[lane]
                bad[m] = lost[lane] > 0
                converged[m] = not bad[m] and abs(bound - lower_bound[m]) < tol
                lower_bound[m] = bound
                if bad[m] or converged[m] or step == n_steps:
                    # A lane that is done goes on for the sake of the others, and is not stored again.
                    taken[m] += step
                    is_done[lane] = True
                    n_done += 1
                    _store(
                        m,
                        lane,
                        weight,
                        centre_x,
                        centre_y,
                        c_xx,
                        c_xy,
                        c_yy,
                        f_xx,
                        f_xy,
                        f_yy,
                        weights,
                        means,
                        covariances,
                        factors,
                    )
            if n_done == n_own:
                break


def tiny_steps(
    begin: int,
    end: int,
    tied: bool | None,
    sample_weight: NDArray[Any] | None,
    row_ranges: NDArray[np.int64],
    points: NDArray[Any],
    weights: NDArray[Any],
    means: NDArray[Any],
    covariances: NDArray[Any],
    factors: NDArray[Any],
    *rest: Any,
) -> None:
    """Steps of models ``begin:end``, of arguments that a kernel of other small models has, too."""
    entries = (array.reshape(*array.shape[:2], -1) for array in (covariances, factors))
    _all_steps(begin, end, sample_weight, row_ranges, points, weights, means, *entries, *rest)
