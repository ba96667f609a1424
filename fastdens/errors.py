"""Checks that estimators share: constructor parameters, the points of a batch, and how a bad model is reported."""

from __future__ import annotations

import torch

from fastdens.batch import RaggedBatch


class ModelError(ValueError):
    """One or more models of a batch cannot be fitted; the message names each.

    Attributes
    ----------
    failed : dict of int to str
        Why, for each model that failed.
    """

    def __init__(self, message: str, failed: dict[int, str]) -> None:
        super().__init__(message)
        self.failed = failed


class ConvergenceWarning(UserWarning):
    """Some models stopped at ``max_iter`` before they converged."""


def check_integer(name: str, value: object, minimum: int) -> int:
    """``value`` if it is an integer of at least ``minimum``."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}, but it must be an integer of at least {minimum}.")
    number = value.__index__()
    if number < minimum:
        raise ValueError(f"{name} is {number}, but it must be at least {minimum}.")
    return int(number)


def check_non_negative(name: str, value: float) -> float:
    """``value`` if it is a number of at least zero."""
    if not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{name} is {value!r}, but it must be a number of at least 0.")
    return float(value)


def check_batch(batch: object) -> RaggedBatch:
    """``batch`` if it is one, else a TypeError that says how to make one."""
    if not isinstance(batch, RaggedBatch):
        raise TypeError(
            f"expected a RaggedBatch, got {type(batch).__name__}: make one with fd.RaggedBatch.from_labels(x, y) or "
            "fd.RaggedBatch.from_list([x0, x1, ...])."
        )
    return batch


def bad_models(batch: RaggedBatch, min_points: int) -> dict[int, str]:
    """Models that hold NaN or infinity, or fewer than ``min_points`` points, and why."""
    failed: dict[int, str] = {}
    few = torch.nonzero(batch.sizes < min_points)[:, 0].tolist()
    for m in few:
        size = int(batch.sizes[m])
        failed[m] = (
            f"has {size} point{'s' * (size != 1)}, but {min_points} component{'s' * (min_points != 1)} need at least "
            f"{min_points}: add points or lower n_components"
        )
    bad_rows = torch.nonzero(~torch.isfinite(batch.points.sum(1)))[:, 0]
    # A sum may overflow where no term is infinite: look at the few suspects themselves.
    bad_rows = bad_rows[~torch.isfinite(batch.points[bad_rows]).all(1)]
    models = torch.searchsorted(batch.offsets, bad_rows, right=True) - 1
    for m, row in zip(models.tolist(), bad_rows.tolist(), strict=True):
        failed.setdefault(m, f"has NaN or infinity, first in row {int(batch.index[row])}: remove or impute those rows")
    return failed


def raise_failed(batch: RaggedBatch, failed: dict[int, str], remedy: str) -> None:
    """Raise a :class:`ModelError` that names the failed models (the first five in full), if there are any."""
    if not failed:
        return
    named = sorted(failed)[:5]
    text = "; ".join(f"{batch.describe(m)} {failed[m]}" for m in named)
    more = f"; and {len(failed) - len(named)} more" if len(failed) > len(named) else ""
    raise ModelError(f"{text}{more}; {remedy}.", failed)
