"""Stepwise EM: mixtures of a stream of points, which are never held together.

What a stream has told is kept as averages per point, of responsibilities and of the moments that they weigh. A batch
moves the averages by a step ``gamma`` towards its own, ``s <- (1 - gamma) s + gamma s_batch``, and the parameters are
those of an M step on them (Cappe & Moulines, On-line expectation-maximization algorithm for latent data models, JRSS B
71, 2009; Liang & Klein, Online EM for unsupervised models, NAACL 2009). Second moments are kept about the means, in
float64, and join by the parallel-variance formula, so that no sum of squares cancels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.inference.em import EMProblem, EMState
from fastdens.inference.point_blocks import WeightedSums, add_weighted

# Where ``nk`` are averages per point, so are ``scatter`` and, the mean log-likelihood, ``total``.
Averages = WeightedSums


class Schedule(NamedTuple):
    """How steps shrink: by a power, over 0.5 and at most 1, of the points seen, counted in units of so many points."""

    unit: float
    power: float

    def step_sizes(self, seen: Tensor, added: Tensor) -> Tensor:
        """The step of a batch with ``added`` points of models that have seen ``seen`` points before, float64 [A].

        ``gamma = (b / u) (u / (n + b)) ** power`` with ``u = max(b, unit)``, and never more than all points: a batch of
        fewer points than the unit takes its share of the step of a whole one, so that the way in which a stream is cut
        matters little. It lies between ``b / (n + b)``, at which all points count alike, and 1.
        """
        after = seen + added
        unit = torch.minimum(added.clamp_min(self.unit), after)
        return added / unit * (unit / after) ** self.power


def averages_of_parameters(
    state: EMState, covariances: Tensor, lower_bound: Tensor, *, covariance_type: str, reg_covar: float
) -> Averages:
    """The averages of which parameters are the M step; ``lower_bound`` is their mean log-likelihood, float64 [A]."""
    weights, covariances = state.weights.double(), covariances.to(torch.float64, copy=True)
    if covariance_type in ("full", "tied"):
        covariances.diagonal(dim1=-2, dim2=-1).sub_(reg_covar)
    else:
        covariances -= reg_covar
    if covariance_type == "spherical":
        covariances *= state.means.shape[-1]
    if covariance_type != "tied":
        covariances *= weights.reshape(*weights.shape, *[1] * (covariances.ndim - 2))
    # A fit of no iterations has no bound.
    return Averages(weights, state.means.double(), covariances, lower_bound.nan_to_num(neginf=0.0))


def averages_of_batch(problem: EMProblem, origin: Tensor, state: EMState) -> Averages:
    """The averages over the points of a batch, under responsibilities of a state.

    Parameters
    ----------
    problem : EMProblem
        Its points are differences from an origin of each model, which has one point at least.
    origin : Tensor
        [A, D].
    state : EMState
        Its means are differences from the origin.
    """
    none = torch.full((len(origin),), -torch.inf, dtype=torch.float64, device=origin.device)
    # Without reg_covar, the parameters of an EM iteration are the averages of its sums, and a batch of few points has
    # covariances without a factor.
    new = kernels.em_steps(
        problem.points,
        problem.layout,
        *state,
        none,
        n_steps=1,
        tol=0.0,
        reg_covar=0.0,
        sample_weight=problem.sample_weight,
        **problem.kernel_options,
    )
    parameters = EMState(new.weights, new.means.double() + origin[:, None], new.precisions_cholesky)
    kind = problem.covariance_type
    return averages_of_parameters(parameters, new.covariances, new.lower_bound, covariance_type=kind, reg_covar=0.0)


def step(averages: Averages, of_batch: Averages, step_size: Tensor, covariance_type: str) -> Averages:
    """``(1 - gamma) s + gamma s_batch`` for steps float64 [A]."""
    return add_weighted(_scaled(averages, 1 - step_size), _scaled(of_batch, step_size), covariance_type)


def maximization(
    averages: Averages, n_points: Tensor, dtype: torch.dtype, *, covariance_type: str, reg_covar: float, backend: str
) -> kernels.GaussianParameters:
    """The M step (Bishop 2006, eqs. 9.24 to 9.27); ``n_points`` float64 [A] stand behind the averages."""
    # As for EM, counts have 10 eps more, against division by zero.
    nk = averages.nk + 10 * torch.finfo(dtype).eps / n_points[:, None]
    # The scatter of the sums is overwritten.
    scatter = averages.scatter.to(dtype, copy=True)
    sums = kernels.SufficientStatistics(nk.to(dtype), averages.means.to(dtype), scatter)
    n_features = averages.means.shape[-1]
    return kernels.gaussian_parameters(
        sums, n_features, reg_covar=reg_covar, covariance_type=covariance_type, backend=backend
    )


def _scaled(averages: Averages, factor: Tensor) -> Averages:
    """Averages of models that weigh more or less, by factors [A]."""

    def scaled(values: Tensor) -> Tensor:
        return values * factor.reshape(-1, *[1] * (values.ndim - 1))

    return Averages(scaled(averages.nk), averages.means, scaled(averages.scatter), scaled(averages.total))
