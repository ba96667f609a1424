"""The normal-inverse-Wishart distribution: prior of a Gaussian's mean and covariance, posterior and predictive.

Formulas and names follow Murphy, Conjugate Bayesian analysis of the Gaussian distribution, 2007, section 8.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens.distributions.student_t_mixture import StudentTComponents
from fastdens.kernels.centre import central_points
from fastdens.kernels.layout import Layout
from fastdens.kernels.m_step import weighted


class NormalInverseWishart(NamedTuple):
    """Priors ``mu | Sigma ~ N(m0, Sigma / kappa0)``, ``Sigma ~ IW(S0, nu0)`` of M models, S0 diagonal.

    Attributes
    ----------
    mean, scale_diagonal : Tensor
        m0 and the diagonal of S0, float64 [M, D], in the units of the points and in those units squared.
    kappa, nu : float
        kappa0, how many points the prior mean is worth, and nu0, the degrees of freedom.
    """

    mean: Tensor
    scale_diagonal: Tensor
    kappa: float
    nu: float

    def select(self, models: Tensor | slice) -> NormalInverseWishart:
        """The priors of some of the models, by index, mask or slice."""
        return self._replace(mean=self.mean[models], scale_diagonal=self.scale_diagonal[models])

    def centred(self) -> NormalInverseWishart:
        """The same priors in coordinates about their means."""
        return self._replace(mean=torch.zeros_like(self.mean))


class NIWPosterior(NamedTuple):
    """Posteriors of K clusters of M models: kappa, nu float64 [M, K], m float64 [M, K, D] and S [M, K, D, D]."""

    kappa: Tensor
    nu: Tensor
    mean: Tensor
    scale: Tensor


def posterior(prior: NormalInverseWishart, counts: Tensor, means: Tensor, scatter: Tensor) -> NIWPosterior:
    """Posteriors of clusters from their sufficient statistics (Murphy 2007, eqs. 250 to 254).

    ``kappa = kappa0 + n``, ``nu = nu0 + n``, ``m = (kappa0 m0 + n xbar) / kappa`` and
    ``S = S0 + A + kappa0 n / kappa (xbar - m0)(xbar - m0)'``.

    Parameters
    ----------
    prior : NormalInverseWishart
        Of M models.
    counts : Tensor
        n, [M, K]; they need not be integers.
    means : Tensor
        xbar, [M, K, D].
    scatter : Tensor
        ``A = sum (x - xbar)(x - xbar)'``, [M, K, D, D]; it is overwritten by S, in its dtype.

    Returns
    -------
    NIWPosterior
    """
    n = counts.double()
    kappa, nu = prior.kappa + n, prior.nu + n
    centred = means.double() - prior.mean[:, None]
    pull = (centred * (prior.kappa * n / kappa)[..., None]).to(scatter.dtype)
    scatter.addcmul_(pull[..., :, None], centred.to(scatter.dtype)[..., None, :])
    scatter.diagonal(dim1=-2, dim2=-1).add_(prior.scale_diagonal[:, None])
    return NIWPosterior(kappa, nu, prior.mean[:, None] + centred * (n / kappa)[..., None], scatter)


def predictive_student_t(
    log_weights: Tensor,
    kappa: Tensor,
    nu: Tensor,
    mean: Tensor,
    precisions_cholesky: Tensor,
    *,
    dtype: torch.dtype,
    divisor: Tensor | float = 1.0,
) -> StudentTComponents:
    """Predictive density of a new point under each of some posteriors (Murphy 2007, eq. 258).

    A Student-t with ``nu - D + 1`` degrees of freedom, location m and scale matrix
    ``S (kappa + 1) / (kappa (nu - D + 1))``.

    Parameters
    ----------
    log_weights, kappa, nu : Tensor
        [...].
    mean : Tensor
        m, [..., D].
    precisions_cholesky : Tensor
        [..., D, D], upper-triangular U with ``(S / divisor)^-1 = U U'``.
    dtype : torch.dtype
        Of the components.
    divisor : Tensor or float
        [...]: nu where U belongs to the mean of the covariance, ``S / nu``.
    """
    df = nu - mean.shape[-1] + 1
    scale = (kappa * df / ((kappa + 1) * divisor)).sqrt().to(precisions_cholesky.dtype)
    factors = (precisions_cholesky * scale[..., None, None]).to(dtype)
    return StudentTComponents(log_weights.to(dtype), mean.to(dtype), factors, df.to(dtype))


def prior_predictive(prior: NormalInverseWishart, log_weights: Tensor, *, dtype: torch.dtype) -> StudentTComponents:
    """Predictive density of the prior of each model: components [M] of weights [M]."""
    kappa, nu = (torch.full_like(log_weights, value, dtype=torch.float64) for value in (prior.kappa, prior.nu))
    factors = torch.diag_embed(prior.scale_diagonal.rsqrt())
    return predictive_student_t(log_weights, kappa, nu, prior.mean, factors, dtype=dtype)


def log_predictive_at_mean(kappa: Tensor, nu: Tensor, log_det: Tensor, n_features: int) -> Tensor:
    """Log predictive density at the location m, its maximum, from ``log det S`` (Murphy 2007, eq. 258)."""
    d = n_features
    constant = torch.lgamma((nu + 1) / 2) - torch.lgamma((nu - d + 1) / 2)
    return constant - 0.5 * d * (((kappa + 1) / kappa).log() + math.log(math.pi)) - 0.5 * log_det


def log_predictive_left_out(
    log_predictive: Tensor, kappa: Tensor, nu: Tensor, log_det: Tensor, n_features: int
) -> Tensor:
    """Log predictive density of a point under the posterior of its cluster without that point, in closed form.

    With ``q = (x - m)' S^-1 (x - m)`` under the cluster that holds x, leaving x out multiplies the determinant of S by
    ``1 - kappa / (kappa - 1) q``.

    Parameters
    ----------
    log_predictive : Tensor
        Log predictive density of the point under the cluster that holds it.
    kappa, nu, log_det : Tensor
        kappa, nu and ``log det S`` of the cluster that holds the point.
    n_features : int
    """
    log_spread = (log_predictive_at_mean(kappa, nu, log_det, n_features) - log_predictive) * 2 / (nu + 1)
    log_ratio = torch.log1p(-(kappa + 1) / (kappa - 1) * torch.expm1(log_spread))
    return log_predictive_at_mean(kappa - 1, nu - 1, log_det, n_features) + 0.5 * (nu - 1) * log_ratio


def rounding_of(values: Tensor, dtype: torch.dtype) -> Tensor:
    """How far apart two numbers may lie that were computed to be the same in a dtype: four units in the last place."""
    eps = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
    return 4 * eps * values.abs()


def constant_features(points: Tensor, layout: Layout) -> Tensor:
    """Which features do not vary within each model, but for the rounding of their values, bool [M, D].

    Parameters
    ----------
    points : Tensor
        [N, D], sorted by model.
    layout : Layout
        Rows of each model; where there are none, no feature varies.
    """
    if len(points) == 0:
        return torch.ones(layout.n_models, points.shape[1], dtype=torch.bool, device=points.device)
    first = points[layout.ranges[:, 0].clamp_max(len(points) - 1)]
    model, rounding = layout.rows.model, rounding_of(first, points.dtype)
    varies = torch.zeros(layout.n_models, points.shape[1], dtype=torch.int64, device=points.device)
    distance = (points - first.index_select(0, model)).abs_()
    varies.index_add_(0, model, (distance > rounding.index_select(0, model)).long())
    return varies == 0


def data_prior(
    points: Tensor,
    layout: Layout,
    kappa0: float = 0.01,
    nu0: float | None = None,
    init_components: int = 6,
    variance_floor: float = 0.0,
    sample_weight: Tensor | None = None,
) -> NormalInverseWishart:
    """The prior that fits the data of each model (Jamroz & Kurdziel 2023).

    ``m0`` is the sample mean and ``S0 = diag(sample variance) / K0^(2/D)``, variances with divisor n: K0 boxes of
    that shape fill the box of the data. Sums run in float64 about a point amid the model's, so that data far from the
    origin lose nothing, and in an order that depends on the model alone.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64, sorted by model.
    layout : Layout
        Rows of each model, in ascending order, none empty.
    kappa0 : float
        Positive.
    nu0 : float, optional
        Greater than D - 1; by default D + 2.
    init_components : int
        K0, the number of clusters that the data are thought to have.
    variance_floor : float
        The variance of a feature that does not vary in a model, as a share of the mean variance of those that do.
    sample_weight : Tensor, optional
        float64 [N], positive: how often each point counts.

    Returns
    -------
    NormalInverseWishart
        A scale is zero where all points of a model agree.

    Raises
    ------
    ValueError
        If ``kappa0``, ``nu0`` or ``init_components`` gives no prior.
    """
    n_features = points.shape[1]
    nu = float(n_features + 2 if nu0 is None else nu0)
    if not nu > n_features - 1:
        raise ValueError(f"nu0 is {nu0!r}, but the prior of {n_features} features needs more than {n_features - 1}.")
    if not kappa0 > 0:
        raise ValueError(f"kappa0 is {kappa0!r}, but the prior needs a number greater than 0.")
    if not init_components >= 1:
        raise ValueError(f"init_components is {init_components!r}, but the prior needs at least 1.")
    rows = torch.arange(len(points), device=points.device)
    # Rows that no model owns go to a neighbour: they are not part of any sum.
    model = torch.searchsorted(layout.ranges[:, 1].contiguous(), rows, right=True).clamp_max(layout.n_models - 1)
    total = (layout.sizes if sample_weight is None else layout.sum(sample_weight))[:, None]
    origin = central_points(points, layout).double()
    centred = points.double() - origin.index_select(0, model)
    mean = layout.sum(weighted(centred, sample_weight)) / total
    variance = layout.sum(weighted((centred - mean.index_select(0, model)).square_(), sample_weight)) / total
    if variance_floor > 0:
        constant = constant_features(points, layout)
        of_others = variance.masked_fill(constant, 0.0).sum(1) / (~constant).sum(1).clamp_min(1)
        variance = torch.where(constant, variance_floor * of_others[:, None], variance)
    return NormalInverseWishart(origin + mean, variance / init_components ** (2 / n_features), float(kappa0), nu)
