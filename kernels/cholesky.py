"""Cholesky factors of precisions from covariances, for any number of small matrices at once.

With ``covariance = R' R`` (R upper triangular), ``U = R^-1`` is upper triangular and ``precision = U U'``; this is the
factor that scikit-learn calls ``precisions_cholesky_`` (Golub & Van Loan, *Matrix Computations*, section 4.2). The
factorisation runs in float64 whatever the dtype of the covariances: it is cheap beside the sums of the E and M step,
and a covariance that is singular to float32 often is not to float64.
"""

from __future__ import annotations

from fastdens.kernels import reference
from fastdens.kernels.operation import Backends
from torch import Tensor

# On a GPU torch's batched factorisation is the fast one: "triton" runs the reference, on the device of the covariances.
_BACKENDS = Backends(
    triton=reference.precision_cholesky, cpu="cholesky:precision_cholesky", reference=reference.precision_cholesky
)


def precision_cholesky(
    covariances: Tensor, *, covariance_type: str = "full", backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Factor the covariances of M models.

    Parameters
    ----------
    covariances : Tensor
        full [M, K, D, D], tied [M, D, D], diag [M, K, D] or spherical [M, K]; float32 or float64.
    covariance_type : {"full", "tied", "diag", "spherical"}
    backend : {"auto", "triton", "cpu", "reference"}
        "triton" and "reference" are torch's batched factorisation, on the device of the covariances.

    Returns
    -------
    precisions_cholesky : Tensor
        Same shape and dtype; NaN or unspecified for a matrix that has no factor.
    bad : Tensor
        Bool [M], True where a covariance of the model is not positive definite or not finite.
    """
    factors, bad = _BACKENDS.run(backend, covariances, covariance_type=covariance_type)
    return factors, bad
