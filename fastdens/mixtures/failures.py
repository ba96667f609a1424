"""Models of a batch that cannot be fitted, and why: reasons complete the sentence "model 3 (class 3) ..."."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.errors import ModelError
from fastdens.kernels.centre import central_points
from fastdens.kernels.races import copies_of_models

Failures = dict[int, str]


# Sums of squares of larger numbers overflow float64.
_LARGEST = 1e140
# Of points in float64, at most, while they are checked.
_COPIES = 4


def failures_of(
    batch: RaggedBatch, find: Callable[[RaggedBatch], Failures], groups: Sequence[tuple[int, int]] | None = None
) -> Failures:
    """What ``find`` finds in some models at a time: by default all, or as many as a batch on disk allows.

    It does not see points of weight zero.
    """
    if groups is None:
        # The points, and their differences or squares.
        groups = batch.groups(batch.sizes.double() * (_COPIES * 8 * batch.n_features), "checking")
    found: Failures = {}
    for begin, end in groups:
        reasons = find(batch.part(begin, end).without_zero_weights())
        found.update({begin + m: reason for m, reason in reasons.items()})
    return found


def _largest(batch: RaggedBatch) -> float:
    """The largest magnitude among the points, in one pass; NaN if one is NaN, 0 if there are none."""
    if not batch.points.numel():
        return 0.0
    low, high = torch.aminmax(batch.points)
    return max(-float(low), float(high))


def non_finite(batch: RaggedBatch) -> Failures:
    """Models that hold NaN or infinity, or numbers in float64 whose squares overflow."""
    points = batch.points
    if _largest(batch) < _LARGEST / batch.n_features:
        return {}
    # One number for each row, without a copy; a sum may overflow where no term is infinite.
    of_row, most = points.sum(1), float("inf")
    if points.dtype == torch.float64:
        of_row, most = torch.linalg.vecdot(points, points), _LARGEST**2
    rows = torch.nonzero(~(of_row.abs() < most))[:, 0]
    finite = torch.isfinite(points[rows]).all(1)
    if points.dtype != torch.float64:
        rows, finite = rows[~finite], finite[~finite]
    models = torch.searchsorted(batch.offsets, rows, right=True) - 1
    failures: Failures = {}
    for m, row, is_finite in zip(models.tolist(), rows.tolist(), finite.tolist(), strict=True):
        where = f"first in row {int(batch.index[row])}"
        failures.setdefault(
            m,
            f"has values over {_LARGEST:.0e}, {where}, whose squares overflow: scale the points down"
            if is_finite
            else f"has NaN or infinity, {where}: remove or impute those rows",
        )
    return failures


def not_computable(batch: RaggedBatch, dtype: torch.dtype) -> Failures:
    """The models of :func:`out_of_range` and :func:`non_finite`; where there are none, after one look at the points."""
    largest = _largest(batch)
    if largest < min(_safe_in(batch, dtype), _LARGEST / batch.n_features):
        return {}
    return {**out_of_range(batch, dtype), **non_finite(batch)}


def _safe_in(batch: RaggedBatch, dtype: torch.dtype) -> float:
    """A magnitude below which no sum of squared distances between points overflows."""
    # No distance is more than twice the largest number, and no model has more rows than all together.
    return 0.05 * math.sqrt(torch.finfo(dtype).max / max(batch.points.numel(), 1))


def out_of_range(batch: RaggedBatch, dtype: torch.dtype) -> Failures:
    """Models with a point so far from the others that sums of squares would overflow in the dtype of the fit."""
    if _largest(batch) < _safe_in(batch, dtype):
        return {}
    # The largest distance that can be squared and summed over rows and features, with a factor of ten in hand.
    most = 0.1 * (torch.finfo(dtype).max / (batch.sizes.double().clamp_min(1) * batch.n_features)).sqrt()
    suspects = torch.linalg.vector_norm(batch.points, torch.inf, dim=1) > most.min()
    if not bool(suspects.any()):
        return {}
    models = torch.unique(batch.model_of_row[suspects])
    own = batch.select(models)
    centre = central_points(own.points, own.layout)[own.model_of_row].double()
    distance = torch.linalg.vector_norm(own.points.double() - centre, torch.inf, dim=1)
    is_far = (distance > most[models][own.model_of_row]) & distance.isfinite()
    failures: Failures = {}
    for row in torch.nonzero(is_far)[:, 0].tolist():
        at = int(own.index[row])
        remedy = "compute in dtype=torch.float64, or leave that row out" if dtype == torch.float32 else "leave it out"
        name = str(dtype).removeprefix("torch.")
        failures.setdefault(
            int(models[own.model_of_row[row]]),
            f"has row {at} at a distance of {float(distance[row]):.3g} from the others, whose square {name} cannot "
            f"hold: {remedy}",
        )
    return failures


def fewer_points_than_components(batch: RaggedBatch, n_components: int) -> Failures:
    """Models that hold fewer points than a mixture has components; a point of weight two is two, say."""
    need = "1 component needs" if n_components == 1 else f"{n_components} components need"
    failures: Failures = {}
    sizes = copies_of_models(batch.layout, batch.weights)
    for m in torch.nonzero(sizes < n_components)[:, 0].tolist():
        size = int(sizes[m])
        failures[m] = (
            f"has {size} point{'s' * (size != 1)}, but {need} at least {n_components}: add points or lower n_components"
        )
    return failures


def no_more_points_than_factors(batch: RaggedBatch, n_factors: int) -> Failures:
    """Models of so few points that the factors of a factor analyser would explain them without noise."""
    failures: Failures = {}
    for m in torch.nonzero(batch.sizes <= n_factors)[:, 0].tolist():
        size, factors = int(batch.sizes[m]), f"{n_factors} factor{'s' * (n_factors != 1)}"
        failures[m] = (
            f"has {size} point{'s' * (size != 1)}, but {factors} need{'s' * (n_factors == 1)} at least "
            f"{n_factors + 1}: add points or lower n_factors"
        )
    return failures


def without_points(batch: RaggedBatch) -> Failures:
    """Models that hold no points."""
    reason = "has no points: add points or leave the class out"
    return dict.fromkeys(torch.nonzero(batch.sizes == 0)[:, 0].tolist(), reason)


def without_weight(batch: RaggedBatch) -> Failures:
    """Models that hold points, but none of positive weight."""
    if batch.weights is None:
        return {}
    weightless = (batch.sizes > 0) & (batch.total_weights == 0)
    reason = "has no point of positive weight: raise a weight or leave the class out"
    return dict.fromkeys(torch.nonzero(weightless)[:, 0].tolist(), reason)


def without_variance(batch: RaggedBatch, constant: Tensor, variance_floor: float) -> Failures:
    """Models whose features do not vary, bool [M, D], so that the prior of a Dirichlet process has no scale."""
    everywhere = constant.all(1)
    failures = dict.fromkeys(
        torch.nonzero(everywhere)[:, 0].tolist(),
        "has no variance in any feature, and so no prior: add points, or leave the class out",
    )
    if variance_floor == 0:
        for m in torch.nonzero(constant.any(1) & ~everywhere)[:, 0].tolist():
            failures[m] = (
                f"has no variance in feature {int(constant[m].long().argmax())}, and so no prior: pass a "
                "variance_floor such as 1e-6, or leave out the feature or the class"
            )
    return failures


def raise_failures(batch: RaggedBatch, failures: Failures, remedy: str) -> None:
    """Raise a :class:`ModelError` that names the failed models (the first five in full), if there are any."""
    if not failures:
        return
    raise ModelError(f"{describe_failures(failures, batch.describe)}; {remedy}.", failures)


def describe_failures(failures: Failures, name: Callable[[int], str]) -> str:
    """Failed models with their reasons: the first five, by the names that ``name`` gives them, and how many more."""
    named = sorted(failures)[:5]
    text = "; ".join(f"{name(m)} {failures[m]}" for m in named)
    return text + (f"; and {len(failures) - len(named)} more" if len(failures) > len(named) else "")
