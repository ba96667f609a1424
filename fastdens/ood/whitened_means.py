"""Means in coordinates in which Mahalanobis distances are Euclidean, and distances to them as matrix products."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class WhitenedMeans(NamedTuple):
    """C means and the coordinates of a covariance; all float64.

    Attributes
    ----------
    origin : Tensor
        [D], what is subtracted first.
    precision_cholesky : Tensor
        [D, D], U with ``precision = U U'``, by which differences from the origin are multiplied.
    means : Tensor
        [C, D], ``(m_c - origin) U``.
    squares : Tensor
        [C], their squared lengths.
    """

    origin: Tensor
    precision_cholesky: Tensor
    means: Tensor
    squares: Tensor


def whiten(means: Tensor, precision_cholesky: Tensor) -> WhitenedMeans:
    """Means [C, D] in the coordinates of a covariance with the first of them as the origin."""
    origin = means[0].clone()
    whitened = (means - origin) @ precision_cholesky
    return WhitenedMeans(origin, precision_cholesky, whitened, whitened.square().sum(1))


def squared_distances(points: Tensor, to: WhitenedMeans) -> Tensor:
    """Squared Mahalanobis distance of each point to each mean, float64 [N, C].

    With ``z = (x - a) U`` and ``w_c = (m_c - a) U`` it is ``|z|^2 - 2 z'w_c + |w_c|^2``: two matrix products, whatever
    the number of classes.
    """
    z = (points.double() - to.origin) @ to.precision_cholesky
    squares = torch.addmm(to.squares, z, to.means.mT, alpha=-2)
    return squares.add_(z.square().sum(1, keepdim=True)).clamp_min_(0)
