"""Whether the outcomes of two libraries agree."""

from __future__ import annotations

import math

from torch import Tensor

EXACT = {"em": 3e-3, "log_prob": 1e-3, "variational": 1e-3, "neighbours": 1e-3, "scores": 1e-3}
"""Operations with one right outcome, and the largest relative difference of any of its numbers that is taken for
rounding in float32, which iterations amplify."""

RANDOM = {"start": 0.1, "gibbs": 0.1, "kl": 0.1}
"""Operations that draw random numbers, and the relative difference of the means over all models that is taken for
chance."""


def difference(operation: str, ours: Tensor, theirs: Tensor) -> float:
    """How far the outcomes are apart, relative to ours; numbers below one count as one.

    The largest difference, or that of the means of operations that draw random numbers. Infinite if the shapes differ
    or one of them is not finite.
    """
    if ours.shape != theirs.shape:
        return math.inf
    ours, theirs = ours.double(), theirs.double()
    if operation in RANDOM:
        ours, theirs = ours.mean(), theirs.mean()
    found = float(((theirs - ours).abs() / ours.abs().clamp_min(1.0)).max())
    return found if math.isfinite(found) else math.inf


def agrees(operation: str, found: float) -> bool:
    """Whether a difference is one of rounding or of chance."""
    return found <= {**EXACT, **RANDOM}[operation]
