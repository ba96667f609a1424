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
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.distributions.niw import NormalInverseWishart
from fastdens.kernels.layout import sum_per_model

Ranges = Tensor


@dataclass(frozen=True)
class VariationalPosterior:
    """The variational posterior of A models.

    Attributes
    ----------
    weight_concentration : tuple of Tensor
        a and b of the sticks ``v_k ~ Beta(a_k, b_k)``, float64 [A, T] each.
    mean_precision, degrees_of_freedom : Tensor
        kappa and nu of the components, float64 [A, T].
    means : Tensor
        [A, T, D], in the dtype of the points, as are the matrices below.
    covariances, precisions_cholesky : Tensor
        [A, T, D, D], the posterior scale divided by nu, and upper-triangular U with ``covariance^-1 = U U'``.
    alpha : Tensor
        Mean of the concentration, float64 [A].
    bad : Tensor
        bool [A]: a covariance of the model is not positive definite or not finite.
    """

    weight_concentration: tuple[Tensor, Tensor]
    mean_precision: Tensor
    means: Tensor
    degrees_of_freedom: Tensor
    covariances: Tensor
    precisions_cholesky: Tensor
    alpha: Tensor
    bad: Tensor

    @property
    def weights(self) -> Tensor:
        """Expected weights of the T components, divided by their sum as scikit-learn does, float64 [A, T]."""
        weights = _log_expected_sticks(*self.weight_concentration)[:, :-1].exp()
        return weights / weights.sum(1, keepdim=True)

    def select(self, keep: Tensor | slice) -> VariationalPosterior:
        """The posterior of some of the models, by index, mask or slice."""
        a, b = self.weight_concentration
        return VariationalPosterior(
            (a[keep], b[keep]),
            self.mean_precision[keep],
            self.means[keep],
            self.degrees_of_freedom[keep],
            self.covariances[keep],
            self.precisions_cholesky[keep],
            self.alpha[keep],
            self.bad[keep],
        )


@dataclass(frozen=True)
class VariationalResult(VariationalPosterior):
    """What variational inference found for M models.

    Attributes
    ----------
    lower_bound : Tensor
        float64 [M], the evidence lower bound up to a constant of model and prior; without iterations minus infinity.
    n_iter : Tensor
        int64 [M].
    converged : Tensor
        bool [M].
    """

    lower_bound: Tensor
    n_iter: Tensor
    converged: Tensor


class PredictiveComponents(NamedTuple):
    """Mixtures of T + 1 Student-t densities, one for each of M models, in the dtype of the points.

    Attributes
    ----------
    log_weights : Tensor
        [M, T + 1], of weights that sum to one.
    locations : Tensor
        [M, T + 1, D].
    scale_precisions_cholesky : Tensor
        [M, T + 1, D, D], upper-triangular U with ``scale^-1 = U U'``.
    degrees_of_freedom : Tensor
        [M, T + 1].
    """

    log_weights: Tensor
    locations: Tensor
    scale_precisions_cholesky: Tensor
    degrees_of_freedom: Tensor


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


def _log_expected_sticks(a: Tensor, b: Tensor) -> Tensor:
    """``log E[v_k] + sum_{j<k} log E[1 - v_j]`` and, last, the mass that all T sticks leave; [A, T + 1]."""
    log_sum = (a + b).log()
    left = _sum_before(b.log() - log_sum)
    left[:, :-1] += a.log() - log_sum
    return left


def _gamma_arguments(degrees_of_freedom: Tensor, n_features: int) -> Tensor:
    """``(nu - i) / 2`` for i = 0 ... D - 1: where the normaliser and log-determinant of a Wishart take Gamma, psi."""
    steps = torch.arange(n_features, dtype=torch.float64, device=degrees_of_freedom.device)
    return 0.5 * (degrees_of_freedom[..., None] - steps)


def expected_log_weights(posterior: VariationalPosterior) -> Tensor:
    """What the E step adds to each Gaussian log-density, so that responsibilities are those of ``q(z)``.

    ``E[log pi_k] + (E[log |Lambda_k|] - log |Lambda_k| - D / kappa_k) / 2``, with Lambda the inverse of the posterior's
    covariance (Bishop 2006, eqs. 10.46, 10.64, 10.65; Blei & Jordan 2006, section 3). Large and negative where a
    component holds no point: give them to :func:`fastdens.kernels.responsibilities` with ``log_weights=True``.

    Parameters
    ----------
    posterior : VariationalPosterior

    Returns
    -------
    Tensor
        [A, T], in the dtype of the means.
    """
    (a, b), nu = posterior.weight_concentration, posterior.degrees_of_freedom
    n_features = posterior.means.shape[-1]
    psi_sum = torch.digamma(a + b)
    log_pi = torch.digamma(a) - psi_sum + _sum_before(torch.digamma(b) - psi_sum)[:, :-1]
    log_det = torch.digamma(_gamma_arguments(nu, n_features)).sum(-1) - n_features * (0.5 * nu).log()
    return (log_pi + 0.5 * (log_det - n_features / posterior.mean_precision)).to(posterior.means.dtype)


