"""One EM iteration's sums: the E step and, with its responsibilities, the sums of the M step."""

from __future__ import annotations

from typing import NamedTuple, Unpack

from fastdens.kernels.arguments import checked
from fastdens.kernels.e_step import responsibilities
from fastdens.kernels.layout import Layout, as_layout
from fastdens.kernels.m_step import sufficient_statistics, weighted
from fastdens.kernels.operation import check_points, check_sample_weight
from fastdens.kernels.options import GaussianOptions
from torch import Tensor


class EMStatistics(NamedTuple):
    """What one EM iteration needs of the points of M models.

    Attributes
    ----------
    log_likelihood : Tensor
        float64 [M], of the points under their model.
    nk, means, scatter : Tensor
        As in :class:`SufficientStatistics`.
    """

    log_likelihood: Tensor
    nk: Tensor
    means: Tensor
    scatter: Tensor


@checked
def em_statistics(
    points: Tensor,
    layout: Layout | Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    *,
    log_weights: bool = False,
    sample_weight: Tensor | None = None,
    **options: Unpack[GaussianOptions],
) -> EMStatistics:
    """The sums that one EM iteration of M mixtures needs.

    Parameters
    ----------
    points, layout, weights, means, precisions_cholesky, log_weights : optional
        As for :func:`fastdens.kernels.responsibilities`.
    sample_weight : Tensor, optional
        [N], as for :func:`fastdens.kernels.em_steps`.
    **options : str
        ``covariance_type``, ``backend`` and ``matmul_precision``, as for :func:`fastdens.kernels.responsibilities`.

    Returns
    -------
    EMStatistics
        ``log_likelihood`` float64 [M] under the given parameters, then ``nk``, ``means`` and ``scatter``.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import em_statistics
    >>> points, offsets = torch.tensor([[-1.0], [1.0], [3.0]]), torch.tensor([0, 2, 3])  # Two models.
    >>> sums = em_statistics(points, offsets, torch.ones(2, 1), torch.zeros(2, 1, 1), torch.ones(2, 1, 1, 1))
    >>> sums.nk[:, 0].round(), sums.means[:, 0, 0].round()
    (tensor([2., 1.]), tensor([0., 3.]))
    """
    check_points(points)
    layout = as_layout(layout, len(means), len(points))
    resp, log_prob = responsibilities(
        points, layout, weights, means, precisions_cholesky, log_weights=log_weights, **options
    )
    if sample_weight is not None:
        check_sample_weight(points, sample_weight)
    sums = sufficient_statistics(points, layout, weighted(resp, sample_weight), means, **options)
    return EMStatistics(layout.sum(weighted(log_prob, sample_weight)), *sums)
