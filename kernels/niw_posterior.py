"""Normal-inverse-Wishart posteriors of the clusters of many models (Murphy 2007, section 8; Gelman et al. 2013, 3.6).

``kappa = kappa0 + n``, ``m = (kappa0 m0 + n xbar) / kappa`` and
``S = S0 + A + kappa0 n / kappa (xbar - m0)(xbar - m0)'``, with A the scatter of the cluster's points about their mean.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from fastdens.kernels.layout import rows_of
from fastdens.kernels.operation import row_ranges
from fastdens.kernels.precision_cholesky import precision_cholesky
from fastdens.kernels.sufficient_statistics import sufficient_statistics
from torch import Tensor


class NIWPosterior(NamedTuple):
    """Of each cluster: its points n int64 [M, K]; float64 m [M, K, D]; U [M, K, D, D], upper triangular with
    ``S^-1 = U U'``; ``log det S`` [M, K]. A cluster without points has the prior's.
    """

    counts: Tensor
    mean: Tensor
    precisions_cholesky: Tensor
    log_det: Tensor


def niw_posterior(
    points: Tensor,
    offsets: Tensor,
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
    points : Tensor
        [N, D], float32 or float64, sorted by model.
    offsets : Tensor
        int64 [M + 1], or row ranges [M, 2].
    labels : Tensor
        Integers [N], 0 to K - 1, the cluster of each point within its model.
    n_clusters : int
        K, the same for all models: those of higher number are empty.
    prior_mean, prior_scale : Tensor
        float64 [M, D], m0 and the diagonal of S0.
    kappa0 : float
    backend : {"auto", "triton", "cpu", "reference"}

    Returns
    -------
    NIWPosterior
    """
    n_models, n_features = prior_mean.shape
    ranges = row_ranges(offsets, n_models, len(points))
    model = rows_of(ranges).model
    if len(model) != len(points) or not bool((ranges[1:, 0] == ranges[:-1, 1]).all()):
        raise ValueError("the rows of the models leave out some points or overlap: pass offsets of sorted points.")
    cluster = labels.long()
    centred = points.double() - prior_mean[model]
    count = torch.zeros(n_models * n_clusters, dtype=torch.int64, device=points.device)
    count.index_add_(0, model * n_clusters + cluster, torch.ones_like(model))
    count = count.reshape(n_models, n_clusters)
    resp = torch.zeros(len(points), n_clusters, dtype=torch.float64, device=points.device)
    resp.scatter_(1, cluster[:, None], 1.0)
    centres = torch.zeros(n_models, n_clusters, n_features, dtype=torch.float64, device=points.device)
    sums = sufficient_statistics(centred, ranges, resp, centres, backend=backend)
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
