"""Points so far out that float32 does not hold the squares of their distances; they are computed in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

# Nearer points have squares in float32, unless standard deviations are very small.
_FAR = 1e10


def with_far_points(compute: Callable[..., tuple[Tensor, ...]], arguments: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """What ``compute`` makes of the arguments; in the rows of far float32 points, what it makes of them in float64.

    Parameters
    ----------
    compute : callable
        Of the arguments by name; returns tensors [N, ...].
    arguments : mapping of str to object
        ``points`` [N, D] are among them.
    """
    points, results = arguments["points"], compute(**arguments)
    # A sum is one number to look at, and finite in all but rare cases.
    if points.dtype != torch.float32 or all(bool(torch.isfinite(result.sum())) for result in results):
        return results
    largest = torch.linalg.vector_norm(points, torch.inf, dim=1)
    far = (largest > _FAR) & largest.isfinite()
    if not bool(far.any()):
        return results
    in_double = {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in arguments.items()
    }
    pairs = zip(results, compute(**in_double), strict=True)
    return tuple(torch.where(far.reshape(-1, *[1] * (a.ndim - 1)), b.to(a.dtype), a) for a, b in pairs)
