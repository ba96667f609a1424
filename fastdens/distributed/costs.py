"""What the fit of a model costs, and which rank fits which models."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.dirichlet_process import DirichletProcessMixtures
from fastdens.mixtures.factor_analysers import FactorAnalyserMixtures
from fastdens.mixtures.gaussian import GaussianMixtures
from fastdens.mixtures.variational import VariationalDirichletProcessMixtures

# Models are fitted side by side, but in so many parts a rank that no rank waits long for the last one, and that little
# is lost with a rank. A GPU needs many models at a time.
_PARTS_OF_CPU, _PARTS_OF_GPU = 8, 2
# Operations of a part, some seconds: EM of a part is one call, which ends before a rank can stop.
_MOST_ON_CPU, _MOST_ON_GPU = 1e11, 1e13


def operations(estimator: BaseMixtures, sizes: Tensor, n_features: int) -> Tensor:
    """Multiplications of the fit of each model, as far as they can be known before it.

    An iteration of EM forms two products of N K D^2 with full covariances, of N K D with others, and factorises K
    matrices; variational inference likewise, with the truncation for K; factor analysers form four products of
    N K D Q. A sweep of Gibbs sampling weighs each point under each cluster, N K D^2, where K is taken to be
    ``init_components``. All are counted as if no model converged early.

    Parameters
    ----------
    estimator : GaussianMixtures, FactorAnalyserMixtures or a Dirichlet-process mixture
    sizes : Tensor
        int64 [M], points of each model.
    n_features : int
        D.

    Returns
    -------
    Tensor
        float64 [M].
    """
    n, d = sizes.double(), float(n_features)
    if isinstance(estimator, GaussianMixtures):
        matrices = estimator.covariance_type in ("full", "tied")
        products = 2 * n * estimator.n_components * (d * d if matrices else d)
        factors = estimator.n_components * d**3 / 3 if estimator.covariance_type == "full" else d**3 / 3 * matrices
        return estimator.n_init * max(estimator.max_iter, 1) * (products + factors)
    if isinstance(estimator, VariationalDirichletProcessMixtures):
        return estimator.max_iter * estimator.truncation * (2 * n * d * d + d**3 / 3)
    if isinstance(estimator, FactorAnalyserMixtures):
        q = estimator.n_factors
        return estimator.n_init * max(estimator.max_iter, 1) * estimator.n_components * (4 * n * d * q + d * q * q)
    assert isinstance(estimator, DirichletProcessMixtures)
    return estimator.n_chains * estimator.n_sweeps * n * estimator.init_components * d * d


def cut(costs: Tensor, n_ranks: int, device: torch.device) -> list[list[int]]:
    """Models, by their place among the costs, in consecutive parts of about the same cost.

    Parameters
    ----------
    costs : Tensor
        float64 [A], positive.
    n_ranks : int
        There are several parts for each rank, where there are as many models, and more if they would take long.
    device : torch.device
        Of the fits.
    """
    of_rank, most = (_PARTS_OF_GPU, _MOST_ON_GPU) if device.type == "cuda" else (_PARTS_OF_CPU, _MOST_ON_CPU)
    n_parts = max(n_ranks * of_rank, math.ceil(float(costs.sum()) / most))
    middle = costs.cumsum(0) - costs / 2
    part = (middle / costs.sum() * n_parts).long().tolist()
    parts: dict[int, list[int]] = {}
    for at, number in enumerate(part):
        parts.setdefault(number, []).append(at)
    return list(parts.values())


def assign(costs: Sequence[float], n_ranks: int) -> list[list[int]]:
    """Parts of each rank, by their place among the costs: the longest first, each to the rank with the least so far.

    References
    ----------
    Graham, Bounds on multiprocessing timing anomalies, SIAM Journal on Applied Mathematics 17, 1969.
    """
    ranks: list[list[int]] = [[] for _ in range(n_ranks)]
    loads = [(0.0, rank) for rank in range(n_ranks)]
    for part in sorted(range(len(costs)), key=lambda part: -costs[part]):
        load, rank = heapq.heappop(loads)
        ranks[rank].append(part)
        heapq.heappush(loads, (load + costs[part], rank))
    return ranks
