"""Figures of the scores of the generative classification at each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

import fastdens.analysis.figures._checks as check
import fastdens.analysis.figures._style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_scores(axes: Axes, layers: Sequence[str], scores: ArrayLike | Tensor, reference: float | None) -> Axes:
    """Held-out accuracy of the generative classification at each layer, and that of the network.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    layers : sequence of str
        L names.
    scores : array or Tensor
        [L], between 0 and 1; a layer whose score is NaN has no bar.
    reference : float or None
        Accuracy of the network, if known.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If the shapes disagree or a score is not between 0 and 1.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_scores
    >>> axes = Figure(layout="constrained").subplots()
    >>> plot_scores(axes, ["layer3", "layer4"], [0.6, 0.9], reference=0.92) is axes
    True
    """
    names = check.named(layers, "layers")
    values = check.fractions(scores, "scores", "L", L=len(names))
    axes.bar(range(len(names)), values, color=style.BLUE, width=0.6)
    style.name_ticks(axes, names)
    style.fraction_axis(axes)
    axes.set_ylabel("held-out accuracy")
    if reference is not None:
        axes.axhline(reference, color="black", ls="--", lw=1, label=f"the network: {reference:.3f}")
        style.legend_above_data(axes)
    # Numbers stand in the middle of their bar, away from the line of a good network, or above a bar that is too short.
    upright = 0.6 * style.spacing(axes, len(names)) < 2.8 * style.SMALL
    length = (2.8 if upright else 1.2) * style.SMALL
    unit = style.spacing(axes, 1, "y") / axes.get_ylim()[1]
    for at, value in enumerate(values):
        if np.isfinite(value):
            inside = value * unit > 1.2 * length
            axes.annotate(
                f"{value:.3f}", (at, value / 2 if inside else value), (0, 0 if inside else 2), ha="center",
                textcoords="offset points", va="center" if inside else "bottom", fontsize=style.SMALL,
                color="white" if inside else "black", rotation=90 if upright else 0,
            )  # fmt: skip
    return axes


def plot_subset_scores(
    axes: Axes,
    layers: Sequence[str],
    scores: Mapping[str, ArrayLike | Tensor],
    errors: Mapping[str, ArrayLike | Tensor] | None = None,
    *,
    bars: str = style.STANDARD_ERROR,
    ylabel: str = "held-out F1",
) -> Axes:
    """Score of the generative classification at each layer, with one bar for each subset of examples.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    layers : sequence of str
        L names.
    scores, errors : mapping of str to array
        By name of a subset, such as "most memorized", its scores [L] between 0 and 1, and the lengths of their error
        bars [L], which are optional. At most seven subsets; a score of NaN has no bar.
    bars : str
        What the legend calls the error bars.
    ylabel : str
        Label of the vertical axis.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If shapes or names disagree, a score is not between 0 and 1, or an error is negative.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_subset_scores
    >>> axes = Figure(layout="constrained").subplots()
    >>> scores = {"most memorized": [0.3, 0.5], "least memorized": [0.7, 0.95]}
    >>> plot_subset_scores(axes, ["layer3", "layer4"], scores).get_ylabel()
    'held-out F1'
    """
    names, subsets = check.named(layers, "layers"), check.series(scores, "scores", len(style.STYLES))
    own_errors = check.of_series(errors, "errors", subsets)
    width = 0.8 / len(subsets)
    for i, (subset, look) in enumerate(zip(subsets, style.STYLES, strict=False)):
        title = f"scores of {subset!r}"
        values = check.fractions(subsets[subset], title, "L", L=len(names))
        ends = check.error_bars(values, own_errors.get(subset), f"errors of {subset!r}", "L")
        x = np.arange(len(names)) + (i - (len(subsets) - 1) / 2) * width
        axes.bar(x, values, 0.92 * width, color=look.colour, hatch=look.hatch, edgecolor="white", lw=0, label=subset)
        if ends is not None:
            style.draw_intervals(axes, x, ends, color="black", lw=1)
    style.name_ticks(axes, names)
    style.fraction_axis(axes)
    axes.set_ylabel(ylabel)
    handles = axes.get_legend_handles_labels()[0]
    if own_errors:
        handles.append(style.explained_bar(bars, color="black"))
    style.legend_above_data(axes, handles=handles)
    return axes
