"""The M step of mixtures of factor analysers: means, loadings and noise variances from sums, in time linear in D.

With the weighted covariance S of the points of a component, in units of its noise, and an orthonormal basis V of the
span of its loadings, the image S V is all that is known of S beside its diagonal. Along the eigenvectors of V' S V,
whose eigenvalues are the Ritz values lambda, the best loadings within the span have the strengths ``e = lambda - 1``;
from those, EM's next loadings are ``S V sqrt(e) / lambda`` and the next noise is ``diag(S) - diag(L L')``. Both halves
raise the likelihood, the first as much as loadings within that span can (Lawley & Maxwell, Factor Analysis as a
Statistical Method, 1971, chapter 4; Rubin & Thayer, EM algorithms for ML factor analysis, Psychometrika 47, 1982).
Without the first half, EM closes in on strong factors slowly: its rate tends to one as lambda grows.
"""

from __future__ import annotations

from typing import NamedTuple

from fastdens.kernels import factor_batches, reference
from fastdens.kernels.arguments import checked
from fastdens.kernels.factor_analysers import FactorStatistics
from fastdens.kernels.operation import Backends
from torch import Tensor


class FactorParameters(NamedTuple):
    """Parameters of M mixtures of factor analysers, float64.

    Attributes
    ----------
    means : Tensor
        [M, K, D].
    loadings : Tensor
        [M, K, D, Q].
    noise_variances : Tensor
        [M, K, D].
    """

    means: Tensor
    loadings: Tensor
    noise_variances: Tensor


_UPDATE = Backends(
    triton=factor_batches.factor_update,
    cpu="factor_m_step:factor_update",
    reference=reference.factor_update,
    in_dtype_of_points=False,
)
_WHITENED = Backends(
    triton=factor_batches.whitened_loadings,
    cpu="factor_m_step:whitened",
    reference=reference.whitened_loadings,
    in_dtype_of_points=False,
)


@checked
def factor_update(
    sums: FactorStatistics,
    means: Tensor,
    loadings: Tensor,
    noise_variances: Tensor,
    *,
    min_noise_variance: float,
    backend: str = "auto",
) -> FactorParameters:
    """The next parameters of M mixtures, under which the likelihood is no lower.

    Parameters
    ----------
    sums : FactorStatistics
        Of the present parameters.
    means, loadings, noise_variances : Tensor
        The present parameters, float64 [M, K, D], [M, K, D, Q] and [M, K, D]. A component without points keeps them.
    min_noise_variance : float
        The least noise variance.
    backend : {"auto", "triton", "cpu", "reference"}
        "triton" and "reference" are torch operations, on the device of the sums: over many components at a time, and
        one by one.

    Returns
    -------
    FactorParameters
        float64, as those that were given.

    Raises
    ------
    ValueError
        If the sums and the parameters differ in their numbers of models, components, features or factors.
    """
    of_loadings = tuple(loadings.mT.shape)
    if not of_loadings == sums.cross.shape == sums.directions.shape:
        raise ValueError(
            f"sums.cross is {tuple(sums.cross.shape)} and sums.directions is {tuple(sums.directions.shape)}, but "
            f"loadings {tuple(loadings.shape)} need {of_loadings}: form the sums under the parameters to be updated."
        )
    of_points = sums.nk, sums.moment, sums.squares, sums.cross, sums.directions
    parameters = means, loadings, noise_variances
    return FactorParameters(*_UPDATE.run(backend, *of_points, *parameters, min_noise_variance))


@checked
def canonical_loadings(loadings: Tensor, noise_variances: Tensor, *, backend: str = "auto") -> Tensor:
    """The loadings [M, K, D, Q] of the same ``L L'`` for which ``L' Psi^-1 L`` is diagonal, descending.

    The largest element of each column, in units of the noise, is positive (Lawley & Maxwell 1971, section 2.3).

    Parameters
    ----------
    loadings, noise_variances : Tensor
        float64 [M, K, D, Q] and [M, K, D].
    backend : {"auto", "triton", "cpu", "reference"}
        "triton" and "reference" are torch operations, on the device of the loadings.

    Returns
    -------
    Tensor
        float64 [M, K, D, Q].
    """
    scale, directions, strengths = _WHITENED.run(backend, loadings, noise_variances)
    canonical: Tensor = directions.mT * strengths.sqrt()[..., None, :] / scale[..., None]
    return canonical.contiguous()
