"""Distance to the nearest neighbours: a nonparametric measure of density, for comparison with the models."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_labels, as_numpy
from fastdens.arrays import as_points
from fastdens.errors import check_integer
from fastdens.kernels.optional import require

_MAX_ELEMENTS = 1 << 22


def neighbour_distance(
    points: ArrayLike | Tensor, labels: ArrayLike | Tensor, k: int = 10, within_class: bool = True
) -> NDArray[np.float64]:
    """Mean Euclidean distance of each point to the k nearest others of its class.

    The result is exact: faiss finds more than k candidates by an exhaustive search in float32, their distances are
    computed in float64, and the k smallest are averaged. Where rounding may have hidden a nearer neighbour, all
    distances are computed in float64.

    Parameters
    ----------
    points : array or Tensor
        [N, D].
    labels : array or Tensor
        [N] integers from 0.
    k : int
        Number of neighbours, at least 1. A point is not its own neighbour, but its duplicates are.
    within_class : bool
        Whether neighbours must be of the same class; if not, all points are candidates.

    Returns
    -------
    ndarray
        float64 [N], in the unit of the points.

    Raises
    ------
    TypeError, ValueError
        If the shapes disagree, a point is not finite, or a class has k points or fewer.
    ImportError
        If faiss is missing.

    References
    ----------
    Loftsgaarden & Quesenberry, A nonparametric estimate of a multivariate density function, Annals of Mathematical
    Statistics 36, 1965. Douze et al., The Faiss library, 2024.

    Examples
    --------
    >>> from fastdens.analysis import neighbour_distance
    >>> neighbour_distance([[0.0], [1.0], [4.0]], [0, 0, 0], k=1)
    array([1., 1., 3.])
    """
    faiss = require("faiss", "neighbour_distance", "cpu")
    check_integer("k", k, 1)
    x = as_numpy(as_points(points, "points"))
    labels = as_labels(labels, len(x))
    bad = ~np.isfinite(x).all(1)
    if bad.any():
        raise ValueError(f"point {int(bad.argmax())} holds NaN or infinity: leave it out.")
    if not within_class:
        if 0 < len(x) <= k:
            raise ValueError(
                f"there are {len(x)} points, but {k} neighbours of each need at least {k + 1}: lower k or add points."
            )
        return _mean_distance(x, k, faiss)
    out = np.empty(len(x))
    for c, size in enumerate(np.bincount(labels).tolist()):
        if 0 < size <= k:
            raise ValueError(
                f"class {c} has {size} example{'s' * (size != 1)}, but {k} neighbour{'s' * (k != 1)} of each need at "
                f"least {k + 1}: lower k or leave the class out."
            )
        rows = np.flatnonzero(labels == c)
        out[rows] = _mean_distance(x[rows], k, faiss)
    return out


def _mean_distance(points: NDArray[Any], k: int, faiss: Any) -> NDArray[np.float64]:
    """Mean distance of each of the points [n, D] to the k nearest others, [n]."""
    n, n_features = points.shape
    exact = points.astype(np.float64)
    # Around the median most coordinates are small, where float32 resolves them; in units of the largest coordinate no
    # square overflows.
    centred = exact - np.median(exact, 0) if n else exact
    scale = np.abs(centred).max(initial=0) or 1.0
    searched = np.ascontiguousarray(centred / scale, np.float32)
    norms = np.square(searched, dtype=np.float64).sum(1)
    index = faiss.IndexFlatL2(n_features)
    index.add(searched)
    # More than k and the point itself: float32 may confuse near neighbours.
    n_candidates = min(n, 2 * k + 8)
    out = np.empty(n)
    for rows in _blocks(np.arange(n), n_candidates * n_features):
        squares, candidates = index.search(searched[rows], n_candidates)
        distance = np.linalg.norm(exact[candidates] - exact[rows, None], axis=-1)
        distance[candidates == rows[:, None]] = np.inf
        nearest = np.partition(distance, k - 1)[:, :k]
        out[rows] = nearest.mean(1)
        if n_candidates == n:
            continue
        # Faiss expands |x - y|^2 = |x|^2 + |y|^2 - 2 x'y, whose rounding error this bounds for |y| <= |x| + |x - y|.
        # Points nearer than the last candidate by less than that may have been missed.
        last, furthest = squares[:, -1].astype(np.float64), nearest.max(1)
        lost = np.finfo(np.float32).eps * (n_features + 8) * (3 * norms[rows] + 2 * last)
        doubtful = rows[(furthest > 0) & ((furthest / scale) ** 2 > last - lost)]
        out[doubtful] = _mean_distance_of_rows(exact, doubtful, k)
    return out


def _mean_distance_of_rows(points: NDArray[np.float64], rows: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Mean distance of some of the points [n, D] to the k nearest others, from all distances in float64."""
    out = np.empty(len(rows))
    everything = torch.from_numpy(points)
    for part in _blocks(np.arange(len(rows)), len(points)):
        own = rows[part]
        distance = torch.cdist(everything[own], everything, compute_mode="donot_use_mm_for_euclid_dist").numpy()
        distance[np.arange(len(own)), own] = np.inf
        out[part] = np.partition(distance, k - 1)[:, :k].mean(1)
    return out


def _blocks(rows: NDArray[np.int64], width: int) -> list[NDArray[np.int64]]:
    """Split rows into blocks such that rows x width stays bounded."""
    step = max(1, _MAX_ELEMENTS // max(width, 1))
    return [rows[begin : begin + step] for begin in range(0, len(rows), step)]
