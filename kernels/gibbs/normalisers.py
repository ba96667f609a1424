"""Factors of densities and of the joint that depend on counts and on alpha alone."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

_CPU = torch.device("cpu")


class LogNormalisers(NamedTuple):
    """Constants of a cluster of n = 0, ..., N points.

    Attributes
    ----------
    predictive : Tensor
        float64 [N + 1], of the predictive density times the count n; for n = 0 of the predictive density alone.
    marginal : Tensor
        float64 [N + 1], of the marginal likelihood times Gamma(n), the cluster's factor in p(labels | alpha).
    """

    predictive: Tensor
    marginal: Tensor


@functools.lru_cache(maxsize=16)
def log_normalisers(
    n_max: int, n_features: int, kappa0: float, nu0: float, device: torch.device = _CPU
) -> LogNormalisers:
    """The terms of log predictive densities and log marginal likelihoods that depend on n alone (Murphy 2007, 8).

    Those of the last few priors are kept: a fit asks for the same at each launch.

    Parameters
    ----------
    n_max : int
        Points of the largest model, N.
    n_features : int
    kappa0, nu0 : float
        Of the prior.
    device : torch.device
        Where they are computed and stay.

    Returns
    -------
    LogNormalisers
    """
    d = n_features
    n = torch.arange(n_max + 1, dtype=torch.float64, device=device)
    kappa, nu = kappa0 + n, nu0 + n
    predictive = torch.lgamma((nu + 1) / 2) - torch.lgamma((nu - d + 1) / 2)
    predictive -= 0.5 * d * (((kappa + 1) / kappa).log() + math.log(math.pi))
    predictive[1:] += n[1:].log()
    marginal = torch.special.multigammaln(nu / 2, d) - torch.special.multigammaln(nu[0] / 2, d)
    marginal += 0.5 * d * (math.log(kappa0) - kappa.log() - n * math.log(math.pi))
    marginal[1:] += torch.lgamma(n[1:])
    return LogNormalisers(predictive, marginal)


def log_alpha_factors(alpha: Tensor, n_components: Tensor, sizes: Tensor, alpha_prior: tuple[float, float]) -> Tensor:
    """Factors of alpha in p(labels | alpha) p(alpha) (Antoniak 1974), float64 [M, C, W].

    Parameters
    ----------
    alpha, n_components : Tensor
        [M, C, W], after every sweep.
    sizes : Tensor
        int64 [M], points of each model.
    alpha_prior : (float, float)
        Shape and rate of the gamma prior; a shape of zero leaves p(alpha) out.
    """
    log_alpha = alpha.log()
    log_factors = n_components * log_alpha + torch.lgamma(alpha) - torch.lgamma(alpha + sizes[:, None, None])
    shape, rate = alpha_prior
    if shape > 0:
        log_factors += shape * math.log(rate) - math.lgamma(shape) + (shape - 1) * log_alpha - rate * alpha
    return log_factors
