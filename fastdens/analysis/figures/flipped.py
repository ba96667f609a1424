"""Whether flipped labels are told by density."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.analysis.figures._checks import shaped
from fastdens.analysis.figures._style import BLUE, ORANGE, legend_above_data, remark_left_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_flipped(axes: Axes, log_density: ArrayLike | Tensor, flipped: ArrayLike | Tensor) -> Axes:
    """Share of examples by log-density, those of flipped label against the others.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    log_density : array or Tensor
        [N], in nats. The lowest 0.5 % are counted in the leftmost bin; values that are not finite are left out, and
        the figure says so.
    flipped : array or Tensor
        [N], bool.

    Raises
    ------
    ValueError
        If the shapes disagree, or no log-density is finite.
    """
    values = shaped(log_density, "log_density", "N")
    flips = shaped(flipped, "flipped", "N", N=len(values)).astype(bool)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError(f"none of the {len(values)} values of log_density is finite: there is nothing to draw.")
    remark_left_out(axes, int((~finite).sum()), len(values), "examples")
    values, flips = values[finite], flips[finite]
    # A few examples far out would squeeze all others into one bin: they are counted in the outermost bins.
    low, high = np.quantile(values, [0.005, 1])
    margin = 0.5 if low == high else 0
    bins = np.linspace(low - margin, high + margin, 31).tolist()
    looks: tuple[dict[str, Any], ...] = (
        {"color": BLUE, "alpha": 0.55, "label": "label kept"},
        {"color": ORANGE, "histtype": "step", "hatch": "////", "lw": 1.5, "label": "label flipped"},
    )
    for mask, look in zip((~flips, flips), looks, strict=True):
        if mask.any():
            axes.hist(values[mask].clip(low, high), bins, weights=np.full(mask.sum(), 1 / mask.sum()), **look)
    axes.set_xlabel("log-density under the given label (nats)")
    axes.set_ylabel("share of examples")
    legend_above_data(axes)
    return axes
