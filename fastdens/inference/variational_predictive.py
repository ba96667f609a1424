"""The predictive density of Dirichlet-process mixtures under their variational posterior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastdens.distributions.niw import NormalInverseWishart, predictive_student_t, prior_predictive
from fastdens.distributions.student_t_mixture import StudentTComponents, StudentTMixtureDensity
from fastdens.inference.cluster_predictive import Membership
from fastdens.inference.coordinate_ascent import select
from fastdens.inference.predictive import FittedModels, PredictiveOptions
from fastdens.inference.variational import VariationalState, log_expected_sticks


@dataclass(frozen=True)
class FittedVariational(FittedModels):
    """Fitted models by their variational posterior.

    Attributes
    ----------
    state : VariationalState
        Of the A models, in coordinates about the prior means; in float64, for these may be far off.
    """

    state: VariationalState

    def component_counts(self) -> list[int]:
        """T components, and that of the prior."""
        n_models, n_components = self.state.stick_a.shape
        return [n_components + 1] * n_models

    def membership(self, labels: Tensor) -> Membership:
        """Each of the T components that holds points is a cluster; the others are none, as the prior is.

        ``labels`` are the components of the (sorted) rows, int64 [n].
        """
        n_models, t = self.state.stick_a.shape
        components = torch.arange(n_models * (t + 1), device=labels.device)
        holds_points = torch.zeros(n_models, t + 1, dtype=torch.bool, device=labels.device)
        holds_points[self.batch.model_of_row, labels] = True
        clusters = torch.where(holds_points.flatten(), components % (t + 1), t)
        return Membership(components, clusters, torch.zeros_like(components, dtype=torch.float64), t)

    def density_of(self, begin: int, end: int, options: PredictiveOptions) -> StudentTMixtureDensity:
        """The predictive density of the fitted models ``begin:end``."""
        prior = self.prior.select(slice(begin, end))
        parts = predictive(select(self.state, slice(begin, end)), prior.centred())
        n_models, n_components = parts.log_weights.shape
        parts = parts._replace(locations=parts.locations.double() + prior.mean[:, None])
        dtype = self.state.precisions_cholesky.dtype
        return StudentTMixtureDensity.from_components(
            torch.full((n_models,), n_components, device=prior.mean.device),
            [StudentTComponents(*(part.flatten(0, 1).to(dtype) for part in parts))],
            **options.kernel_options,
        )


def predictive(state: VariationalState, prior: NormalInverseWishart) -> StudentTComponents:
    """Density of a new point under the variational posterior, a mixture of Student-t densities for each model.

    Component k has ``nu_k + 1 - D`` degrees of freedom, location m_k and scale
    ``(1 + kappa_k) / (kappa_k (nu_k + 1 - D)) W_k^-1`` (Bishop 2006, eqs. 10.81, 10.82), and the weight
    ``E[v_k] prod_{j<k} E[1 - v_j]``. The mass that the T sticks leave is the weight of the last component, the
    predictive of the prior.

    Parameters
    ----------
    state : VariationalState
        Of A models.
    prior : NormalInverseWishart
        That of the inference.

    Returns
    -------
    StudentTComponents
        [A, T + 1], in the dtype of the means.
    """
    dtype = state.means.dtype
    log_weights = log_expected_sticks(state.stick_a, state.stick_b)
    inside = predictive_student_t(
        log_weights[:, :-1],
        state.mean_precision,
        state.degrees_of_freedom,
        state.means,
        state.precisions_cholesky,
        dtype=dtype,
        divisor=state.degrees_of_freedom,
    )
    rest = prior_predictive(prior, log_weights[:, -1], dtype=dtype)
    return StudentTComponents(*(torch.cat([a, b[:, None]], 1) for a, b in zip(inside, rest, strict=True)))
