"""Figure of the class densities of one analysis against those of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

import fastdens.analysis.figures._checks as check
import fastdens.analysis.figures._style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_paired_classes(
    axes: Axes,
    a: ArrayLike | Tensor,
    b: ArrayLike | Tensor,
    class_names: Sequence[str],
    *,
    a_interval: Any = None,
    b_interval: Any = None,
    changed: ArrayLike | Tensor | None = None,
) -> Axes:
    """Mean log-density of each class in B against that in A.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    a, b : array or Tensor
        [M], in nats. Classes with a value that is not finite are left out, with a remark.
    class_names : sequence of str
        M names; drawn up to 30 classes, and those of classes that changed.
    a_interval, b_interval : (low, high), optional
        Two arrays [M]: an interval of each value, drawn as a bar.
    changed : array or Tensor of bool, optional
        [M], classes that are in another group in B; drawn in a colour and with a marker of their own.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If the shapes disagree or the low end of an interval is above the high one.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_paired_classes
    >>> axes = Figure(layout="constrained").subplots()
    >>> plot_paired_classes(axes, [-60.0, -50.0], [-58.0, -40.0], ["cat", "dog"]) is axes
    True
    """
    names = check.named(class_names, "class_names")
    n_classes = len(names)
    x, y = check.shaped(a, "a", "M", M=n_classes), check.shaped(b, "b", "M", M=n_classes)
    x_ends, y_ends = (
        np.full((2, n_classes), np.nan) if ends is None else check.interval(ends, name, "M", M=n_classes)
        for ends, name in ((a_interval, "a_interval"), (b_interval, "b_interval"))
    )
    moved = np.zeros(n_classes, bool) if changed is None else check.fractions(changed, "changed", "M", M=n_classes) > 0
    drawn = np.isfinite(x) & np.isfinite(y)
    style.remark_left_out(axes, int((~drawn).sum()), n_classes, "classes")
    few = n_classes <= style.MANY_CLASSES
    handles = []
    for own, label, colour, marker in (
        (drawn & ~moved, "class", style.BLUE, "o"),
        (drawn & moved, "class in another group", style.ORANGE, "s"),
    ):
        if not own.any():
            continue
        bars: dict[str, Any] = {"color": colour, "lw": 1 if few else 0.6, "alpha": 0.6}
        style.draw_intervals(axes, x[own], y_ends[:, own], **bars)
        shown = own & np.isfinite(x_ends).all(0)
        axes.hlines(y[shown], *x_ends[:, shown], **bars)
        handles += axes.plot(x[own], y[own], marker, color=colour, ms=5 if few else 3.5, mew=0, label=label)
    for c in np.flatnonzero(drawn & (moved | few)):
        axes.annotate(
            style.shortened(names[c], style.LONGEST_NAME), (x[c], y[c]), (4, 3),
            textcoords="offset points", fontsize=style.SMALL,
        )  # fmt: skip
    axes.set_xlabel("mean log-density in A (nats)")
    axes.set_ylabel("mean log-density in B (nats)")
    axes.locator_params(nbins=6)
    if len(handles) > 1:
        style.legend_above_data(axes, handles=handles)
    return axes
