"""Normal-inverse-Wishart posteriors of the clusters of many models (Murphy 2007, section 8; Gelman et al. 2013, 3.6).

``kappa = kappa0 + n``, ``m = (kappa0 m0 + n xbar) / kappa`` and
``S = S0 + A + kappa0 n / kappa (xbar - m0)(xbar - m0)'``, with A the scatter of the cluster's points about their mean.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from fastdens.kernels.arguments import checked
from fastdens.kernels.cholesky import precision_cholesky
from fastdens.kernels.layout import Layout, as_layout
from fastdens.kernels.m_step import sufficient_statistics
from torch import Tensor


class NIWPosterior(NamedTuple):
    """Posteriors of K clusters of each of M models; a cluster without points has the prior's.

    Attributes
    ----------
    counts : Tensor
        int64 [M, K], points n.
    mean : Tensor
        float64 [M, K, D], m.
    precisions_cholesky : Tensor
        float64 [M, K, D, D], upper-triangular U with ``S^-1 = U U'``.
    log_det : Tensor
        float64 [M, K], log det S.
    """

    counts: Tensor
    mean: Tensor
    precisions_cholesky: Tensor
    log_det: Tensor


@checked
def niw_posterior(
    points: Tensor,
    layout: Layout | Tensor,
    labels: Tensor,
    n_clusters: int,
    prior_mean: Tensor,
    prior_scale: Tensor,
    kappa0: float,
    *,
    backend: str = "auto",
) -> NIWPosterior:
    """Posterior of every cluster of every model, from the points.

    Parameters
    ----------
    points, layout : Tensor
        As for :func:`fastdens.kernels.responsibilities`; every point has a model.
    labels : Tensor
        Integers [N], 0 to K - 1, the cluster of each point within its model.
    n_clusters : int
        K, the same for all models: those of higher number are empty.
    prior_mean, prior_scale : Tensor
        float64 [M, D], m0 and the diagonal of S0.
    kappa0 : float
        How many points the prior mean is worth.
    backend : str
        As for :func:`fastdens.kernels.gaussian_log_prob`.

    Returns
    -------
    NIWPosterior
        Of M times K clusters, empty ones included.

    Raises
    ------
    TypeError, ValueError
        If the rows of the models leave out points or overlap, or dtypes, shapes or options do not fit.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import niw_posterior
    >>> points, labels = torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0])
    >>> prior_mean, prior_scale = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    >>> niw_posterior(points, torch.tensor([0, 2]), labels, 1, prior_mean, prior_scale, kappa0=1.0).mean
    tensor([[[1.3333]]], dtype=torch.float64)
    """
    n_models, n_features = prior_mean.shape
    layout = as_layout(layout, n_models, len(points))
    if layout.span != slice(0, len(points)):
        raise ValueError("the rows of the models leave out some points or overlap: pass offsets of sorted points.")
    model = layout.rows.model
    cluster = labels.long()
    centred = points.double() - prior_mean[model]
    count = torch.zeros(n_models * n_clusters, dtype=torch.int64, device=points.device)
    count.index_add_(0, model * n_clusters + cluster, torch.ones_like(model))
    count = count.reshape(n_models, n_clusters)
    resp = torch.zeros(len(points), n_clusters, dtype=torch.float64, device=points.device)
    resp.scatter_(1, cluster[:, None], 1.0)
    centres = torch.zeros(n_models, n_clusters, n_features, dtype=torch.float64, device=points.device)
    sums = sufficient_statistics(centred, layout, resp, centres, backend=backend)
    n = count.double()
    kappa = kappa0 + n
    mean = torch.where((count > 0)[..., None], sums.means, 0.0)
    scale = sums.scatter
    scale.mul_((count > 0)[..., None, None])
    scale.addcmul_((kappa0 * n / kappa)[..., None, None] * mean[..., :, None], mean[..., None, :])
    scale.diagonal(dim1=-2, dim2=-1).add_(prior_scale[:, None])
    factors, _ = precision_cholesky(scale, backend=backend)
    log_det = -2 * factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return NIWPosterior(count, prior_mean[:, None] + (n / kappa)[..., None] * mean, factors, log_det)
