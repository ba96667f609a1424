"""CPU twin of :mod:`fastdens.kernels.gaussian_log_prob`."""

from __future__ import annotations

import numpy as np
import torch
from fastdens.kernels.cpu._gaussian import factors_and_log_norm
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import parallel_for
from fastdens.kernels.cpu._tiles import load_tile, new_tile, padded, quadratic_form, tile_width
from torch import Tensor


@kernel
def _log_prob_tiles(begin, end, points, means, factors, per_component, log_norm, out):
    n_points, n_features = points.shape
    n_padded, size = padded(n_features), tile_width(n_features)
    tile = new_tile(n_features, size, points)
    centred = new_tile(n_features, size, points)
    upper = np.zeros((n_padded, n_padded), points.dtype)
    y = np.empty((4, size), points.dtype)
    form = np.empty(size, points.dtype)
    for item in range(begin, end):
        start = item * size
        width = min(size, n_points - start)
        load_tile(points, start, width, tile)
        for g in range(means.shape[0]):
            quadratic_form(tile, width, means[g], factors[g * per_component], upper, centred, y, form)
            for b in range(width):
                out[start + b, g] = log_norm[g] - 0.5 * form[b]


def gaussian_log_prob(
    points: Tensor, means: Tensor, precisions_cholesky: Tensor, *, covariance_type: str = "full"
) -> Tensor:
    """Log-density of each point under each of G Gaussians, [N, G]."""
    # To the tiles, G Gaussians are one mixture of G components.
    factors, log_norm, per_model = factors_and_log_norm(means[None], precisions_cholesky[None], covariance_type)
    out = torch.empty(points.shape[0], means.shape[0], dtype=points.dtype)
    per_component = 1 if per_model == means.shape[0] and covariance_type != "tied" else 0
    parallel_for(
        _log_prob_tiles,
        -(-points.shape[0] // tile_width(points.shape[1])),
        points.detach().contiguous().numpy(),
        means.detach().contiguous().numpy(),
        factors,
        per_component,
        log_norm[0],
        out.numpy(),
    )
    return out
