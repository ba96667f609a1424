"""Products of the CPU kernels against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from fastdens.kernels.cpu._cholesky import factor, invert
from fastdens.kernels.cpu._tiles import load_tile, new_tile, padded, quadratic_form


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (33, 3), (256, 16), (100, 65)])
def test_quadratic_form(rng, n, d, dtype):
    points, mean = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=d).astype(dtype)
    # What lies below the diagonal is not read.
    factor = np.where(np.tri(d, k=-1), np.nan, rng.normal(size=(d, d))).astype(dtype)
    tile = new_tile(d, 256, points)
    load_tile(points, 0, n, tile)
    form, panel = np.empty(256, dtype), np.empty((padded(d), 4), dtype)
    quadratic_form(tile, n, mean, factor, panel, np.zeros_like(tile), form)
    y = (points - mean).astype(float) @ np.triu(np.nan_to_num(factor.astype(float)))
    want = (y * y).sum(1)
    assert (np.abs(form[:n] - want) <= 50 * np.finfo(dtype).eps * want.max()).all()


@pytest.mark.parametrize("n", [4, 12, 64, 100])
def test_factor_and_inverse(rng, n):
    root = rng.normal(size=(n, 2 * n))
    a, x, panel = new_tile(n, n, root), new_tile(n, n, root), np.empty((n, 4))
    a[:, :n] = root @ root.T
    want = np.linalg.cholesky(a[:, :n]).T
    assert factor(a, panel)
    invert(a, x, panel)
    assert np.abs(np.triu(a[:, :n]) - want).max() < 1e-10 * np.abs(want).max()
    assert np.abs(x[:, :n] @ want - np.eye(n)).max() < 1e-10
    assert (np.tril(x[:, :n], -1) == 0).all()
    a[:, :n] = -np.eye(n)
    assert not factor(a, panel)
