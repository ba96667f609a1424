"""How well each quantity goes with memorization, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.analysis.arguments import as_numpy
from fastdens.analysis.figures._checks import interval, named, of_series, series, shaped
from fastdens.analysis.figures._style import (
    GREY,
    STYLES,
    dodge,
    draw_intervals,
    legend_above_data,
    name_ticks,
    remark_left_out,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_correlations(
    axes: Axes,
    layers: Sequence[str],
    correlations: Mapping[str, tuple[Any, Any, Any]],
    *,
    significant: Mapping[str, ArrayLike | Tensor] | None = None,
    ylabel: str = "Spearman's ρ",
) -> Axes:
    """Correlation of each predictor at each layer, with bars over its interval, and a line at zero.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    layers : sequence of str
        L names.
    correlations : mapping
        Name of a predictor, as "log-density", to (rho, low, high), three arrays [L]; at most seven predictors. A
        correlation of NaN is left out, and the figure says so.
    significant : mapping, optional
        Of every predictor [L], bool: whether its correlation is significant after correction for many layers. Markers
        are filled where it is and open elsewhere; without, all are filled.
    ylabel : str

    Raises
    ------
    ValueError
        If shapes or names disagree, or a low end is above the high one.
    """
    from matplotlib.lines import Line2D

    names, predictors = named(layers, "layers"), series(correlations, "correlations", len(STYLES))
    masks = of_series(significant, "significant", predictors)
    n_left_out = 0
    handles = []
    for name, style, shift in zip(predictors, STYLES, dodge(len(predictors)), strict=False):
        title, parts = f"correlations of {name!r}", tuple(predictors[name])
        if len(parts) != 3:
            raise ValueError(f"{title} have {len(parts)} parts, but three are drawn: pass (rho, low, high).")
        rho = shaped(parts[0], title, "L", L=len(names))
        ends = interval(parts[1:], f"interval of {name!r}", "L", L=len(names))
        filled = np.full(len(names), True)
        if name in masks:
            filled = shaped(as_numpy(masks[name]), f"significant of {name!r}", "L", L=len(names)).astype(bool)
        x, finite = np.arange(len(names)) + shift, np.isfinite(rho)
        n_left_out += int((~finite).sum())
        draw_intervals(axes, x, np.where(finite, ends, np.nan), color=style.colour, lw=1.3)
        for mask, face in ((filled & finite, style.colour), (~filled & finite, "white")):
            axes.plot(x[mask], rho[mask], style.marker, color=style.colour, mfc=face, ms=5.5, mew=1.2)
        handles.append(Line2D([], [], color=style.colour, marker=style.marker, ms=5.5, lw=1.3, label=name))
    if masks:
        open_marker: dict[str, Any] = {"color": GREY, "marker": "o", "mfc": "white", "mew": 1.2, "ms": 5.5, "ls": ""}
        handles.append(Line2D([], [], label="open: not significant", **open_marker))
    remark_left_out(axes, n_left_out, len(names) * len(predictors), "correlations")
    axes.axhline(0, color="black", lw=0.8, zorder=0)
    name_ticks(axes, names)
    axes.set_ylabel(ylabel)
    legend_above_data(axes, handles=handles)
    return axes
