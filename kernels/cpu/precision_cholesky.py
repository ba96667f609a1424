"""CPU twin of :mod:`fastdens.kernels.precision_cholesky`: many small factorisations, one thread a slice of them."""

from __future__ import annotations

import math

import numpy as np
import torch
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._parallel import parallel_for
from torch import Tensor

# Rows are updated in runs of eight, a constant that the compiler turns into whole vectors; a run may begin left of
# the diagonal, where it changes entries that nothing reads.
_RUN = 8


@kernel
def _subtract_rows(x, i, first, s0, s1, s2, s3, y, k):
    """``x[i, first:] -= s0 y[k, first:] + ... + s3 y[k + 3, first:]``, from the run that ``first`` is in.

    All loads of a run stand before its stores: only so may the compiler use vectors, since to it the rows may overlap.
    """
    for j in range(first // _RUN * _RUN, x.shape[1], _RUN):
        v0 = x[i, j] - (s0 * y[k, j] + s1 * y[k + 1, j] + s2 * y[k + 2, j] + s3 * y[k + 3, j])
        v1 = x[i, j + 1] - (s0 * y[k, j + 1] + s1 * y[k + 1, j + 1] + s2 * y[k + 2, j + 1] + s3 * y[k + 3, j + 1])
        v2 = x[i, j + 2] - (s0 * y[k, j + 2] + s1 * y[k + 1, j + 2] + s2 * y[k + 2, j + 2] + s3 * y[k + 3, j + 2])
        v3 = x[i, j + 3] - (s0 * y[k, j + 3] + s1 * y[k + 1, j + 3] + s2 * y[k + 2, j + 3] + s3 * y[k + 3, j + 3])
        v4 = x[i, j + 4] - (s0 * y[k, j + 4] + s1 * y[k + 1, j + 4] + s2 * y[k + 2, j + 4] + s3 * y[k + 3, j + 4])
        v5 = x[i, j + 5] - (s0 * y[k, j + 5] + s1 * y[k + 1, j + 5] + s2 * y[k + 2, j + 5] + s3 * y[k + 3, j + 5])
        v6 = x[i, j + 6] - (s0 * y[k, j + 6] + s1 * y[k + 1, j + 6] + s2 * y[k + 2, j + 6] + s3 * y[k + 3, j + 6])
        v7 = x[i, j + 7] - (s0 * y[k, j + 7] + s1 * y[k + 1, j + 7] + s2 * y[k + 2, j + 7] + s3 * y[k + 3, j + 7])
        x[i, j] = v0
        x[i, j + 1] = v1
        x[i, j + 2] = v2
        x[i, j + 3] = v3
        x[i, j + 4] = v4
        x[i, j + 5] = v5
        x[i, j + 6] = v6
        x[i, j + 7] = v7


@kernel
def _factor(a):
    """Upper R with ``A = R' R``, in place, four rows at a time; False where A is not positive definite."""
    n = a.shape[0]
    for panel in range(0, n, 4):
        for p in range(panel, panel + 4):
            for q in range(panel, p):
                s = a[q, p]
                for j in range(p, n):
                    a[p, j] -= s * a[q, j]
            if not (a[p, p] > 0 and a[p, p] < np.inf):
                return False
            scale = 1 / math.sqrt(a[p, p])
            for j in range(p, n):
                a[p, j] *= scale
        for i in range(panel + 4, n):
            _subtract_rows(a, i, i, a[panel, i], a[panel + 1, i], a[panel + 2, i], a[panel + 3, i], a, panel)
    return True


@kernel
def _invert(r, x):
    """``X = R^-1`` of an upper-triangular R, by back substitution over rows, four at a time."""
    n = r.shape[0]
    for i in range(n - 1, -1, -1):
        for j in range(n):
            x[i, j] = 0
        x[i, i] = 1
        t = i + 1
        while t % 4 != 0:
            s = r[i, t]
            for j in range(t, n):
                x[i, j] -= s * x[t, j]
            t += 1
        while t < n:
            _subtract_rows(x, i, t, r[i, t], r[i, t + 1], r[i, t + 2], r[i, t + 3], x, t)
            t += 4
        scale = 1 / r[i, i]
        for j in range(i, n):
            x[i, j] *= scale


@kernel
def _factor_all(begin, end, covariances, out, bad):
    n_features = covariances.shape[1]
    n_padded = (n_features + _RUN - 1) // _RUN * _RUN
    a = np.empty((n_padded, n_padded))
    x = np.empty((n_padded, n_padded))
    for g in range(begin, end):
        a[:] = 0
        for i in range(n_features):
            for j in range(n_features):
                a[i, j] = covariances[g, i, j]
        for i in range(n_features, n_padded):
            a[i, i] = 1
        bad[g] = not _factor(a)
        if bad[g]:
            out[g] = np.nan
            continue
        _invert(a, x)
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
    bad = torch.empty(flat.shape[0], dtype=torch.bool)
    parallel_for(_factor_all, flat.shape[0], flat.numpy(), out.numpy(), bad.numpy())
    return out.reshape(covariances.shape), bad.reshape(n_models, -1).any(1)
