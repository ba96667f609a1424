"""Figures of memorization and robustness by density bin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

import fastdens.analysis.figures._checks as check
import fastdens.analysis.figures._style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_CURVES, _MOST_NAMED = 100, 12


def plot_by_bin(
    axes: Axes,
    values: ArrayLike | Tensor | Mapping[str, ArrayLike | Tensor],
    ylabel: str,
    *,
    intervals: Any = None,
    errors: Any = None,
) -> Axes:
    """A quantity in each density bin.

    It may be a memorization score, a certified radius, or an accuracy under attack.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    values : array, Tensor or mapping
        [B], one value for each bin, from the least dense to the most; or a mapping of at most seven series by name,
        such as "dense mode". Values of NaN are left out, with a remark.
    ylabel : str
        The quantity and its unit.
    intervals : (low, high) or mapping, optional
        Two arrays [B], or a mapping of them for every series.
    errors : array, Tensor or mapping, optional
        Standard errors [B], or a mapping of them for every series, instead of intervals. Bars extend one of them to
        each side.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If shapes or names disagree, an error is negative, a low end is above the high one, or both intervals and errors
        are given.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_by_bin
    >>> axes = Figure(layout="constrained").subplots()
    >>> plot_by_bin(axes, [0.4, 0.3, 0.1], "memorization score", errors=[0.05, 0.04, 0.02]).get_ylabel()
    'memorization score'
    """
    from matplotlib.ticker import MaxNLocator

    if intervals is not None and errors is not None:
        raise ValueError("intervals and errors are both given, but a bar shows one of them: leave one out.")
    several = isinstance(values, Mapping)
    if isinstance(values, Mapping):
        lines = check.series(values, "values", len(style.STYLES))
        own_intervals = check.of_series(intervals, "intervals", lines)
        own_errors = check.of_series(errors, "errors", lines)
    else:
        lines, own_intervals, own_errors = {"": values}, {"": intervals}, {"": errors}
    n_bins = len(check.shaped(next(iter(lines.values())), "values", "B"))
    n_left_out = 0
    for name, given, look, shift in style.styled(lines):
        of = f" of {name!r}" if several else ""
        y = check.shaped(given, f"values{of}", "B", B=n_bins)
        n_left_out += int((~np.isfinite(y)).sum())
        ends = check.error_bars(y, own_errors.get(name), f"errors{of}", "B")
        if own_intervals.get(name) is not None:
            ends = check.interval(own_intervals[name], f"intervals{of}", "B", B=n_bins)
        x = np.arange(1, n_bins + 1) + shift
        if ends is not None:
            style.draw_intervals(axes, x, np.where(np.isfinite(y), ends, np.nan), color=look.colour, lw=1.2)
        axes.plot(
            x, np.where(np.isfinite(y), y, np.nan), color=look.colour, ls=look.line, lw=1, marker=look.marker,
            ms=5 if n_bins <= 30 else 3.5, mec="white", mew=0.3, label=name if several else None,
        )  # fmt: skip
    if n_left_out:
        style.remark(axes, f"{n_left_out} without a value")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, n_bins + 0.5)
    axes.set_xlabel("density bin, from least to most dense")
    axes.set_ylabel(ylabel)
    handles = axes.get_legend_handles_labels()[0]
    if intervals is not None or errors is not None:
        handles.append(style.explained_bar(style.STANDARD_ERROR if intervals is None else style.INTERVAL))
    if handles:
        style.legend_above_data(axes, handles=handles)
    return axes


def plot_certified_accuracy(axes: Axes, radii: ArrayLike | Tensor, accuracy: Mapping[str, ArrayLike | Tensor]) -> Axes:
    """Certified accuracy by radius, one curve for each bin.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    radii : array or Tensor
        [R], l2 radii in increasing order.
    accuracy : mapping of str to array
        Certified accuracy [R] of each bin, between 0 and 1. More than seven bins are coloured from dark to bright, and
        the legend names some of them.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If shapes disagree, the radii do not increase, or an accuracy is not between 0 and 1.

    References
    ----------
    Cohen, Rosenfeld & Kolter, Certified adversarial robustness via randomized smoothing, ICML 2019.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_certified_accuracy
    >>> axes = Figure(layout="constrained").subplots()
    >>> bins = {"least dense": [0.6, 0.3, 0.1], "most dense": [0.9, 0.7, 0.4]}
    >>> plot_certified_accuracy(axes, [0.0, 0.5, 1.0], bins) is axes
    True
    """
    from matplotlib import colormaps

    x, curves = check.shaped(radii, "radii", "R"), check.series(accuracy, "accuracy", _MOST_CURVES)
    if not (np.diff(x) > 0).all():
        raise ValueError("radii do not increase: sort them, and the accuracies with them.")
    n = len(curves)
    styled = [(look.colour, look.line) for look in style.STYLES]
    if n > len(style.STYLES):
        shades = colormaps["viridis"](np.linspace(0, 0.92, n))
        styled = [(shade, style.STYLES[i % 4].line) for i, shade in enumerate(shades)]
    shown = set(np.linspace(0, n - 1, min(n, _MOST_NAMED)).round().astype(int).tolist())
    for i, (name, (colour, line)) in enumerate(zip(curves, styled, strict=False)):
        title = f"accuracy of {name!r}"
        y = check.fractions(curves[name], title, "R", R=len(x))
        marker = "o" if len(x) == 1 else None
        axes.plot(x, y, color=colour, ls=line, lw=1.5, marker=marker, label=name if i in shown else None)
    style.fraction_axis(axes)
    axes.set_xlabel(r"$\ell_2$ radius")
    axes.set_ylabel("certified accuracy")
    style.legend_above_data(axes)
    return axes
