"""What libraries should agree on, computed for all of them by one code in float64, which shares nothing with theirs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from fastdens.bench.cases import Parameters
from fastdens.bench.parameters import full_covariances, precisions_cholesky

_BLOCK_ELEMENTS = 1 << 23


def mean_log_likelihood(points: Tensor, parameters: Parameters) -> Tensor:
    """Mean over the points of each model of ``log sum_k w_k N(x; m_k, S_k)``, float64 [M].

    Parameters
    ----------
    points : Tensor
        [M, N, D].
    parameters : Parameters
        Of the M mixtures, in any dtype and with any type of covariance.
    """
    m, n, d = points.shape
    means = torch.empty(m, device=points.device, dtype=torch.float64)
    for models in groups(m, max(n, parameters.means.shape[1] * d) * d):
        means[models] = log_density(points[models], Parameters(*(part[models] for part in parameters))).mean(1)
    return means


def log_density(points: Tensor, parameters: Parameters) -> Tensor:
    """``log sum_k w_k N(x; m_k, S_k)`` of points [M, Q, D] under the mixture of their model, float64 [M, Q]."""
    m, q, d = points.shape
    points, means = points.double(), parameters.means.double()
    factors = precisions_cholesky(full_covariances(parameters).double())
    joint = torch.empty(m, q, means.shape[1], device=points.device, dtype=torch.float64)
    for k in range(means.shape[1]):
        whitened = (points - means[:, k, None]) @ factors[:, k]
        log_determinant = factors[:, k].diagonal(dim1=1, dim2=2).log().sum(1, keepdim=True)
        joint[:, :, k] = log_determinant - whitened.square().sum(2) / 2 - d / 2 * math.log(2 * math.pi)
    return torch.logsumexp(joint + parameters.weights.double().log()[:, None], 2)


def inertia(points: Tensor, centres: Tensor) -> Tensor:
    """Sum over the points [M, N, D] of a model of the squared distance to its nearest centre [M, K, D], float64 [M]."""
    m, n, _ = points.shape
    sums = torch.empty(m, device=points.device, dtype=torch.float64)
    for models in groups(m, n * max(centres.shape[1:])):
        distances = torch.cdist(
            points[models].double(), centres[models].double(), compute_mode="donot_use_mm_for_euclid_dist"
        )
        sums[models] = distances.amin(2).square().sum(1)
    return sums


def stacked(fits: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Parameters:
    """The parameters of all models from those of each: weights [K], means [K, D], covariances of one type."""
    weights, means, covariances = zip(*fits, strict=True)
    return Parameters(torch.stack(weights), torch.stack(means), torch.stack(covariances))


def groups(n_models: int, elements_a_model: int, elements: int = _BLOCK_ELEMENTS) -> list[slice]:
    """The models, as many at a time as hold that many elements together, and one at least."""
    size = max(1, elements // max(1, elements_a_model))
    return [slice(first, first + size) for first in range(0, n_models, size)]
