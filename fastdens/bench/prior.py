"""The prior that Gibbs sampling and variational inference have in every library: fastdens' own default."""

from __future__ import annotations

from torch import Tensor

KAPPA0 = 0.01


def prior_of(points: Tensor, init_components: int) -> tuple[Tensor, Tensor]:
    """Mean [M, D] and scale [M, D, D] of the normal-inverse-Wishart prior of points [M, N, D].

    The sample mean, and a diagonal of the sample variances (divisor N) over ``init_components^(2/D)``. Its other
    parameters are ``KAPPA0`` and D + 2 degrees of freedom.
    """
    scale = points.var(1, correction=0) / init_components ** (2 / points.shape[2])
    return points.mean(1), scale.diag_embed()