def _maximize(
    sums: kernels.SufficientStatistics, prior: NormalInverseWishart, alpha: Tensor, backend: str
) -> VariationalPosterior:
    """Sticks and components from counts, means and scatter, which is overwritten (Bishop 2006, eqs. 10.60 to 10.63;
    Blei & Jordan 2006, section 3).
    """
    nk, xbar, scale = sums.nk.double(), sums.means.double(), sums.scatter
    kappa, nu = prior.kappa + nk, prior.nu + nk
    centred = xbar - prior.mean[:, None]
    pull = (centred * (prior.kappa * nk / kappa)[..., None]).to(scale.dtype)
    means = prior.mean[:, None] + centred * (nk / kappa)[..., None]
    scale.addcmul_(pull[..., :, None], centred.to(scale.dtype)[..., None, :])
    scale.diagonal(dim1=-2, dim2=-1).add_(prior.scale_diagonal[:, None])
    scale /= nu[..., None, None]
    factors, bad = kernels.precision_cholesky(scale, backend=backend)
    sticks = (1 + nk, alpha[:, None] + _sum_after(nk))
    return VariationalPosterior(sticks, kappa, means.to(scale.dtype), nu, scale, factors, alpha, bad)


def _update_alpha(posterior: VariationalPosterior, shape: float, rate: float) -> tuple[VariationalPosterior, Tensor]:
    """The posterior with ``q(alpha) = Gamma(shape + T, rate - sum_k E[log(1 - v_k)])``, the optimum, and what alpha
    adds to the lower bound (Blei & Jordan 2006; they have T - 1 random sticks).
    """
    a, b = posterior.weight_concentration
    sum_log_left = (torch.digamma(b) - torch.digamma(a + b)).sum(1)
    posterior_shape, posterior_rate = shape + a.shape[1], rate - sum_log_left
    # The sticks were fitted to the previous mean of alpha: all else that alpha and they share cancels.
    bound = (
        -posterior.alpha * sum_log_left
        + (shape * math.log(rate) - math.lgamma(shape))
        - (posterior_shape * posterior_rate.log() - math.lgamma(posterior_shape))
    )
    return replace(posterior, alpha=posterior_shape / posterior_rate), bound


def _lower_bound(posterior: VariationalPosterior, entropy: Tensor) -> Tensor:
    """Evidence lower bound of models whose sticks and components have just been fitted to the responsibilities.

    At that optimum ``E[log p] - E[log q]`` is the entropy of q(z) and the log-normalisers of q(v) and q(mu, Sigma),
    less those of the prior, which are constant and left out as in scikit-learn.
    """
    (a, b), nu = posterior.weight_concentration, posterior.degrees_of_freedom
    n_features = posterior.means.shape[-1]
    beta = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
    log_det = posterior.precisions_cholesky.diagonal(dim1=-2, dim2=-1).double().log().sum(-1)
    # |W|^1/2 of the Wishart's scale W: the covariances are W^-1 / nu.
    log_det = log_det - 0.5 * n_features * nu.log()
    wishart = nu * (log_det + 0.5 * n_features * math.log(2)) + torch.lgamma(_gamma_arguments(nu, n_features)).sum(-1)
    return entropy + (beta + wishart - 0.5 * n_features * posterior.mean_precision.log()).sum(1)


