"""A fit of a batch on disk on several ranks, for :mod:`tests.distributed.test_on_disk`."""

from __future__ import annotations

from typing import Any

import fastdens as fd
import fastdens.distributed.models
from fastdens.mixtures.parts import fit_part
from tests.distributed.checks import QUICK, difference
from tests.ranks import raised


def main(points: str, labels: str) -> dict[str, Any]:
    """Models that this rank fitted at a time, in groups of three at most, and what differs from one process."""
    fitted: list[list[int]] = []

    def noted(estimator: Any, batch: Any, models: Any, **options: Any) -> Any:
        fitted.append(models.tolist())
        return fit_part(estimator, batch, models, **options)

    fastdens.distributed.models.fit_part = noted
    fastdens.distributed.models.groups_under = lambda estimator, batch, limit: [(0, 3), (3, 6), (6, batch.n_models)]
    batch = fd.RaggedBatch.from_files(points, labels, max_memory="8GiB")
    found: dict[str, Any] = {}
    for name, make in {
        "em": lambda: fd.GaussianMixtures(2, max_iter=5, tol=0),
        "gibbs": lambda: fd.DirichletProcessMixtures(**QUICK),
    }.items():
        fit = fd.distributed.fit(make(), batch)
        found[name] = difference(fit, make().fit(batch.load()))
    found["points"] = raised(lambda: fd.distributed.fit(fd.GaussianMixtures(1), batch, split="points"))
    found["fitted"] = fitted
    return found
