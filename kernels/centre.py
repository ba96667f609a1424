"""A point amid the points of each model, to centre them on."""

from __future__ import annotations

import numpy as np
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
    chosen = points.index_select(0, rows.flatten()).reshape(*rows.shape, points.shape[1])
    return _medians(chosen.mT)


def _medians(values: Tensor) -> Tensor:
    """Medians over the last axis, of an odd number of values; NaN where there is one."""
    if values.device.type != "cpu":
        return values.median(-1).values
    # Sorting whole rows in vectors, numpy is an order of magnitude faster than a selection.
    ordered = torch.from_numpy(np.sort(values.detach().numpy()))
    # NaN comes last.
    return ordered[..., values.shape[-1] // 2].where(ordered[..., -1] == ordered[..., -1], torch.nan)
