"""What the CPU twins share on the Python side: parameters brought to the two forms that the tiles know."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def factors_and_log_norm(
    means: Tensor, precisions_cholesky: Tensor, covariance_type: str
) -> tuple[NDArray[Any], NDArray[np.float64], int]:
    """Flat factors of U, the log normaliser of each Gaussian, and the number of factors a model has.

    ``means`` is [M, K, D]. Factors are triangular [M * F, D, D] (full: F = K, tied: F = 1) or diagonal [M * K, D]
    (diag, and spherical repeated over D); the normaliser ``log det U - D/2 log 2 pi`` is float64 [M, K].
    """
    n_models, n_components, n_features = means.shape
    if covariance_type in ("full", "tied"):
        per_model = n_components if covariance_type == "full" else 1
        factors = precisions_cholesky.reshape(n_models * per_model, n_features, n_features)
        diagonal = factors.diagonal(dim1=-2, dim2=-1)
    else:
        per_model = n_components
        expanded = precisions_cholesky if covariance_type == "diag" else precisions_cholesky[..., None]
        factors = expanded.expand(n_models, n_components, n_features).reshape(-1, n_features)
        diagonal = factors
    log_det = diagonal.double().log().sum(-1).reshape(n_models, per_model).expand(n_models, n_components)
    log_norm = log_det - 0.5 * n_features * math.log(2 * math.pi)
    return factors.detach().contiguous().numpy(), log_norm.detach().contiguous().numpy(), per_model
