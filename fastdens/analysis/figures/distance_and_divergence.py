"""Figure of pairwise distance and relative entropy against the log-density of the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

import fastdens.analysis.figures._checks as check
import fastdens.analysis.figures._style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_distance_and_divergence(
    axes: Axes,
    log_density: ArrayLike | Tensor,
    distance: ArrayLike | Tensor,
    relative_entropy: ArrayLike | Tensor,
    *,
    log_density_error: ArrayLike | Tensor | None = None,
    distance_error: ArrayLike | Tensor | None = None,
    relative_entropy_error: ArrayLike | Tensor | None = None,
) -> tuple[Axes, Axes]:
    """Mean pairwise distance (left axis) and relative entropy (right axis) of each class against its mean log-density.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    log_density, distance, relative_entropy : array or Tensor
        [M]; in nats, in the units of the representations, and in nats. Classes with a value that is not finite are left
        out, with a remark.
    log_density_error, distance_error, relative_entropy_error : array or Tensor, optional
        Standard errors [M]. Bars extend one of them to each side.

    Returns
    -------
    (matplotlib.axes.Axes, matplotlib.axes.Axes)
        The given axes and their twin, that of the relative entropy.

    Raises
    ------
    ValueError
        If the shapes disagree or an error is negative.

    References
    ----------
    Jamroz & Kurdziel, AAAI 2023.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_distance_and_divergence
    >>> axes = Figure(layout="constrained").subplots()
    >>> left, right = plot_distance_and_divergence(axes, [-60.0, -50.0, -40.0], [9.0, 8.0, 6.0], [3.0, 2.5, 1.0])
    >>> left is axes
    True
    """
    x = check.shaped(log_density, "log_density", "M")
    x_ends = check.error_bars(x, log_density_error, "log_density_error", "M")
    drawn = np.isfinite(x)
    y_of = {}
    for name, values, error in (
        ("distance", distance, distance_error),
        ("relative_entropy", relative_entropy, relative_entropy_error),
    ):
        y = check.shaped(values, name, "M", M=len(x))
        y_of[name] = y, check.error_bars(y, error, f"{name}_error", "M")
        drawn &= np.isfinite(y)
    style.remark_left_out(axes, int((~drawn).sum()), len(x), "classes")

    twin = axes.twinx()
    few = len(x) <= style.MANY_CLASSES
    handles = []
    for own, name, label, colour, marker in (
        (axes, "distance", "mean pairwise distance", style.BLUE, "o"),
        (twin, "relative_entropy", "relative entropy (nats)", style.ORANGE, "s"),
    ):
        y, ends = y_of[name]
        bars: dict[str, Any] = {"color": colour, "lw": 1 if few else 0.6, "alpha": 0.7}
        if ends is not None:
            style.draw_intervals(own, x[drawn], ends[:, drawn], **bars)
        if x_ends is not None:
            shown = drawn & np.isfinite(x_ends).all(0)
            own.hlines(y[shown], *x_ends[:, shown], rasterized=int(shown.sum()) > style.MANY_POINTS, **bars)
        handles += own.plot(
            x[drawn], y[drawn], marker, color=colour, ms=5 if few else 3.5, mec="white", mew=0.3,
            label=label.removesuffix(" (nats)"), rasterized=int(drawn.sum()) > style.MANY_POINTS,
        )  # fmt: skip
        own.set_ylabel(label, color=colour)
        own.tick_params(axis="y", colors=colour)
    if any(ends is not None for ends in (x_ends, *(ends for _, ends in y_of.values()))):
        handles.append(style.explained_bar(style.STANDARD_ERROR))
    # Close values have long labels.
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("mean log-density of the class (nats)")
    if drawn.sum() == 1:
        # Each axis centres its only point; without room they would coincide.
        style.make_room(twin, 0.4)
    style.legend_above_data(axes, twin, handles=handles)
    return axes, twin
