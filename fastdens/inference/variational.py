"""Truncated stick-breaking variational inference for a batch of Dirichlet-process Gaussian mixtures.

The posterior of M models is approximated by ``q(z) q(v) q(mu, Sigma) q(alpha)`` (Blei & Jordan, Variational inference
for Dirichlet process mixtures, Bayesian Analysis 1, 2006): a Beta for each of T sticks, a normal-inverse-Wishart for
each of T components, a Gamma for the concentration. The updates of components are those of Bishop, *Pattern
Recognition and Machine Learning*, 2006, section 10.2; conventions are scikit-learn's ``BayesianGaussianMixture``, whose
last stick is a Beta as the others are, so that the sticks leave a little mass to the components past T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.distributions.niw import NormalInverseWishart, posterior
from fastdens.inference.coordinate_ascent import Ascent, coordinate_ascent
from fastdens.kernels.layout import Layout
from fastdens.kernels.m_step import weighted


class VariationalState(NamedTuple):
    """The variational posterior of A models, as far as an E step reads it.

    Attributes
    ----------
    stick_a, stick_b : Tensor
        Of the sticks ``v_k ~ Beta(a_k, b_k)``, float64 [A, T].
    mean_precision, degrees_of_freedom : Tensor
        kappa and nu of the components, float64 [A, T].
    means : Tensor
        [A, T, D], in the dtype of the points, as are the factors.
    precisions_cholesky : Tensor
        [A, T, D, D], upper-triangular U with ``covariance^-1 = U U'``; the covariance is the posterior scale over nu.
    alpha : Tensor
        Mean of the concentration, float64 [A].
    bad : Tensor
        bool [A]: a covariance of the model is not positive definite or not finite.
    """

    stick_a: Tensor
    stick_b: Tensor
    mean_precision: Tensor
    degrees_of_freedom: Tensor
    means: Tensor
    precisions_cholesky: Tensor
    alpha: Tensor
    bad: Tensor

    @property
    def weights(self) -> Tensor:
        """Expected weights of the T components, divided by their sum as scikit-learn does, float64 [A, T]."""
        weights = log_expected_sticks(self.stick_a, self.stick_b)[:, :-1].exp()
        return weights / weights.sum(1, keepdim=True)


class VariationalInfo(NamedTuple):
    """About a step of A models.

    The evidence lower bound up to a constant of model and prior, float64 [A]; the covariances of the new state,
    [A, T, D, D]; and its ``bad``.
    """

    lower_bound: Tensor
    covariances: Tensor
    bad: Tensor


class VariationalSums(NamedTuple):
    """Input of an M step: sufficient statistics under q(z) and its entropy, float64 [A]; alpha and bad of before."""

    statistics: kernels.SufficientStatistics
    entropy: Tensor
    alpha: Tensor
    bad: Tensor


@dataclass(frozen=True)
class VariationalProblem:
    """Points, prior and options of A models.

    :meth:`select` narrows it to the models that still iterate.

    Attributes
    ----------
    points : Tensor
        [N, D], float32 or float64, sorted by model; in float32 near the origin for their spread, as accuracy asks.
    layout : Layout
    prior : NormalInverseWishart
    alpha : float or None
        Concentration, fixed; None infers it.
    alpha_prior : tuple of float
        Shape and rate of its Gamma prior, where ``alpha`` is None.
    backend : {"auto", "triton", "cpu", "reference"}
    matmul_precision : {"tf32x3", "ieee", "tf32"}
    sample_weight : Tensor, optional
        [N], in the dtype of the points: how often each counts.
    """

    points: Tensor
    layout: Layout
    prior: NormalInverseWishart
    alpha: float | None = None
    alpha_prior: tuple[float, float] = (1.0, 1.0)
    backend: str = "auto"
    matmul_precision: str = "tf32x3"
    sample_weight: Tensor | None = None

    def select(self, models: Tensor) -> VariationalProblem:
        """The problem of some of the models, by index or mask."""
        return replace(self, layout=self.layout.select(models), prior=self.prior.select(models))

    @property
    def kernel_options(self) -> dict[str, Any]:
        """The options of kernel calls."""
        return {"backend": self.backend, "matmul_precision": self.matmul_precision}


def init(problem: VariationalProblem, resp: Tensor) -> tuple[VariationalState, VariationalInfo]:
    """The state that fits responsibilities [N, T], in the dtype of the points; T is the truncation."""
    return first_state(problem, statistics(problem, resp))


def statistics(problem: VariationalProblem, resp: Tensor) -> kernels.SufficientStatistics:
    """Sums over the points with responsibilities [N, T], formed about the means of the prior."""
    centres = problem.prior.mean[:, None].expand(-1, resp.shape[1], -1).to(problem.points.dtype)
    return _statistics(problem, resp, centres)


def _statistics(problem: VariationalProblem, resp: Tensor, centres: Tensor) -> kernels.SufficientStatistics:
    counted = weighted(resp, problem.sample_weight)
    return kernels.sufficient_statistics(problem.points, problem.layout, counted, centres, **problem.kernel_options)


def first_state(
    problem: VariationalProblem, sums: kernels.SufficientStatistics
) -> tuple[VariationalState, VariationalInfo]:
    """The state that fits the sums of a start, whose scatter is overwritten."""
    unknown = torch.full((len(sums.nk),), -torch.inf, dtype=torch.float64, device=sums.nk.device)
    shape, rate = problem.alpha_prior
    alpha = torch.full_like(unknown, shape / rate if problem.alpha is None else problem.alpha)
    bad = torch.zeros_like(alpha, dtype=torch.bool)
    state, info = maximization(problem, VariationalSums(sums, unknown, alpha, bad))
    return state, info._replace(lower_bound=unknown)


def nearest_centres(points: Tensor, layout: Layout, centres: Tensor, counts: Tensor, backend: str) -> Tensor:
    """The nearest of each model's centres [A, K, D], the first ``counts`` [A] of which are there, int64 [N]."""
    is_there = torch.arange(centres.shape[1], device=points.device) < counts[:, None]
    weights = (is_there / counts[:, None]).to(points.dtype)
    nearest = kernels.responsibilities(
        points, layout, weights, centres, torch.ones_like(weights), covariance_type="spherical", backend=backend
    )
    return nearest.resp.argmax(1)


