"""Figure of the mean log-density of each class, and of the line between the groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import fastdens.analysis.figures._checks as check
import fastdens.analysis.figures._style as style
from fastdens.analysis.class_log_density import ClassLogDensity
from fastdens.analysis.modes import Modes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GROUPS = (("sparse", style.ORANGE, "s"), ("dense", style.BLUE, "o"))


def plot_class_log_density(
    axes: Axes,
    density: ClassLogDensity,
    modes: Modes,
    class_names: Sequence[str],
    *,
    mean_interval: Any = None,
    line_interval: Any = None,
    legend: bool = True,
) -> Axes:
    """Mean log-density of each class, sorted, bars of one standard deviation over its examples, and the line.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    density : ClassLogDensity
        Of M classes, in nats. Classes whose mean is not finite are left out, with a remark.
    modes : Modes
        Groups of the same classes.
    class_names : sequence of str
        M names; drawn up to 30 classes.
    mean_interval : (low, high), optional
        Two arrays [M]: an interval of each class mean, drawn as a broad bar.
    line_interval : (low, high), optional
        Two numbers: an interval of the line, drawn as a band if there are two groups.
    legend : bool
        Whether to draw a legend.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If the shapes disagree, no class mean is finite, or the low end of an interval is above the high one.

    References
    ----------
    Jamroz & Kurdziel, AAAI 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis import class_log_density, find_modes
    >>> from fastdens.analysis.figures import plot_class_log_density
    >>> labels = np.repeat(np.arange(10), 20)
    >>> density = class_log_density(np.where(labels < 5, -60.0, -40.0) + np.sin(np.arange(200)), labels)
    >>> axes = Figure(layout="constrained").subplots()
    >>> plot_class_log_density(axes, density, find_modes(density.mean), [f"class {c}" for c in range(10)]) is axes
    True
    """
    names = check.named(class_names, "class_names")
    n_classes = len(names)
    mean = check.shaped(density.mean, "density.mean", "M", M=n_classes)
    bars = check.error_bars(mean, density.std, "density.std", "M")
    group = check.shaped(modes.group, "modes.group", "M", M=n_classes)
    means = None if mean_interval is None else check.interval(mean_interval, "mean_interval", "M", M=n_classes)
    line = None if line_interval is None else check.interval(line_interval, "line_interval", "")
    assert bars is not None

    order = np.argsort(mean)[: np.isfinite(mean).sum()]
    if not len(order):
        raise ValueError(f"none of the {n_classes} class means is finite: there is nothing to draw.")
    style.remark_left_out(axes, n_classes - len(order), n_classes, "class means")
    position, room = np.arange(len(order)), style.spacing(axes, len(order))
    thickness, size = np.clip(room / 5, 0.6, 1.2), np.clip(room / 1.5, 3, 5)
    # Broad bars would hide thin ones: they come first, in a lighter shade.
    for g, (name, colour, marker) in enumerate(_GROUPS):
        own = group[order] == g
        if modes.n_groups == 1:
            own, colour, marker, name = np.full(len(order), g == 1), style.GREY, "o", "class mean"
        if not own.any():
            continue
        if means is not None:
            style.draw_intervals(axes, position[own], means[:, order[own]], color=colour, alpha=0.45, lw=1.6 * size)
        style.draw_intervals(axes, position[own], bars[:, order[own]], color=colour, lw=thickness)
        label = f"{name} ({own.sum()} {'class' if own.sum() == 1 else 'classes'})" if modes.n_groups == 2 else name
        axes.plot(position[own], mean[order[own]], marker, color=colour, ms=size, mew=0, label=label)
    if modes.n_groups == 2:
        axes.axhline(modes.line, color="black", ls="--", lw=1, label=f"line at {modes.line:.4g}".replace("-", "−"))
        if line is not None and np.isfinite(line).all():
            axes.axhspan(line[0], line[1], color="black", alpha=0.12, lw=0, label="interval of the line")
    else:
        style.remark(axes, "one group")

    if len(order) <= style.MANY_CLASSES:
        style.name_ticks(axes, [names[c] for c in order])
        axes.set_xlabel("class")
    else:
        axes.set_xlabel("class, sorted by mean log-density")
    axes.set_ylabel("log-density (nats)")
    if legend:
        handles = [*axes.get_legend_handles_labels()[0], style.explained_bar("± 1 SD of its examples")]
        if means is not None:
            handles.append(style.explained_bar("interval of the mean", alpha=0.45, lw=6))
        style.legend_above_data(axes, handles=handles)
    return axes
