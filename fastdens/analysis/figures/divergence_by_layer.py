"""How far apart the densities of classes are, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis.arguments import as_numpy
from fastdens.analysis.figures._checks import interval, named, series, shaped
from fastdens.analysis.figures._style import (
    STYLES,
    dodge,
    draw_intervals,
    legend_above_data,
    name_ticks,
    remark_left_out,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_divergence_by_layer(
    axes: Axes, layers: Sequence[str], values: Mapping[str, Any], *, ylabel: str = "KL between classes (nats)"
) -> Axes:
    """Divergence between pairs of classes at each layer, one line a subset: medians, and a band between quartiles.

    The scale is logarithmic where all medians are positive and what is drawn spans two decades or more.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    layers : sequence of str
        L names.
    values : mapping
        Name of a subset, as "most memorized", to its values [L, P] of P pairs, or to a tuple (median, low, high) of
        three arrays [L]; at most seven subsets. Values that are not finite are left out, and the figure says how many.
    ylabel : str

    Raises
    ------
    ValueError
        If the shapes disagree, or the low end of a band is above the high one.

    References
    ----------
    Jamroz & Kurdziel, AAAI 2023.
    """
    names, subsets = named(layers, "layers"), series(values, "values", len(STYLES))
    n_left_out = n_values = 0
    drawn = []
    for subset, style, shift in zip(subsets, STYLES, dodge(len(subsets)), strict=False):
        middle, ends, given = _summary(subsets[subset], f"values of {subset!r}", len(names))
        n_left_out += int((~np.isfinite(given)).sum())
        n_values += given.size
        # The band needs neighbours; the bars show a single layer too.
        x = np.arange(len(names)) + shift
        axes.fill_between(x, *ends, color=style.colour, alpha=0.15, lw=0)
        draw_intervals(axes, x, ends, color=style.colour, lw=1.5)
        axes.plot(
            x, middle, color=style.colour, ls=style.line, lw=1.5, marker=style.marker, ms=5, mec="white", mew=0.3,
            label=subset,
        )  # fmt: skip
        drawn.append(np.concatenate([middle[None], ends]))
    remark_left_out(axes, n_left_out, n_values, "values")
    if _spans_decades(np.stack(drawn)):
        axes.set_yscale("log")
    name_ticks(axes, names)
    axes.set_ylabel(ylabel)
    legend_above_data(axes)
    return axes


def _summary(given: Any, name: str, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Median [L], quartiles [2, L] of the finite values of each layer, and the values they come from."""
    if isinstance(given, tuple) and len(given) == 3 and all(as_numpy(part).ndim == 1 for part in given):
        middle = shaped(given[0], f"median of {name}", "L", L=n)
        ends = interval(given[1:], name, "L", L=n)
        parts = np.concatenate([middle[None], ends])
        parts_drawn = np.where(np.isfinite(parts), parts, np.nan)
        return parts_drawn[0], parts_drawn[1:], parts
    samples = shaped(given, name, "LP", L=n)
    quartiles = np.full((3, n), np.nan)
    for at, layer in enumerate(samples):
        finite = layer[np.isfinite(layer)]
        if finite.size:
            quartiles[:, at] = np.quantile(finite, [0.5, 0.25, 0.75])
    return quartiles[0], quartiles[1:], samples


def _spans_decades(drawn: NDArray[np.float64]) -> bool:
    """Whether medians, low and high ends [series, 3, L] ask for a logarithmic scale."""
    positive = drawn[drawn > 0]
    return bool(positive.size and not (drawn[:, 0] <= 0).any() and positive.max() >= 100 * positive.min())
