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
    """Log-likelihood of each model, float64 [M], and its :class:`~fastdens.kernels.SufficientStatistics`."""

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
    points, layout, weights, means, precisions_cholesky, log_weights
        As for :func:`fastdens.kernels.responsibilities`.
    sample_weight : Tensor, optional
        [N], as for :func:`fastdens.kernels.em_steps`.
    **options
        ``covariance_type``, ``backend`` and ``matmul_precision``, as for :func:`fastdens.kernels.responsibilities`.

    Returns
    -------
    EMStatistics
        ``log_likelihood`` float64 [M] under the given parameters, then ``nk``, ``means`` and ``scatter``.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, devices or options do not fit.
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
