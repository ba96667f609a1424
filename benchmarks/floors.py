"""The floor of one EM iteration with full covariances: its two batched matrix products and nothing else.

E step: points [M, N, D] times K factors [M, D, K D]. M step: points transposed times weighted points [M, N, K D].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_MAX_ELEMENTS = 1 << 27


def em_floor(points: Tensor, n_components: int, n_iter: int) -> Callable[[], None]:
    """A callable that runs the products of ``n_iter`` iterations, a run of models at a time if memory asks for it."""
    m, n, d = points.shape
    wide = n_components * d
    step = max(1, min(m, _MAX_ELEMENTS // (n * wide)))
    rows = min(n, max(1, _MAX_ELEMENTS // wide))
    factors = torch.randn(step, d, wide, device=points.device)
    weighted = torch.randn(step, rows, wide, device=points.device)
    y = torch.empty(step, rows, wide, device=points.device)
    scatter = torch.empty(step, d, wide, device=points.device)

    def run() -> None:
        for _ in range(n_iter):
            for begin in range(0, m, step):
                for row in range(0, n, rows):
                    x = points[begin : begin + step, row : row + rows]
                    a, b = x.shape[:2]
                    torch.bmm(x, factors[:a], out=y[:a, :b])
                    torch.bmm(x.mT, weighted[:a, :b], out=scatter[:a])

    return run