def variational_inference(
    points: Tensor,
    ranges: Ranges,
    resp: Tensor,
    prior: NormalInverseWishart,
    *,
    alpha: float | None,
    alpha_prior: tuple[float, float] = (1.0, 1.0),
    tol: float = 1e-3,
    max_iter: int = 100,
    backend: str = "auto",
    matmul_precision: str = "ieee",
) -> VariationalResult:
    """Coordinate ascent on the evidence lower bound of each model, until it changes by less than ``tol``.

    A model that has converged, or turned bad, leaves the work; the others go on.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64, sorted by model; in float32 near the origin for their spread, as accuracy asks.
    ranges : Tensor
        Rows of each model, int64 [M, 2].
    resp : Tensor
        [N, T], responsibilities to start from, in the dtype of the points; T is the truncation.
    prior : NormalInverseWishart
        Of the M models.
    alpha : float or None
        Concentration, fixed; None infers it.
    alpha_prior : tuple of float
        Shape and rate of its Gamma prior, where ``alpha`` is None.
    tol : float
        Of the lower bound of a model, a sum over its points.
    max_iter : int
        0 fits the posterior to ``resp``.
    backend : {"auto", "triton", "cpu", "reference"}
    matmul_precision : {"ieee", "tf32x3", "tf32"}

    Returns
    -------
    VariationalResult
        With the means in the coordinates of the points.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.
    """
    n_models = len(ranges)
    device = points.device
    options = {"backend": backend, "matmul_precision": matmul_precision}
    start_alpha = alpha_prior[0] / alpha_prior[1] if alpha is None else alpha
    lower_bound = torch.full((n_models,), -torch.inf, dtype=torch.float64, device=device)
    n_iter = torch.zeros(n_models, dtype=torch.int64, device=device)
    converged = torch.zeros(n_models, dtype=torch.bool, device=device)
    active = torch.arange(n_models, device=device)
    finished: list[tuple[Tensor, VariationalPosterior]] = []
    centres = prior.mean[:, None].expand(-1, resp.shape[1], -1).to(points.dtype)
    sums = kernels.sufficient_statistics(points, ranges, resp, centres, **options)
    posterior = _maximize(sums, prior, torch.full_like(lower_bound, start_alpha), backend)
    if alpha is None:
        posterior, _ = _update_alpha(posterior, *alpha_prior)
    # What the next step does not read is freed before new matrices are made, here and below.
    del resp, centres, sums
    for iteration in range(1, max_iter + 1):
        log_weights, means, factors = expected_log_weights(posterior), posterior.means, posterior.precisions_cholesky
        old_alpha, old_bad = posterior.alpha, posterior.bad
        del posterior
        resp = kernels.responsibilities(points, ranges, log_weights, means, factors, log_weights=True, **options).resp
        del factors
        entropy = sum_per_model(torch.special.entr(resp).sum(1, dtype=torch.float64), ranges)
        sums = kernels.sufficient_statistics(points, ranges, resp, means, **options)
        posterior = _maximize(sums, prior, old_alpha, backend)
        del resp, means, sums
        bound = _lower_bound(posterior, entropy)
        if alpha is None:
            posterior, of_alpha = _update_alpha(posterior, *alpha_prior)
            bound += of_alpha
        # A bad start has unspecified factors: what came of them is bad whatever it looks like.
        bad = posterior.bad.logical_or_(old_bad)
        done = (bound - lower_bound[active]).abs() < tol
        lower_bound[active] = bound
        n_iter[active] = iteration
        converged[active] = done & ~bad
        leaving = done | bad
        if bool(leaving.any()):
            finished.append((active[leaving], posterior.select(leaving)))
            keep = ~leaving
            active, ranges, prior = active[keep], ranges[keep], prior.select(keep)
            posterior = posterior.select(keep)
            if len(active) == 0:
                break
    if len(active) or not finished:
        finished.append((active, posterior))
    return VariationalResult(**vars(_in_order(finished)), lower_bound=lower_bound, n_iter=n_iter, converged=converged)


def _in_order(parts: list[tuple[Tensor, VariationalPosterior]]) -> VariationalPosterior:
    if len(parts) == 1:
        return parts[0][1]
    order = torch.argsort(torch.cat([models for models, _ in parts]))

    def join(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for _, part in parts])[order]

    a, b = (torch.cat([part.weight_concentration[i] for _, part in parts])[order] for i in (0, 1))
    return VariationalPosterior(
        (a, b),
        join("mean_precision"),
        join("means"),
        join("degrees_of_freedom"),
        join("covariances"),
        join("precisions_cholesky"),
        join("alpha"),
        join("bad"),
    )


def predictive(posterior: VariationalPosterior, prior: NormalInverseWishart) -> PredictiveComponents:
    """Density of a new point under the variational posterior, a mixture of Student-t densities for each model.

    Component k has ``nu_k + 1 - D`` degrees of freedom, location m_k and scale
    ``(1 + kappa_k) / (kappa_k (nu_k + 1 - D)) W_k^-1`` (Bishop 2006, eqs. 10.81, 10.82), and the weight
    ``E[v_k] prod_{j<k} E[1 - v_j]``. What the T sticks leave is the weight of the last component, the predictive of
    the prior.

    Parameters
    ----------
    posterior : VariationalPosterior
        Or the :class:`VariationalResult` of the same models.
    prior : NormalInverseWishart
        That of the inference.

    Returns
    -------
    PredictiveComponents
    """
    dtype, n_features = posterior.means.dtype, posterior.means.shape[-1]
    kappa, nu = posterior.mean_precision, posterior.degrees_of_freedom
    dof = nu + 1 - n_features
    # The covariances are W^-1 / nu.
    factors = posterior.precisions_cholesky * (kappa * dof / ((1 + kappa) * nu)).sqrt().to(dtype)[..., None, None]
    prior_dof = prior.nu + 1 - n_features
    scale = (1 + prior.kappa) / (prior.kappa * prior_dof) * prior.scale_diagonal
    return PredictiveComponents(
        _log_expected_sticks(*posterior.weight_concentration).to(dtype),
        torch.cat([posterior.means, prior.mean[:, None].to(dtype)], 1),
        torch.cat([factors, torch.diag_embed(scale.rsqrt().to(dtype))[:, None]], 1),
        torch.cat([dof, torch.full_like(dof[:, :1], prior_dof)], 1).to(dtype),
    )
