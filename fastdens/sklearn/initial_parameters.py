"""Initial parameters of one Gaussian mixture, checked in the words of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array

from fastdens.sklearn.conversion import DTYPES

# By how much weights may miss a sum of 1, and a matrix its transpose.
_TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-8}


def check_weights(weights: ArrayLike, n_components: int) -> NDArray[Any]:
    """Weights [K] that are not negative and sum to 1.

    Raises
    ------
    TypeError, ValueError
        If they are something else.
    """
    array = _array(weights, "weights", (n_components,))
    if (array < 0).any() or (array > 1).any():
        raise ValueError(
            "The parameter 'weights' should be in the range [0, 1], but got max value "
            f"{array.max():.5f}, min value {array.min():.5f}"
        )
    if abs(1 - array.sum()) > _TOLERANCE[array.dtype]:
        raise ValueError(f"The parameter 'weights' should be normalized, but got sum(weights) = {array.sum():.5f}")
    return array


def check_means(means: ArrayLike, n_components: int, n_features: int) -> NDArray[Any]:
    """Means [K, D]; errors as of :func:`check_weights`."""
    return _array(means, "means", (n_components, n_features))


def check_precisions(precisions: ArrayLike, covariance_type: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Precisions of the shape of the covariances, positive (definite); errors as of :func:`check_weights`."""
    array = _array(precisions, f"{covariance_type} precision", shape)
    if covariance_type in ("diag", "spherical"):
        demand, fulfilled = "positive", bool((array > 0).all())
    else:
        demand = "symmetric, positive-definite"
        symmetric = np.allclose(array, np.swapaxes(array, -1, -2), rtol=1e-5, atol=_TOLERANCE[array.dtype])
        fulfilled = symmetric and bool((np.linalg.eigvalsh(array) > 0).all())
    if not fulfilled:
        raise ValueError(f"'{covariance_type} precision' should be {demand}")
    return array


def _array(value: ArrayLike, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    array: NDArray[Any] = check_array(value, dtype=DTYPES, ensure_2d=False, allow_nd=True)
    if array.shape != shape:
        raise ValueError(f"The parameter '{name}' should have the shape of {shape}, but got {array.shape}")
    return array
