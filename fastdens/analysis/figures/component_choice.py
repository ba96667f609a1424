"""Figures of the choice of the number of components."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

import fastdens.analysis.figures._checks as check
import fastdens.analysis.figures._style as style
from fastdens.kernels.options import check_choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES = {"bic": "BIC", "icl": "ICL", "held_out": "log-density held out"}


def plot_component_criterion(
    axes: Axes,
    n_components: ArrayLike | Tensor,
    values: Mapping[str, Any],
    criterion: str,
    *,
    standard_errors: Mapping[str, Any] | None = None,
) -> Axes:
    """How much worse than the best every number of components is, for some classes.

    Without errors, differences that span two decades have a logarithmic scale from a thousandth of the largest on.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    n_components : array or Tensor
        [R], ascending, as of :class:`fastdens.ComponentChoice`.
    values : mapping of str to array
        By name of a class, the criterion [R]; at most seven classes. Numbers of NaN are left out, with a remark. The
        best number of a class has a marker.
    criterion : {"bic", "icl", "held_out"}
        Of the last the highest value is best, of the others the lowest.
    standard_errors : mapping of str to array, optional
        By name of a class, one error [R] of each value, drawn as a bar.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If the shapes disagree, or there are no values or too many.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_component_criterion
    >>> axes = Figure(layout="constrained").subplots()
    >>> values = {"cat": [310.0, 250.0, 255.0], "dog": [400.0, 390.0, 380.0]}
    >>> plot_component_criterion(axes, [1, 2, 3], values, "bic") is axes
    True
    """
    from matplotlib.ticker import MaxNLocator

    name = _NAMES[check_choice("criterion", criterion, tuple(_NAMES))]
    numbers = check.shaped(n_components, "n_components", "R")
    classes = check.series(values, "values", len(style.STYLES))
    errors = check.of_series(standard_errors, "standard_errors", classes)
    sign = -1 if criterion == "held_out" else 1
    n_left_out = 0
    drawn = []
    for of_class, own, look, shift in style.styled(classes):
        loss = sign * check.shaped(own, f"values of {of_class!r}", "R", R=len(numbers))
        n_left_out += int((~np.isfinite(loss)).sum())
        loss = np.where(np.isfinite(loss), loss, np.nan)
        loss -= np.nanmin(loss, initial=np.inf)
        # Bars side by side, but lines without bars where they belong.
        x = numbers + (shift if errors else 0)
        bars = check.error_bars(loss, errors.get(of_class), f"standard_errors of {of_class!r}", "R")
        if bars is not None:
            style.draw_intervals(axes, x, bars, color=look.colour, lw=1)
        axes.plot(
            x, loss, color=look.colour, ls=look.line, lw=1.5, marker=look.marker, ms=6, mec="white", mew=0.3,
            markevery=np.flatnonzero(loss == 0)[:1].tolist(), label=of_class,
        )  # fmt: skip
        drawn.append(loss)
    style.remark_left_out(axes, n_left_out, len(numbers) * len(classes), "values")
    positive = np.concatenate(drawn)
    positive = positive[positive > 0]
    if not errors and positive.size and positive.max() >= 100 * positive.min():
        axes.set_yscale("symlog", linthresh=10.0 ** math.ceil(math.log10(positive.max() / 1000)))
    axes.set_xlabel("components")
    axes.set_ylabel(f"{name}, {'below' if sign < 0 else 'above'} the best")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    handles = axes.get_legend_handles_labels()[0]
    style.legend_above_data(
        axes, handles=handles if not errors else [*handles, style.explained_bar(style.STANDARD_ERROR)]
    )
    return axes


def plot_chosen_components(axes: Axes, best: ArrayLike | Tensor) -> Axes:
    """How many classes were given each number of components.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    best : array or Tensor
        [M], as of :class:`fastdens.ComponentChoice`. Classes of 0 components, which failed, are left out, with a
        remark.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If the shape is another one, or there is nothing to draw.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_chosen_components
    >>> axes = Figure(layout="constrained").subplots()
    >>> plot_chosen_components(axes, [1, 2, 2, 5]) is axes
    True
    """
    from matplotlib.ticker import MaxNLocator

    chosen = check.shaped(best, "best", "M").astype(np.int64)
    found = chosen[chosen > 0]
    if len(found) == 0:
        raise ValueError(f"best is 0 for all of {len(chosen)} classes, which failed: there is nothing to draw.")
    if len(found) < len(chosen):
        style.remark(axes, f"{len(chosen) - len(found):,} of {len(chosen):,} classes failed, left out")
    counts = np.bincount(found)
    axes.bar(np.arange(1, len(counts)), counts[1:], width=0.8, color=style.BLUE)
    axes.set_xlim(0.4, len(counts) - 0.4)
    axes.set_xlabel("components")
    axes.set_ylabel("classes")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return axes
