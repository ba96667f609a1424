"""Mean Euclidean distance between pairs of points of a class, a U-statistic with its jackknife standard error."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.distributions.divergences import MonteCarloEstimate
from fastdens.errors import check_batch

# Rows of a block of distances to all later points: few, since the pairs inside a block are computed twice.
_ROWS = 128
_MAX_ELEMENTS = 1 << 24


def mean_pairwise_distance(batch: RaggedBatch) -> MonteCarloEstimate:
    """Mean Euclidean distance between two different points of a class, over all ``n (n - 1) / 2`` pairs.

    The n points of a class are draws from its distribution, and the mean is a U-statistic U: an unbiased estimate of
    ``E|x - y|`` for two independent draws. Its standard error is that of the jackknife,
    ``sqrt(4 (n - 1) / (n (n - 2)^2) sum_i (g_i - U)^2)``, with g_i the mean distance of point i to the others. The
    jackknife errs on the large side where points are few.

    Parameters
    ----------
    batch : RaggedBatch
        N points of M classes; distances are computed on their device in float64, from differences of coordinates.

    Returns
    -------
    MonteCarloEstimate
        float64 [M] on the CPU, in the unit of the points. NaN for a class of fewer than two points, or with a NaN; the
        standard error is NaN for a class of two.

    Raises
    ------
    TypeError, ValueError
        If ``batch`` is not a RaggedBatch, or its points have weights.

    References
    ----------
    Hoeffding, A class of statistics with asymptotically normal distribution, Annals of Mathematical Statistics 19,
    1948. Arvesen, Jackknifing U-statistics, Annals of Mathematical Statistics 40, 1969.

    Examples
    --------
    >>> import fastdens as fd
    >>> from fastdens.analysis import mean_pairwise_distance
    >>> batch = fd.RaggedBatch.from_labels([[0.0], [2.0], [0.0], [6.0]], ["near", "near", "far", "far"])
    >>> batch.classes, mean_pairwise_distance(batch).value
    (('far', 'near'), tensor([6., 2.], dtype=torch.float64))
    """
    checked = check_batch(batch)
    if checked.weights is not None:
        raise ValueError("the points have weights, which pairs of points do not: pass batch.weighted(None).")
    value, standard_error = (np.full(checked.n_models, math.nan) for _ in range(2))
    for m, n in enumerate(checked.sizes.tolist()):
        if n < 2:
            continue
        mean_to_others = _distance_sums(checked.part(m, m + 1).points.double()).cpu().numpy() / (n - 1)
        value[m] = mean_to_others.mean()
        if n > 2:
            squares = ((mean_to_others - value[m]) ** 2).sum()
            standard_error[m] = math.sqrt(4 * (n - 1) / n * squares) / (n - 2)
    return MonteCarloEstimate(torch.from_numpy(value), torch.from_numpy(standard_error))


def _distance_sums(points: Tensor) -> Tensor:
    """Sum of the distances of each point [n, D] to the others, [n]; each pair is computed once, or twice in a block.

    Distances from a matrix product of the coordinates would suffer cancellation far from the origin.
    """
    sums = points.new_zeros(len(points))
    step = max(1, min(_ROWS, _MAX_ELEMENTS // len(points)))
    for begin in range(0, len(points), step):
        block = points[begin : begin + step]
        distance = torch.cdist(block, points[begin:], compute_mode="donot_use_mm_for_euclid_dist")
        sums[begin:] += distance.sum(0)
        sums[begin : begin + step] += distance[:, len(block) :].sum(1)
    return sums
