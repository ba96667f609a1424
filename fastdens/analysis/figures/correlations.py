"""Figure of the correlation of predictors with memorization at each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

import fastdens.analysis.figures._checks as check
import fastdens.analysis.figures._style as style

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
    """Correlation of each predictor at each layer.

    Bars show the intervals, and a line marks zero.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    layers : sequence of str
        L names.
    correlations : mapping of str to tuple
        Three arrays [L], (rho, low, high), of each predictor, at most seven. Correlations of NaN are left out, with a
        remark.
    significant : mapping of str to array, optional
        bool [L] of each predictor, whether its correlation is significant after correction for the number of layers.
        Markers are filled where it is, and open elsewhere. By default all are filled.
    ylabel : str
        Label of the vertical axis.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If shapes or names disagree, or a low end is above the high one.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_correlations
    >>> axes = Figure(layout="constrained").subplots()
    >>> rho = {"density": ([-0.1, -0.4], [-0.2, -0.5], [0.0, -0.3])}  # Estimates, low ends, high ends.
    >>> plot_correlations(axes, ["layer3", "layer4"], rho) is axes
    True
    """
    from matplotlib.lines import Line2D

    names = check.named(layers, "layers")
    predictors = check.series(correlations, "correlations", len(style.STYLES))
    masks = check.of_series(significant, "significant", predictors)
    n_left_out = 0
    handles = []
    for name, values, look, shift in style.styled(predictors):
        title, parts = f"correlations of {name!r}", tuple(values)
        if len(parts) != 3:
            raise ValueError(f"{title} have {len(parts)} parts, but three are drawn: pass (rho, low, high).")
        rho = check.shaped(parts[0], title, "L", L=len(names))
        ends = check.interval(parts[1:], f"interval of {name!r}", "L", L=len(names))
        filled = np.full(len(names), True)
        if name in masks:
            filled = check.shaped(masks[name], f"significant of {name!r}", "L", L=len(names)).astype(bool)
        x, finite = np.arange(len(names)) + shift, np.isfinite(rho)
        n_left_out += int((~finite).sum())
        style.draw_intervals(axes, x, np.where(finite, ends, np.nan), color=look.colour, lw=1.3)
        for mask, face in ((filled & finite, look.colour), (~filled & finite, "white")):
            axes.plot(x[mask], rho[mask], look.marker, color=look.colour, mfc=face, ms=5.5, mew=1.2)
        handles.append(Line2D([], [], color=look.colour, marker=look.marker, ms=5.5, lw=1.3, label=name))
    handles.append(style.explained_bar(style.INTERVAL))
    if masks:
        handles.append(
            Line2D(
                [], [], ls="", color=style.GREY, marker="o", mfc="white", mew=1.2, ms=5.5, label="open: not significant"
            )
        )
    style.remark_left_out(axes, n_left_out, len(names) * len(predictors), "correlations")
    axes.axhline(0, color="black", lw=0.8, zorder=0)
    style.name_ticks(axes, names)
    axes.set_ylabel(ylabel)
    style.legend_above_data(axes, handles=handles)
    return axes
