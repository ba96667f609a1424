"""Cholesky factors of small matrices and their inverses in float64, by blocks of four rows.

The order of a matrix is padded to a multiple of four with ones on the diagonal.
"""

from __future__ import annotations

import math

import numpy as np
from fastdens.kernels.cpu._numba import kernel


@kernel
def _subtract_block(x, i, first, s, y, k):
    """``x[i:i+4, first:] -= s' y[k:k+4, first:]``: sixteen multiply-adds for eight loads and four stores."""
    s00, s01, s02, s03 = s[0, 0], s[0, 1], s[0, 2], s[0, 3]
    s10, s11, s12, s13 = s[1, 0], s[1, 1], s[1, 2], s[1, 3]
    s20, s21, s22, s23 = s[2, 0], s[2, 1], s[2, 2], s[2, 3]
    s30, s31, s32, s33 = s[3, 0], s[3, 1], s[3, 2], s[3, 3]
    for j in range(first, x.shape[1]):
        y0, y1, y2, y3 = y[k, j], y[k + 1, j], y[k + 2, j], y[k + 3, j]
        x[i, j] -= s00 * y0 + s10 * y1 + s20 * y2 + s30 * y3
        x[i + 1, j] -= s01 * y0 + s11 * y1 + s21 * y2 + s31 * y3
        x[i + 2, j] -= s02 * y0 + s12 * y1 + s22 * y2 + s32 * y3
        x[i + 3, j] -= s03 * y0 + s13 * y1 + s23 * y2 + s33 * y3


@kernel
def factor(a, s):
    """Upper R with ``A = R' R``, in place, by blocks of four rows; False where A is not positive definite."""
    n = a.shape[0]
    for panel in range(0, n, 4):
        for p in range(panel, panel + 4):
            for q in range(panel, p):
                c = a[q, p]
                for j in range(p, n):
                    a[p, j] -= c * a[q, j]
            if not (a[p, p] > 0 and a[p, p] < np.inf):
                return False
            c = 1 / math.sqrt(a[p, p])
            for j in range(p, n):
                a[p, j] *= c
        for i in range(panel + 4, n, 4):
            for t in range(4):
                for u in range(4):
                    s[t, u] = a[panel + t, i + u]
            _subtract_block(a, i, i, s, a, panel)
    return True


@kernel
def invert(r, x, s):
    """``X = R^-1`` of an upper-triangular R, by back substitution over blocks of four rows."""
    n = r.shape[0]
    for i in range(n - 4, -1, -4):
        for p in range(i, i + 4):
            for j in range(n):
                x[p, j] = 0
            x[p, p] = 1
        for k in range(i + 4, n, 4):
            for t in range(4):
                for u in range(4):
                    s[t, u] = r[i + u, k + t]
            _subtract_block(x, i, k, s, x, k)
        for p in range(i + 3, i - 1, -1):
            for q in range(p + 1, i + 4):
                c = r[p, q]
                for j in range(q, n):
                    x[p, j] -= c * x[q, j]
            c = 1 / r[p, p]
            for j in range(p, n):
                x[p, j] *= c
