"""CPU twin of :mod:`fastdens.kernels.mixture_log_prob`."""

from __future__ import annotations

import numpy as np
import torch
from fastdens.kernels.cpu._gaussian import factors_and_log_norm
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import parallel_for
from fastdens.kernels.cpu._tiles import load_tile, log_sum_exp, new_tile, padded, quadratic_form, tile_width
from torch import Tensor


@kernel
def _log_prob_tiles(begin, end, points, means, factors, per_model, log_joint_norm, out):
    n_points, n_features = points.shape
    n_models, n_components = log_joint_norm.shape
    n_padded, size = padded(n_features), tile_width(n_features)
    tile = new_tile(n_features, size, points)
    centred = new_tile(n_features, size, points)
    upper = np.zeros((n_padded, n_padded), points.dtype)
    y = np.empty((4, size), points.dtype)
    form = np.empty(size, points.dtype)
    joint = np.empty((n_components, size), points.dtype)
    for item in range(begin, end):
        start = item * size
        width = min(size, n_points - start)
        load_tile(points, start, width, tile)
        for m in range(n_models):
            for k in range(n_components):
                factor = factors[m * per_model + min(k, per_model - 1)]
                quadratic_form(tile, width, means[m, k], factor, upper, centred, y, form)
                for b in range(width):
                    joint[k, b] = log_joint_norm[m, k] - 0.5 * form[b]
            for b in range(width):
                out[start + b, m] = log_sum_exp(joint, n_components, b)


def mixture_log_prob(
    points: Tensor, weights: Tensor, means: Tensor, precisions_cholesky: Tensor, *, covariance_type: str = "full"
) -> Tensor:
    """Log-density of each point under each of M mixtures, [N, M]."""
    factors, log_norm, per_model = factors_and_log_norm(means, precisions_cholesky, covariance_type)
    out = torch.empty(points.shape[0], means.shape[0], dtype=points.dtype)
    parallel_for(
        _log_prob_tiles,
        -(-points.shape[0] // tile_width(points.shape[1])),
        points.detach().contiguous().numpy(),
        means.detach().contiguous().numpy(),
        factors,
        per_model,
        log_norm + weights.detach().double().log().numpy(),
        out.numpy(),
    )
    return out
