"""Covariances drawn towards a multiple of the identity: ``(1 - s) S + s tr(S) / D I``.

With fewer points than dimensions S is singular and its small eigenvalues are far too small; the shrunk covariance is
well conditioned. The share s is a number, or follows from the data.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastdens.kernels.layout import Layout
from fastdens.kernels.m_step import weighted

METHODS = ("ledoit_wolf", "oas")


class Spread(NamedTuple):
    """What the share s of a covariance ``S = sum_n r_n v_n v_n' / sum_n r_n`` depends on beside S, float64 [...].

    Attributes
    ----------
    n_effective : Tensor
        The effective number of points, ``(sum_n r_n)^2 / sum_n r_n^2``.
    fourth : Tensor
        ``sum_n r_n |v_n|^4 / sum_n r_n``.
    """

    n_effective: Tensor
    fourth: Tensor


def spread_of_components(
    points: Tensor, layout: Layout, resp: Tensor, means: Tensor, sample_weight: Tensor | None = None
) -> Spread:
    """The spread about each component's mean, [M, K].

    A point of weight w counts as w points would: ``n_effective = (sum w r)^2 / sum w r^2``.

    Parameters
    ----------
    points : Tensor
        [N, D], sorted by model.
    layout : Layout
    resp : Tensor
        Responsibilities [N, K].
    means : Tensor
        [M, K, D].
    sample_weight : Tensor, optional
        [N].
    """
    counts = weighted(resp.double(), sample_weight)
    mass = layout.sum(counts)
    fourth = layout.sum(counts * squared_distances(points, layout, means).square_())
    return Spread(mass.square() / layout.sum(counts * resp), fourth / mass)


def spread_of_all(
    points: Tensor, layout: Layout, resp: Tensor, means: Tensor, sample_weight: Tensor | None = None
) -> Spread:
    """The spread of all points about the means of their components, [M], of a covariance that these share.

    As of :func:`spread_of_components`; a point counts once, whatever components it is divided among.
    """
    counts = weighted(resp.double(), sample_weight)
    mass = layout.sum(counts).sum(1)
    fourth = layout.sum((counts * squared_distances(points, layout, means).square_()).sum(1))
    return Spread(mass, fourth / mass)


def squared_distances(points: Tensor, layout: Layout, means: Tensor) -> Tensor:
    """``|x_n - mean_k|^2`` from all components of a point's own model, float64 [N, K]."""
    out = torch.zeros(len(points), means.shape[1], dtype=torch.float64, device=points.device)
    own = layout.ranges[layout.rows.model, 0] + layout.rows.position if layout.span is None else layout.span
    for k in range(means.shape[1]):
        out[own, k] = means[layout.rows.model, k].sub_(points[own]).square_().sum(1, dtype=torch.float64)
    return out


def share(method: str | float, covariance: Tensor, spread: Spread | None) -> Tensor:
    """The share s of each covariance [..., D, D], float64 [...].

    Parameters
    ----------
    method : {"ledoit_wolf", "oas"} or float
        With ``mu = tr(S) / D``, n points and the Frobenius norm, "ledoit_wolf" is ``b / d`` of
        ``d = |S - mu I|^2`` and ``b = min(d, (sum_n |v_n|^4 / n - |S|^2) / n)`` (Ledoit & Wolf 2004, lemma 3.2 to 3.4),
        and "oas" ``min(1, (|S|^2 + tr(S)^2) / ((n + 1) (|S|^2 - tr(S)^2 / D)))`` (Chen, Wiesel, Eldar & Hero 2010,
        eq. 23, without its terms of order 1 / D), both as in scikit-learn.
    covariance : Tensor
    spread : Spread or None
        None where ``method`` is a number.

    References
    ----------
    Ledoit & Wolf, A well-conditioned estimator for large-dimensional covariance matrices, Journal of Multivariate
    Analysis 88, 2004.
    Chen, Wiesel, Eldar & Hero, Shrinkage algorithms for MMSE covariance estimation, IEEE Transactions on Signal
    Processing 58, 2010.
    """
    n_features = covariance.shape[-1]
    diagonal = covariance.diagonal(dim1=-2, dim2=-1).double()
    if not isinstance(method, str):
        return torch.full(diagonal.shape[:-1], method, dtype=torch.float64, device=diagonal.device)
    assert spread is not None
    if n_features == 1:
        # Whatever the share, the covariance is the same.
        return torch.zeros(diagonal.shape[:-1], dtype=torch.float64, device=diagonal.device)
    # Row by row: the order of a sum over all elements would depend on the number of matrices.
    squares = torch.linalg.vector_norm(covariance, dim=-1, dtype=torch.float64).square().sum(-1)
    mean = diagonal.mean(-1)
    apart = (squares - diagonal.square().sum(-1) + (diagonal - mean[..., None]).square().sum(-1)).clamp_min(0)
    if method == "ledoit_wolf":
        error = torch.minimum((spread.fourth - squares) / spread.n_effective, apart).clamp_min(0)
        return torch.where(error > 0, error / apart, 0.0)
    trace_squares = (n_features * mean).square()
    return torch.where(apart > 0, (squares + trace_squares) / ((spread.n_effective + 1) * apart), 1.0).clamp_max(1)


def shrink(covariance: Tensor, shares: Tensor) -> None:
    """Make ``(1 - s) S + s tr(S) / D I`` of each covariance [..., D, D], in its place; ``shares`` are s [...]."""
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    target = shares * diagonal.double().mean(-1)
    covariance *= (1 - shares).to(covariance.dtype)[..., None, None]
    diagonal += target.to(covariance.dtype)[..., None]
