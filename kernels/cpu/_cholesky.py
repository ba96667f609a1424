"""Cholesky factors of small matrices and their inverses in float64, by blocks of four rows.

A block of rows is finished before the next is begun: what the rows before it contribute is one product. The order n of
a matrix is padded to a multiple of four with ones on the diagonal, and its rows are those of
:func:`fastdens.kernels.cpu._tiles.new_tile`, whose last columns a product may overwrite.
"""

from __future__ import annotations

import math

from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._products import block_columns, subtract_product


@kernel
def factor(a, panel):
    """Upper R with ``A = R' R``, in place of the upper triangle of A; False where A is not positive definite.

    ``panel`` [n, 4] is scratch.
    """
    n = a.shape[0]
    for i in range(0, n, 4):
        for k in range(i):
            for r in range(4):
                panel[k, r] = a[k, i + r]
        for j in range(i, n, block_columns(a)):
            subtract_product(panel, a, j, 0, i, a, i)
        for p in range(i, i + 4):
            for q in range(i, p):
                c = a[q, p]
                for j in range(p, n):
                    a[p, j] -= c * a[q, j]
            if not (a[p, p] > 0 and a[p, p] < math.inf):
                return False
            c = 1 / math.sqrt(a[p, p])
            for j in range(p, n):
                a[p, j] *= c
    return True


@kernel
def invert(r, x, panel):
    """``X = R^-1`` of an upper-triangular R, by back substitution; ``panel`` [n, 4] is scratch."""
    n = r.shape[0]
    for i in range(n - 4, -1, -4):
        for p in range(i, i + 4):
            for j in range(n):
                x[p, j] = 0
            x[p, p] = 1
            for k in range(i + 4, n):
                panel[k, p - i] = r[p, k]
        for j in range(i + 4, n, block_columns(x)):
            # Row k of X is zero before column k.
            subtract_product(panel, x, j, i + 4, min(n, j + block_columns(x)), x, i)
        for p in range(i + 3, i - 1, -1):
            for q in range(p + 1, i + 4):
                c = r[p, q]
                for j in range(q, n):
                    x[p, j] -= c * x[q, j]
            c = 1 / r[p, p]
            for j in range(p, n):
                x[p, j] *= c
