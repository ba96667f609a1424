"""Gaussian mixtures of all models with one factor U of their precisions, ``precision = U U'``.

``|(x - mean) U|^2 = |(x - c) U - (mean - c) U|^2``: points and means go through U once, about a centre c, and every
component is a unit sphere from there on. A point costs D^2 once, whatever the number of models and components, and
there is one matrix of D^2 numbers. The M step is that of :mod:`fastdens.kernels.cpu._tied`, over the points of all
models together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from fastdens.kernels.e_step import Responsibilities, responsibilities
from fastdens.kernels.gaussian import mixture_log_prob
from fastdens.kernels.layout import Layout
from fastdens.kernels.m_step import sufficient_statistics
from torch import Tensor

# Numbers of points that are worked on at a time.
_MOST_ELEMENTS = 1 << 23
# Matrix products of other sizes are summed in an order that depends on the number of threads.
_WHOLE = 16


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of matrices, the bits of which do not depend on the number of threads."""
    (n, d), m = a.shape, b.shape[1]
    pad = torch.nn.functional.pad
    filled = pad(a, (0, -d % _WHOLE, 0, -n % _WHOLE)) @ pad(b, (0, -m % _WHOLE, 0, -d % _WHOLE))
    return filled[:n, :m]


def shared_log_prob(points: Tensor, weights: Tensor, means: Tensor, factor: Tensor, **options: Any) -> Tensor:
    """Log-density of each point under each of M mixtures, [N, M]; differentiable in the points.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64.
    weights, means : Tensor
        [M, K] and [M, K, D].
    factor : Tensor
        U [D, D], upper triangular.
    **options
        ``backend`` and ``matmul_precision``, as for :func:`fastdens.kernels.mixture_log_prob`.
    """
    # Amid the models, some of which may have failed and be NaN; ONNX knows no median.
    rows = means.flatten(0, 1)
    centre = rows.nanmean(0) if torch.compiler.is_exporting() else rows.nanmedian(0).values
    spheres = _through_factor(means - centre, factor), torch.ones_like(weights)

    def of_block(block: Tensor) -> Tensor:
        white = product(block - centre, factor)
        return mixture_log_prob(white, weights, *spheres, covariance_type="spherical", **options)

    # What is traced takes all points at once, however many there will be.
    blocks = [points] if torch.compiler.is_compiling() else points.split(_block_rows(means.shape[-1]))
    return torch.cat([of_block(block) for block in blocks]) + _log_det(factor)


def shared_responsibilities(
    points: Tensor, layout: Layout, weights: Tensor, means: Tensor, factor: Tensor, **options: Any
) -> Responsibilities:
    """Responsibilities [N, K] and log-density [N] of each point under its own model; zero for rows that none owns.

    Parameters
    ----------
    points : Tensor
        [N, D], sorted by model.
    layout : Layout
    weights, means, factor, **options
        As for :func:`shared_log_prob`.
    """
    # The component of the largest weight: a centre that no single wild row can choose.
    centres = means[torch.arange(len(means), device=means.device), weights.argmax(1)]
    spheres = _through_factor(means - centres[:, None], factor), torch.ones_like(weights)
    log_det, parts = _log_det(factor), []
    for rows, own, model in _row_blocks(points, layout):
        white = product(points[rows] - centres[model], factor)
        parts.append(responsibilities(white, own, weights, *spheres, covariance_type="spherical", **options))
    if not parts:
        return Responsibilities(points.new_zeros(0, weights.shape[1]), points.new_zeros(0))
    resp, log_prob = (torch.cat(values) for values in zip(*parts, strict=True))
    return Responsibilities(resp, log_prob + log_det)


def shared_scatter(points: Tensor, layout: Layout, resp: Tensor, means: Tensor, **options: Any) -> Tensor:
    """``sum_n sum_k r_nk (x_n - mean_k)(x_n - mean_k)'`` over the points of all models, float64 [D, D].

    With ``r_n = sum_k r_nk`` and ``m_n = sum_k r_nk mean_k / r_n`` it is ``sum_n r_n (x_n - m_n)(x_n - m_n)'`` and the
    scatter of the means about the m_n, which is ``sum_{j<k} b_jk (mean_j - mean_k)(mean_j - mean_k)'`` of each model,
    where ``b_jk = sum_n r_nj r_nk / r_n`` (the parallel axis theorem).

    Parameters
    ----------
    points, layout
        As for :func:`shared_responsibilities`; no row is without a model.
    resp : Tensor
        [N, K], not negative.
    means : Tensor
        [M, K, D].
    **options
        ``backend`` and ``matmul_precision``, as for :func:`fastdens.kernels.sufficient_statistics`.
    """
    n_components, n_features = means.shape[1:]
    mass = resp.sum(1, keepdim=True)
    shares = torch.where(mass > 0, resp / mass, 0.0)
    scatter = torch.zeros(n_features, n_features, dtype=torch.float64, device=points.device)
    about = means.new_zeros(1, 1, n_features)
    for rows, _, model in _row_blocks(points, layout):
        centred = torch.zeros_like(points[rows])
        for k in range(n_components):
            centred += shares[rows, k, None] * (points[rows] - means[model, k])
        one = Layout.from_offsets(torch.tensor([0, len(centred)], device=points.device), len(centred))
        sums = sufficient_statistics(centred, one, mass[rows].contiguous(), about, covariance_type="full", **options)
        mean = sums.means[0, 0].double()
        scatter += sums.scatter[0, 0]
        scatter += sums.nk.double() * torch.outer(mean, mean)
    if n_components > 1:
        scatter += _between(layout, shares, resp, means.double())
    return scatter


def _between(layout: Layout, shares: Tensor, resp: Tensor, means: Tensor) -> Tensor:
    """``sum_{j<k} b_jk (mean_j - mean_k)(mean_j - mean_k)'`` of all models, float64 [D, D]."""
    pairs = torch.stack([layout.sum(shares[:, j, None] * resp) for j in range(means.shape[1])], 1)
    pairs = 0.5 * (pairs + pairs.mT)
    laplacian = torch.diag_embed(pairs.sum(2)) - pairs
    about = means - means[:, :1]
    return product((laplacian @ about).flatten(0, 1).mT, about.flatten(0, 1))


def _through_factor(means: Tensor, factor: Tensor) -> Tensor:
    return product(means.flatten(0, 1), factor).reshape(means.shape)


def _log_det(factor: Tensor) -> Tensor:
    return factor.diagonal().double().log().sum().to(factor.dtype)


def _block_rows(n_features: int) -> int:
    return max(_WHOLE, _MOST_ELEMENTS // n_features)


def _row_blocks(points: Tensor, layout: Layout) -> Iterator[tuple[slice, Layout, Tensor]]:
    """Runs of rows: the rows, where those of each model lie among them, and the model of each, int64 [n]."""
    (n_points, n_features), model = points.shape, torch.zeros(len(points), dtype=torch.int64, device=points.device)
    own = layout.ranges[layout.rows.model, 0] + layout.rows.position if layout.span is None else layout.span
    model[own] = layout.rows.model
    step = _block_rows(n_features)
    for begin in range(0, n_points, step):
        end = min(begin + step, n_points)
        yield slice(begin, end), Layout(layout.ranges.clamp(begin, end) - begin, end - begin), model[begin:end]
