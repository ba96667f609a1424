"""The normal-inverse-Wishart prior that Dirichlet-process mixtures put on the mean and covariance of a component."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastdens.kernels.layout import sum_per_model


class NormalInverseWishart(NamedTuple):
    """``mu | Sigma ~ N(m0, Sigma / kappa0)``, ``Sigma ~ IW(S0, nu0)`` of M models, S0 diagonal.

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


def data_prior(
    points: Tensor, ranges: Tensor, kappa0: float = 0.01, nu0: float | None = None, init_components: int = 6
) -> NormalInverseWishart:
    """The prior that fits the data of each model (Jamroz & Kurdziel 2023).

    ``m0`` is the sample mean and ``S0 = diag(sample variance) / K0^(2/D)``, variances with divisor n: K0 boxes of
    that shape fill the box of the data. Sums run in float64 about a model's first point, so that data far from the
    origin lose nothing, and in an order that depends on the model alone.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64, sorted by model.
    ranges : Tensor
        Rows of each model, int64 [M, 2], in ascending order, none empty.
    kappa0 : float
        Positive.
    nu0 : float, optional
        Greater than D - 1; by default D + 2.
    init_components : int
        K0, the number of clusters that the data are thought to have.

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
    model = torch.searchsorted(ranges[:, 1].contiguous(), rows, right=True).clamp_max(len(ranges) - 1)
    sizes = (ranges[:, 1] - ranges[:, 0])[:, None]
    origin = points[ranges[:, 0]].double()
    centred = points.double() - origin[model]
    mean = sum_per_model(centred, ranges) / sizes
    variance = sum_per_model((centred - mean[model]).square_(), ranges) / sizes
    return NormalInverseWishart(origin + mean, variance / init_components ** (2 / n_features), float(kappa0), nu)
