"""What a case gives, or an error that says what it lacks; and what a row notes about a library."""

from __future__ import annotations

from torch import Tensor

from fastdens.bench.cases import Case

OWN_DRAWS = "draws of its own"
PLAIN = "k-means++ with one candidate a centre"
MAY_STOP_EARLIER = "stops when no point moves"


def queries_of(case: Case) -> Tensor:
    """[Q, D]."""
    if case.queries is None:
        raise ValueError(f"{case.operation} needs queries: a case without them cannot be run.")
    return case.queries


def labels_of(case: Case) -> Tensor:
    """int64 [M, N]."""
    if case.labels is None:
        raise ValueError(f"{case.operation} starts from labels: a case without them cannot be run.")
    return case.labels
