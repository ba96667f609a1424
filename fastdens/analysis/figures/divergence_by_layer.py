"""Figure of the divergence between classes at each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import fastdens.analysis.figures._checks as check
import fastdens.analysis.figures._style as style
from fastdens.analysis.arguments import as_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_divergence_by_layer(
    axes: Axes,
    layers: Sequence[str],
    values: Mapping[str, Any],
    *,
    bars: str = "from lower to upper quartile",
    ylabel: str = "KL between classes (nats)",
) -> Axes:
    """Divergence between pairs of classes at each layer: median and quartiles of each subset of examples.

    The scale is logarithmic if all medians are positive and the drawn values span two decades or more.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    layers : sequence of str
        L names.
    values : mapping
        By name of a subset, such as "most memorized", its values [L, P] for P pairs, or a tuple (median, lower
        quartile, upper quartile), or another middle with the ends of its band, of three arrays [L]; at most seven
        subsets. Values that are not finite are left out, with a remark.
    bars : str
        What the legend calls the band.
    ylabel : str
        Label of the vertical axis.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If the shapes disagree, or the low end of a band is above the high one.

    References
    ----------
    Jamroz & Kurdziel, AAAI 2023.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_divergence_by_layer
    >>> axes = Figure(layout="constrained").subplots()
    >>> values = {"most memorized": [[5.0, 7.0, 9.0], [20.0, 30.0, 50.0]]}  # Three pairs at each of two layers.
    >>> plot_divergence_by_layer(axes, ["layer3", "layer4"], values).get_ylabel()
    'KL between classes (nats)'
    """
    names, subsets = check.named(layers, "layers"), check.series(values, "values", len(style.STYLES))
    n_left_out = n_values = 0
    drawn = []
    for subset, own, look, shift in style.styled(subsets):
        middle, ends, given = _summary(own, f"values of {subset!r}", len(names))
        n_left_out += int((~np.isfinite(given)).sum())
        n_values += given.size
        # The band needs neighbours; the bars show a single layer too.
        x = np.arange(len(names)) + shift
        axes.fill_between(x, *ends, color=look.colour, alpha=0.15, lw=0)
        style.draw_intervals(axes, x, ends, color=look.colour, lw=1.5)
        axes.plot(
            x, middle, color=look.colour, ls=look.line, lw=1.5, marker=look.marker, ms=5, mec="white", mew=0.3,
            label=subset,
        )  # fmt: skip
        drawn.append(np.concatenate([middle[None], ends]))
    style.remark_left_out(axes, n_left_out, n_values, "values")
    if _spans_decades(np.stack(drawn)):
        axes.set_yscale("log")
    style.name_ticks(axes, names)
    axes.set_ylabel(ylabel)
    handles = [*axes.get_legend_handles_labels()[0], style.explained_bar(bars)]
    style.legend_above_data(axes, handles=handles)
    return axes


def _summary(given: Any, name: str, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Median [L] and quartiles [2, L] of the finite values of each layer, and all values."""
    if isinstance(given, tuple) and len(given) == 3 and all(as_numpy(part).ndim == 1 for part in given):
        middle = check.shaped(given[0], f"median of {name}", "L", L=n)
        ends = check.interval(given[1:], name, "L", L=n)
        parts = np.concatenate([middle[None], ends])
        parts_drawn = np.where(np.isfinite(parts), parts, np.nan)
        return parts_drawn[0], parts_drawn[1:], parts
    samples = check.shaped(given, name, "LP", L=n)
    quartiles = np.full((3, n), np.nan)
    for at, layer in enumerate(samples):
        finite = layer[np.isfinite(layer)]
        if finite.size:
            quartiles[:, at] = np.quantile(finite, [0.5, 0.25, 0.75])
    return quartiles[0], quartiles[1:], samples


def _spans_decades(drawn: NDArray[np.float64]) -> bool:
    """Whether medians, low and high ends [series, 3, L] need a logarithmic scale."""
    positive = drawn[drawn > 0]
    return bool(positive.size and not (drawn[:, 0] <= 0).any() and positive.max() >= 100 * positive.min())
