"""CPU twin of :mod:`fastdens.kernels.responsibilities`, the E step."""

from __future__ import annotations

import numpy as np
import torch
from fastdens.kernels.cpu._gaussian import factors_and_log_norm
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import chunk_rows, parallel_for
from fastdens.kernels.cpu._tiles import load_tile, log_sum_exp, new_tile, padded, quadratic_form, tile_width
from torch import Tensor


@kernel
def _e_step_chunks(
    begin, end, model, first_row, last_row, points, means, factors, per_model, log_joint_norm, resp, log_prob_norm
):
    n_features = points.shape[1]
    n_components = means.shape[1]
    n_padded, size = padded(n_features), tile_width(n_features)
    tile = new_tile(n_features, size, points)
    centred = new_tile(n_features, size, points)
    upper = np.zeros((n_padded, n_padded), points.dtype)
    y = np.empty((4, size), points.dtype)
    form = np.empty(size, points.dtype)
    joint = np.empty((n_components, size), points.dtype)
    for c in range(begin, end):
        m = model[c]
        for start in range(first_row[c], last_row[c], size):
            width = min(size, last_row[c] - start)
            load_tile(points, start, width, tile)
            for k in range(n_components):
                factor = factors[m * per_model + min(k, per_model - 1)]
                quadratic_form(tile, width, means[m, k], factor, upper, centred, y, form)
                for b in range(width):
                    joint[k, b] = log_joint_norm[m, k] - 0.5 * form[b]
            for b in range(width):
                total = log_sum_exp(joint, n_components, b)
                log_prob_norm[start + b] = total
                for k in range(n_components):
                    resp[start + b, k] = np.exp(joint[k, b] - total)


def responsibilities(
    points: Tensor,
    ranges: Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    *,
    covariance_type: str = "full",
    log_weights: bool = False,
) -> tuple[Tensor, Tensor]:
    """Responsibilities [N, K] and log-densities [N] of each point under its own model."""
    factors, log_norm, per_model = factors_and_log_norm(means, precisions_cholesky, covariance_type)
    n_points, n_features = points.shape
    resp = torch.zeros(n_points, means.shape[1], dtype=points.dtype)
    log_prob_norm = torch.zeros(n_points, dtype=points.dtype)
    chunks = chunk_rows(ranges.numpy(), means.shape[1], n_features)
    parallel_for(
        _e_step_chunks,
        len(chunks.model),
        chunks.model,
        chunks.start,
        chunks.stop,
        points.detach().contiguous().numpy(),
        means.detach().contiguous().numpy(),
        factors,
        per_model,
        log_norm + (weights.double() if log_weights else weights.double().log()).detach().numpy(),
        resp.numpy(),
        log_prob_norm.numpy(),
    )
    return resp, log_prob_norm
