"""What scikit-learn's users pass, as the estimators of this library take it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from fastdens.batch import RaggedBatch

# What data are computed in: float32 stays float32, everything else becomes float64.
DTYPES = [np.float64, np.float32]


def seed_of(random_state: Any) -> int:
    """A seed, drawn from a ``RandomState`` or from numpy's own for None; one and the same for an integer."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def weighted(batch: RaggedBatch, sample_weight: ArrayLike | None) -> RaggedBatch:
    """The batch with weights, if they are given.

    Raises
    ------
    TypeError, ValueError
        If there is not one for each sample, one is negative, NaN or infinite, or all are zero.
    """
    if sample_weight is None:
        return batch
    with_weights = batch.weighted(sample_weight)
    if not bool(with_weights.total_weights.any()):
        raise ValueError("sample_weight is zero for every sample: leave it out, or raise a weight.")
    return with_weights