def expectation(problem: VariationalProblem, state: VariationalState) -> VariationalSums:
    """E step: q(z), and sums over the points under it (Bishop 2006, eqs. 10.49, 10.51 to 10.53)."""
    resp = responsibilities(problem, state)
    # The limit of r log r at zero is zero. Unlike that of torch.special.entr, this logarithm runs in vectors.
    of_points = -resp.clamp_min(torch.finfo(resp.dtype).tiny).log_().mul_(resp).sum(1, dtype=torch.float64)
    entropy = problem.layout.sum(weighted(of_points, problem.sample_weight))
    return VariationalSums(_statistics(problem, resp, state.means), entropy, state.alpha, state.bad)


def responsibilities(problem: VariationalProblem, state: VariationalState) -> Tensor:
    """Those of q(z), [N, T]."""
    return kernels.responsibilities(
        problem.points,
        problem.layout,
        expected_log_weights(state),
        state.means,
        state.precisions_cholesky,
        log_weights=True,
        **problem.kernel_options,
    ).resp


def maximization(problem: VariationalProblem, sums: VariationalSums) -> tuple[VariationalState, VariationalInfo]:
    """M step: sticks, components and alpha from sums, whose scatter is overwritten.

    Bishop 2006, eqs. 10.60 to 10.63; Blei & Jordan 2006, section 3.
    """
    nk = sums.statistics.nk.double()
    components = posterior(problem.prior, *sums.statistics)
    covariances = components.scale
    covariances /= components.nu[..., None, None]
    factors, bad = kernels.precision_cholesky(covariances, backend=problem.backend)
    state = VariationalState(
        1 + nk,
        sums.alpha[:, None] + _sum_after(nk),
        components.kappa,
        components.nu,
        components.mean.to(covariances.dtype),
        factors,
        sums.alpha,
        # A bad start has unspecified factors: what came of them is bad whatever it looks like.
        bad.logical_or_(sums.bad),
    )
    bound = _lower_bound(state, sums.entropy)
    if problem.alpha is None:
        state, of_alpha = _update_alpha(state, *problem.alpha_prior)
        bound = bound + of_alpha
    return state, VariationalInfo(bound, covariances, state.bad)


def variational_inference(
    problem: VariationalProblem, resp: Tensor, *, tol: float = 1e-3, max_iter: int = 100
) -> Ascent[VariationalState, VariationalInfo]:
    """Coordinate ascent on the evidence lower bound of each model, until it changes by less than ``tol``.

    Parameters
    ----------
    problem : VariationalProblem
        Of M models.
    resp : Tensor
        [N, T], responsibilities to start from, in the dtype of the points; T is the truncation.
    tol : float
        Of the lower bound of a model, a sum over its points.
    max_iter : int
        0 fits the posterior to ``resp``.

    Returns
    -------
    Ascent
        State and info of each model, the means in the coordinates of the points.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.
    """
    return coordinate_ascent(
        problem, lambda problem: init(problem, resp), expectation, maximization, tol=tol, max_iter=max_iter
    )


