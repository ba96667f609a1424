"""Where in the network the label arises: scores of the generative classification, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.analysis.figures._checks import error_bars, fractions, named, of_series, series, shaped
from fastdens.analysis.figures._style import (
    BLUE,
    SMALL,
    STYLES,
    draw_intervals,
    fraction_axis,
    legend_above_data,
    name_ticks,
    spacing,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_scores(axes: Axes, layers: Sequence[str], scores: ArrayLike | Tensor, reference: float | None) -> Axes:
    """Held-out score of the generative classification at each layer, beside that of the network.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    layers : sequence of str
        L names.
    scores : array or Tensor
        [L], between 0 and 1; a layer whose score is NaN has no bar.
    reference : float or None
        The network's own, if it is known.

    Raises
    ------
    ValueError
        If the shapes disagree or a score is not between 0 and 1.
    """
    names = named(layers, "layers")
    values = fractions(shaped(scores, "scores", "L", L=len(names)), "scores")
    axes.bar(range(len(names)), values, color=BLUE, width=0.6)
    name_ticks(axes, names)
    fraction_axis(axes)
    axes.set_ylabel("held-out accuracy")
    if reference is not None:
        axes.axhline(reference, color="black", ls="--", lw=1, label=f"the network: {reference:.3f}")
        legend_above_data(axes)
    # In the middle of the bar, where the line of a good network does not pass; above it where the bar is too short.
    upright = 0.6 * spacing(axes, len(names)) < 2.8 * SMALL
    length = (2.8 if upright else 1.2) * SMALL
    unit = spacing(axes, 1, "y") / axes.get_ylim()[1]
    for at, value in enumerate(values):
        if np.isfinite(value):
            inside = value * unit > 1.2 * length
            axes.annotate(
                f"{value:.3f}", (at, value / 2 if inside else value), (0, 0 if inside else 2), ha="center",
                textcoords="offset points", va="center" if inside else "bottom", fontsize=SMALL,
                color="white" if inside else "black", rotation=90 if upright else 0,
            )  # fmt: skip
    return axes


def plot_subset_scores(
    axes: Axes,
    layers: Sequence[str],
    scores: Mapping[str, ArrayLike | Tensor],
    errors: Mapping[str, ArrayLike | Tensor] | None = None,
    *,
    ylabel: str = "held-out F1",
) -> Axes:
    """Score of the generative classification at each layer, one bar a subset of examples.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    layers : sequence of str
        L names.
    scores : mapping
        Name of a subset, as "most memorized", to its scores [L] between 0 and 1; at most seven subsets. A score of NaN
        has no bar.
    errors : mapping, optional
        Standard errors [L] of every subset: bars of one of them to each side.
    ylabel : str

    Raises
    ------
    ValueError
        If shapes or names disagree, a score is not between 0 and 1, or an error is negative.
    """
    names, subsets = named(layers, "layers"), series(scores, "scores", len(STYLES))
    own_errors = of_series(errors, "errors", subsets)
    width = 0.8 / len(subsets)
    for i, (subset, style) in enumerate(zip(subsets, STYLES, strict=False)):
        title = f"scores of {subset!r}"
        values = fractions(shaped(subsets[subset], title, "L", L=len(names)), title)
        ends = error_bars(values, own_errors.get(subset), f"errors of {subset!r}", "L")
        x = np.arange(len(names)) + (i - (len(subsets) - 1) / 2) * width
        axes.bar(x, values, 0.92 * width, color=style.colour, hatch=style.hatch, edgecolor="white", lw=0, label=subset)
        if ends is not None:
            draw_intervals(axes, x, ends, color="black", lw=1)
    name_ticks(axes, names)
    fraction_axis(axes)
    axes.set_ylabel(ylabel)
    legend_above_data(axes)
    return axes
