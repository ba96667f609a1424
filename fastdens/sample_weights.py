"""Weights of points: what each counts for, as a caller gives them."""

from __future__ import annotations

from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.arrays import as_tensor


def read_weights(sample_weight: ArrayLike | Tensor, n_points: int) -> Tensor:
    """Weights of ``n_points`` points, float64 [N], in the order in which they are given.

    Raises
    ------
    TypeError
        If they are not real numbers.
    ValueError
        If there is not one for each point, or one is missing, negative, NaN or infinite.
    """
    weights = as_tensor(sample_weight, "sample_weight").detach()
    if tuple(weights.shape) != (n_points,):
        raise ValueError(
            f"sample_weight has shape {tuple(weights.shape)}, but the batch has {n_points} "
            f"point{'s' * (n_points != 1)}: pass one number for each."
        )
    weights = weights.double()
    bad = ~(weights >= 0) | weights.isinf()
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"sample_weight is {float(weights[row])} in row {row}, but weights must be finite and not negative."
        )
    if bool(weights.sum().isinf()):
        raise ValueError("sample_weight sums to more than float64 holds: divide it by some number.")
    return weights