def expected_log_weights(state: VariationalState) -> Tensor:
    """Log-weights of Gaussians whose responsibilities are those of ``q(z)``.

    ``E[log pi_k] + (E[log |Lambda_k|] - log |Lambda_k| - D / kappa_k) / 2``, with Lambda the inverse of the state's
    covariance (Bishop 2006, eqs. 10.46, 10.64, 10.65; Blei & Jordan 2006, section 3). Large and negative where a
    component holds no point: give them to :func:`fastdens.kernels.responsibilities` with ``log_weights=True``.

    Parameters
    ----------
    state : VariationalState

    Returns
    -------
    Tensor
        [A, T], in the dtype of the means.
    """
    a, b, nu = state.stick_a, state.stick_b, state.degrees_of_freedom
    n_features = state.means.shape[-1]
    psi_sum = torch.digamma(a + b)
    log_pi = torch.digamma(a) - psi_sum + _sum_before(torch.digamma(b) - psi_sum)[:, :-1]
    log_det = torch.digamma(_gamma_arguments(nu, n_features)).sum(-1) - n_features * (0.5 * nu).log()
    return (log_pi + 0.5 * (log_det - n_features / state.mean_precision)).to(state.means.dtype)


def _sum_before(values: Tensor) -> Tensor:
    """Sum of the columns before each column and, last, of all of them: [A, T] to [A, T + 1].

    A loop over T: torch.cumsum on a GPU chooses its order of summation by the number of rows.
    """
    out = values.new_zeros(values.shape[0], values.shape[1] + 1)
    for k in range(values.shape[1]):
        out[:, k + 1] = out[:, k] + values[:, k]
    return out


def _sum_after(values: Tensor) -> Tensor:
    """Sum of the columns after each column, [A, T]."""
    return _sum_before(values.flip(1))[:, :-1].flip(1)


def log_expected_sticks(a: Tensor, b: Tensor) -> Tensor:
    """``log E[v_k] + sum_{j<k} log E[1 - v_j]`` and, last, the mass that all T sticks leave; [A, T + 1]."""
    log_sum = (a + b).log()
    left = _sum_before(b.log() - log_sum)
    left[:, :-1] += a.log() - log_sum
    return left


def _gamma_arguments(degrees_of_freedom: Tensor, n_features: int) -> Tensor:
    """``(nu - i) / 2`` for i = 0 ... D - 1: where the normaliser and log-determinant of a Wishart take Gamma, psi."""
    steps = torch.arange(n_features, dtype=torch.float64, device=degrees_of_freedom.device)
    return 0.5 * (degrees_of_freedom[..., None] - steps)


def _update_alpha(state: VariationalState, shape: float, rate: float) -> tuple[VariationalState, Tensor]:
    """The state with the optimal q(alpha), and its part of the lower bound.

    ``q(alpha) = Gamma(shape + T, rate - sum_k E[log(1 - v_k)])`` (Blei & Jordan 2006; they have T - 1 random sticks).
    """
    a, b = state.stick_a, state.stick_b
    sum_log_left = (torch.digamma(b) - torch.digamma(a + b)).sum(1)
    posterior_shape, posterior_rate = shape + a.shape[1], rate - sum_log_left
    # The sticks were fitted to the previous mean of alpha: all else that alpha and they share cancels.
    bound = (
        -state.alpha * sum_log_left
        + (shape * math.log(rate) - math.lgamma(shape))
        - (posterior_shape * posterior_rate.log() - math.lgamma(posterior_shape))
    )
    return state._replace(alpha=posterior_shape / posterior_rate), bound


def _lower_bound(state: VariationalState, entropy: Tensor) -> Tensor:
    """Evidence lower bound of models whose sticks and components have just been fitted to the responsibilities.

    At that optimum ``E[log p] - E[log q]`` is the entropy of q(z) and the log-normalisers of q(v) and q(mu, Sigma),
    less those of the prior, which are constant and left out as in scikit-learn.
    """
    a, b, nu = state.stick_a, state.stick_b, state.degrees_of_freedom
    n_features = state.means.shape[-1]
    beta = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
    log_det = state.precisions_cholesky.diagonal(dim1=-2, dim2=-1).double().log().sum(-1)
    # |W|^1/2 of the Wishart's scale W: the covariances are W^-1 / nu.
    log_det = log_det - 0.5 * n_features * nu.log()
    wishart = nu * (log_det + 0.5 * n_features * math.log(2)) + torch.lgamma(_gamma_arguments(nu, n_features)).sum(-1)
    return entropy + (beta + wishart - 0.5 * n_features * state.mean_precision.log()).sum(1)
