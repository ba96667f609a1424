"""Points so far out that float32 does not hold the squares of their distances; they are computed in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

R = TypeVar("R", bound=tuple[Tensor, ...])

# Nearer points have squares in float32, unless standard deviations are very small.
_FAR = 1e10


def with_far_points(compute: Callable[..., R], arguments: Mapping[str, Any], results: R) -> R:
    """Results of ``compute``, in the rows of far points those in float64.

    Parameters
    ----------
    compute : callable
        Of the arguments by name.
    arguments : mapping of str to object
        ``points`` [N, D] are among them.
    results : tuple of Tensor
        [N, ...], of float32 points perhaps not finite.
    """
    points = arguments["points"]
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
    exact = compute(**in_double)
    rows = (
        torch.where(far.reshape(-1, *[1] * (a.ndim - 1)), b.to(a.dtype), a) for a, b in zip(results, exact, strict=True)
    )
    return type(results)(*rows) if hasattr(results, "_fields") else type(results)(rows)
