"""Figure of the log-density of examples with a flipped label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

import fastdens.analysis.figures._checks as check
import fastdens.analysis.figures._style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_flipped(axes: Axes, log_density: ArrayLike | Tensor, flipped: ArrayLike | Tensor) -> Axes:
    """Histograms of the log-density of examples with a flipped label, and of the others.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    log_density : array or Tensor
        [N], in nats. The lowest 0.5 % are counted in the leftmost bin; values that are not finite are left out, with a
        remark.
    flipped : array or Tensor
        [N], bool.

    Raises
    ------
    ValueError
        If the shapes disagree, or no log-density is finite.
    """
    values = check.shaped(log_density, "log_density", "N")
    flips = check.shaped(flipped, "flipped", "N", N=len(values)).astype(bool)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError(f"none of the {len(values)} values of log_density is finite: there is nothing to draw.")
    style.remark_left_out(axes, int((~finite).sum()), len(values), "examples")
    values, flips = values[finite], flips[finite]
    # A few outliers would squeeze all other examples into one bin: they are counted in the leftmost bin.
    low, high = np.quantile(values, [0.005, 1])
    margin = 0.5 if low == high else 0
    bins = np.linspace(low - margin, high + margin, 31).tolist()
    looks: tuple[dict[str, Any], ...] = (
        {"color": style.BLUE, "alpha": 0.55, "label": "label kept"},
        {"color": style.ORANGE, "histtype": "step", "hatch": "////", "lw": 1.5, "label": "label flipped"},
    )
    for mask, look in zip((~flips, flips), looks, strict=True):
        if mask.any():
            axes.hist(values[mask].clip(low, high), bins, weights=np.full(mask.sum(), 1 / mask.sum()), **look)
    axes.set_xlabel("log-density under the given label (nats)")
    axes.set_ylabel("share of examples")
    style.legend_above_data(axes)
    return axes
