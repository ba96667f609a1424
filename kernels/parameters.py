"""Parameters of Gaussian mixtures, and those that follow from the sums of an M step."""

from __future__ import annotations

from typing import NamedTuple

from fastdens.kernels.cholesky import precision_cholesky
from fastdens.kernels.m_step import SufficientStatistics
from torch import Tensor


class GaussianParameters(NamedTuple):
    """Parameters of M mixtures of K Gaussians, in the shapes of :class:`fastdens.GaussianMixtures`.

    Attributes
    ----------
    weights, means : Tensor
        [M, K] and [M, K, D].
    covariances, precisions_cholesky : Tensor
        full [M, K, D, D], tied [M, D, D], diag [M, K, D], spherical [M, K]; ``precision = U U'``.
    bad : Tensor
        bool [M], True for a model with a covariance that has no Cholesky factor.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    precisions_cholesky: Tensor
    bad: Tensor


def gaussian_parameters(
    sums: SufficientStatistics, n_features: int, *, reg_covar: float, covariance_type: str = "full", backend: str
) -> GaussianParameters:
    """Parameters from the sums of the M step (Bishop 2006, eqs. 9.24 to 9.27).

    Parameters
    ----------
    sums : SufficientStatistics
        Of all components; their ``scatter`` is overwritten.
    n_features : int
        D.
    reg_covar : float
        Added to the variances.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Shape of the covariances.
    backend : {"triton", "cpu", "reference"}
        What inverts the covariances.

    Returns
    -------
    GaussianParameters
        ``bad`` marks models that lost a positive definite covariance.
    """
    nk, scatter = sums.nk, sums.scatter
    if covariance_type == "full":
        scatter /= nk[..., None, None]
    elif covariance_type == "tied":
        scatter /= nk.sum(1)[:, None, None]
    elif covariance_type == "diag":
        scatter /= nk[..., None]
    else:
        scatter /= nk * n_features
    if covariance_type in ("full", "tied"):
        scatter.diagonal(dim1=-2, dim2=-1).add_(reg_covar)
    else:
        scatter += reg_covar
    factors, bad = precision_cholesky(scatter, covariance_type=covariance_type, backend=backend)
    return GaussianParameters(nk / nk.sum(1, keepdim=True), sums.means, scatter, factors, bad)
