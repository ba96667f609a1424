"""Models of a batch that cannot be fitted, and why: reasons complete the sentence "model 3 (class 3) ..."."""

from __future__ import annotations

import torch

from fastdens.batch import RaggedBatch
from fastdens.errors import ModelError

Failures = dict[int, str]


# Sums of squares of larger numbers overflow float64.
_LARGEST = 1e140


def non_finite(batch: RaggedBatch) -> Failures:
    """Models that hold NaN or infinity, or numbers in float64 whose squares overflow."""
    points = batch.points
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


def fewer_points_than_components(batch: RaggedBatch, n_components: int) -> Failures:
    """Models that hold fewer points than a mixture has components."""
    need = "1 component needs" if n_components == 1 else f"{n_components} components need"
    failures = {}
    for m in torch.nonzero(batch.sizes < n_components)[:, 0].tolist():
        size = int(batch.sizes[m])
        failures[m] = (
            f"has {size} point{'s' * (size != 1)}, but {need} at least {n_components}: add points or lower n_components"
        )
    return failures


def without_points(batch: RaggedBatch) -> Failures:
    """Models that hold no points."""
    reason = "has no points: add points or leave the class out"
    return dict.fromkeys(torch.nonzero(batch.sizes == 0)[:, 0].tolist(), reason)


def constant_features(batch: RaggedBatch) -> Failures:
    """Models with a feature that does not vary, which leaves the prior of a Dirichlet process without a scale."""
    if len(batch.points) == 0:
        return {}
    # A feature is constant where no row differs from the first of its model.
    first = batch.points[batch.offsets[:-1].clamp_max(max(len(batch.points) - 1, 0))]
    model = batch.model_of_row
    varies = torch.zeros(batch.n_models, batch.n_features, dtype=torch.int64, device=model.device)
    varies.index_add_(0, model, (batch.points != first[model]).long())
    return {
        m: f"has no variance in feature {int((varies[m] == 0).long().argmax())}, and so no prior: add points, or leave "
        "out the feature or the class"
        for m in torch.nonzero((varies == 0).any(1))[:, 0].tolist()
    }


def raise_failures(batch: RaggedBatch, failures: Failures, remedy: str) -> None:
    """Raise a :class:`ModelError` that names the failed models (the first five in full), if there are any."""
    if not failures:
        return
    named = sorted(failures)[:5]
    text = "; ".join(f"{batch.describe(m)} {failures[m]}" for m in named)
    more = f"; and {len(failures) - len(named)} more" if len(failures) > len(named) else ""
    raise ModelError(f"{text}{more}; {remedy}.", failures)
