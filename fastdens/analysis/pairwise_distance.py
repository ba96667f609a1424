"""How far apart the points of a class are: their mean distance over all pairs, with the error of a U-statistic."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.errors import check_batch

# Rows whose distances to all later points are held at a time: few enough that little of the square is done twice.
_ROWS = 128
_MAX_ELEMENTS = 1 << 24


class Estimate(NamedTuple):
    """Of each class, float64 [M]: a value and its standard error."""

    value: NDArray[np.float64]
    standard_error: NDArray[np.float64]


def mean_pairwise_distance(batch: RaggedBatch) -> Estimate:
    """Mean Euclidean distance between two different points of a class, over all ``n (n - 1) / 2`` pairs.

    It is a U-statistic: an unbiased estimate of ``E|x - y|`` of two points drawn from the class. Its standard error is
    the jackknife's, ``sqrt(4 (n - 1) / (n (n - 2)^2) sum_i (g_i - U)^2)``, where g_i is the mean distance of point i
    to the others and U that of all pairs. The jackknife errs on the large side where points are few.

    Parameters
    ----------
    batch : RaggedBatch
        N points of M classes; distances are computed on their device in float64, from differences of coordinates.

    Returns
    -------
    Estimate
        [M], in the unit of the points. NaN for a class of one point or none, or that holds NaN; the standard error is
        NaN for a class of two.

    Raises
    ------
    TypeError
        If it is no batch.

    References
    ----------
    Hoeffding, A class of statistics with asymptotically normal distribution, Annals of Mathematical Statistics 19,
    1948. Arvesen, Jackknifing U-statistics, Annals of Mathematical Statistics 40, 1969.
    """
    checked = check_batch(batch)
    value, standard_error = (np.full(checked.n_models, math.nan) for _ in range(2))
    for m, (start, stop) in enumerate(checked.ranges.tolist()):
        n = stop - start
        if n < 2:
            continue
        mean_to_others = _distance_sums(checked.points[start:stop].double()).cpu().numpy() / (n - 1)
        value[m] = mean_to_others.mean()
        if n > 2:
            squares = ((mean_to_others - value[m]) ** 2).sum()
            standard_error[m] = math.sqrt(4 * (n - 1) / n * squares) / (n - 2)
    return Estimate(value, standard_error)


def _distance_sums(points: Tensor) -> Tensor:
    """Sum of the distances of each point [n, D] to the others, [n]; each pair is worked out once, or twice in a block.

    Distances from a matrix product of the coordinates would cancel where points are far from the origin.
    """
    sums = points.new_zeros(len(points))
    step = max(1, min(_ROWS, _MAX_ELEMENTS // len(points)))
    for begin in range(0, len(points), step):
        block = points[begin : begin + step]
        distance = torch.cdist(block, points[begin:], compute_mode="donot_use_mm_for_euclid_dist")
        sums[begin:] += distance.sum(0)
        sums[begin : begin + step] += distance[:, len(block) :].sum(1)
    return sums
