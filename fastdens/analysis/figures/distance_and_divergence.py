"""How a class's density goes with its extent and with its departure from a Gaussian."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.analysis.figures._checks import error_bars, shaped
from fastdens.analysis.figures._style import (
    BLUE,
    MANY_CLASSES,
    MANY_POINTS,
    ORANGE,
    draw_intervals,
    legend_above_data,
    make_room,
    remark_left_out,
)

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
    """Mean distance between the examples of each class (left axis) and relative entropy of its density to a Gaussian
    (right axis), against its mean log-density.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    log_density, distance, relative_entropy : array or Tensor
        [M], one a class, in nats, in the units of the representations, in nats. A class with a value that is not finite
        is left out, and the figure says so.
    log_density_error, distance_error, relative_entropy_error : array or Tensor, optional
        [M]: bars of one of these to each side.

    Returns
    -------
    (matplotlib.axes.Axes, matplotlib.axes.Axes)
        The axes given and their twin, of the relative entropy.

    Raises
    ------
    ValueError
        If the shapes disagree or an error is negative.

    References
    ----------
    Jamroz & Kurdziel, AAAI 2023.
    """
    x = shaped(log_density, "log_density", "M")
    x_ends = error_bars(x, log_density_error, "log_density_error", "M")
    drawn = np.isfinite(x)
    y_of = {}
    for name, values, error in (
        ("distance", distance, distance_error),
        ("relative_entropy", relative_entropy, relative_entropy_error),
    ):
        y = shaped(values, name, "M", M=len(x))
        y_of[name] = y, error_bars(y, error, f"{name}_error", "M")
        drawn &= np.isfinite(y)
    remark_left_out(axes, int((~drawn).sum()), len(x), "classes")

    twin = axes.twinx()
    few = len(x) <= MANY_CLASSES
    handles = []
    for own, name, label, colour, marker in (
        (axes, "distance", "mean pairwise distance", BLUE, "o"),
        (twin, "relative_entropy", "relative entropy (nats)", ORANGE, "s"),
    ):
        y, ends = y_of[name]
        bars: dict[str, Any] = {"color": colour, "lw": 1 if few else 0.6, "alpha": 0.7}
        if ends is not None:
            draw_intervals(own, x[drawn], ends[:, drawn], **bars)
        if x_ends is not None:
            shown = drawn & np.isfinite(x_ends).all(0)
            own.hlines(y[shown], *x_ends[:, shown], rasterized=int(shown.sum()) > MANY_POINTS, **bars)
        handles += own.plot(
            x[drawn], y[drawn], marker, color=colour, ms=5 if few else 3.5, mec="white", mew=0.3,
            label=label.removesuffix(" (nats)"), rasterized=int(drawn.sum()) > MANY_POINTS,
        )  # fmt: skip
        own.set_ylabel(label, color=colour)
        own.tick_params(axis="y", colors=colour)
    # Values close together have long labels.
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("mean log-density of the class (nats)")
    if drawn.sum() == 1:
        # Each axis puts its only point in its middle, one on the other.
        make_room(twin, 0.4)
    legend_above_data(axes, twin, handles=handles)
    return axes, twin
