"""CPU twin of :mod:`fastdens.kernels.cholesky`: many small factorisations, one thread a slice of them."""

from __future__ import annotations

import numpy as np
import torch
from fastdens.kernels.cpu._cholesky import factor, invert
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import parallel_for
from fastdens.kernels.cpu._tiles import new_tile, padded
from torch import Tensor


@kernel
def _factor_all(begin, end, covariances, out, bad):
    n_features = covariances.shape[1]
    n_padded = padded(n_features)
    panel = np.empty((n_padded, 4))
    a = new_tile(n_features, n_padded, panel)
    x = new_tile(n_features, n_padded, panel)
    for g in range(begin, end):
        for i in range(n_padded):
            for j in range(n_features, a.shape[1]):
                a[i, j] = i == j
            if i < n_features:
                for j in range(i, n_features):
                    a[i, j] = covariances[g, i, j]
        bad[g] = not factor(a, panel)
        if bad[g]:
            out[g] = np.nan
            continue
        invert(a, x, panel)
        for i in range(n_features):
            for j in range(n_features):
                out[g, i, j] = x[i, j]


def precision_cholesky(covariances: Tensor, *, covariance_type: str = "full") -> tuple[Tensor, Tensor]:
    """Upper-triangular U with ``U U' = covariance^-1``, by way of float64, True for a model without."""
    n_models = covariances.shape[0]
    if covariance_type in ("diag", "spherical"):
        positive = (covariances > 0) & torch.isfinite(covariances)
        return covariances.rsqrt(), ~positive.flatten(1).all(1)
    n_features = covariances.shape[-1]
    flat = covariances.reshape(-1, n_features, n_features).contiguous()
    out = torch.empty_like(flat)
    bad = torch.empty(flat.shape[0], dtype=torch.bool, device="cpu")
    parallel_for(_factor_all, flat.shape[0], flat.numpy(), out.numpy(), bad.numpy())
    return out.reshape(covariances.shape), bad.reshape(n_models, -1).any(1)
