"""A point amid the points of each model, to centre them on."""

from __future__ import annotations

import torch
from fastdens.kernels.layout import Layout
from torch import Tensor

# The median of so many points is a good enough centre; an odd number, so that it is a coordinate of one of them.
_MOST_POINTS = 31


def central_points(points: Tensor, layout: Layout) -> Tensor:
    """The coordinate-wise median of at most 31 points of each model, evenly spread over its rows.

    Differences from it are as precise as the spread of most points allows, wherever these lie and however far a few of
    them have gone astray; those from a mean, or from a point that is one of the few, are not.

    Parameters
    ----------
    points : Tensor
        [N, D], sorted by model.
    layout : Layout
        Rows of each model, none empty.

    Returns
    -------
    Tensor
        [M, D], in the dtype of the points.

    References
    ----------
    Rousseeuw & Leroy, Robust Regression and Outlier Detection, 1987, section 4.1 (breakdown of the median).
    """
    at = torch.arange(_MOST_POINTS, device=points.device)
    rows = layout.ranges[:, :1] + at * layout.sizes[:, None] // _MOST_POINTS
    median: Tensor = points[rows].median(1).values
    return median
