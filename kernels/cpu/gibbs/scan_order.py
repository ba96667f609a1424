"""The order in which a sweep updates the points, on a CPU."""

from __future__ import annotations

import numpy as np
from fastdens.kernels.cpu._numba import kernel
from fastdens.kernels.cpu._random import bits_of


@kernel
def scan_order(stream, n_points, bits, first, order):
    """Rows in ascending order of 40 random bits: a bucket sort, then insertions; ``bits`` and ``first`` are scratch."""
    first[:] = 0
    for i in range(n_points):
        bits[i] = np.int64(bits_of(stream, i) >> np.uint64(13))
        first[((bits[i] >> 16) * n_points >> 24) + 1] += 1
    for g in range(n_points):
        first[g + 1] += first[g]
    for i in range(n_points):
        bucket = (bits[i] >> 16) * n_points >> 24
        order[first[bucket]] = i
        first[bucket] += 1
    for p in range(1, n_points):
        i = order[p]
        q = p
        while q > 0 and bits[order[q - 1]] > bits[i]:
            order[q] = order[q - 1]
            q -= 1
        order[q] = i
