"""Figures of the log-density of two kinds of examples: with a flipped label or not, of noise or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

import fastdens.analysis.figures._checks as check
import fastdens.analysis.figures._style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_flipped(axes: Axes, log_density: ArrayLike | Tensor, flipped: ArrayLike | Tensor) -> Axes:
    """Histograms of the log-density of examples with a flipped label, and of the others.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    log_density : array or Tensor
        [N], in nats. The lowest 0.5 % are counted in the leftmost bin; values that are not finite are left out, with a
        remark.
    flipped : array or Tensor
        [N], bool.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If the shapes disagree, or no log-density is finite.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_flipped
    >>> flipped = np.arange(200) % 20 == 0
    >>> log_density = np.random.default_rng(0).normal(-50.0, 5.0, 200) - 20 * flipped
    >>> axes = Figure(layout="constrained").subplots()
    >>> plot_flipped(axes, log_density, flipped) is axes
    True
    """
    values = check.shaped(log_density, "log_density", "N")
    flips = check.shaped(flipped, "flipped", "N", N=len(values)).astype(bool)
    if not np.isfinite(values).any():
        raise ValueError(f"none of the {len(values)} values of log_density is finite: there is nothing to draw.")
    groups = {"label kept": values[~flips], "label flipped": values[flips]}
    return plot_two_histograms(axes, groups, "log-density under the given label (nats)", "share of examples")


def plot_two_histograms(axes: Axes, groups: Mapping[str, NDArray[np.float64]], quantity: str, share: str) -> Axes:
    """Histograms of two groups of values over one another, each as shares of its group.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    groups : mapping of str to ndarray
        Two groups by their names in the legend, values [n] of each; one of them may be empty. The lowest 0.5 % of all
        are counted in the leftmost bin; values that are not finite are left out, with a remark.
    quantity, share : str
        Labels of the axes.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_two_histograms
    >>> rng = np.random.default_rng(0)
    >>> groups = {"training": rng.normal(-50.0, 5.0, 200), "test": rng.normal(-55.0, 5.0, 100)}
    >>> axes = Figure(layout="constrained").subplots()
    >>> plot_two_histograms(axes, groups, "log-density (nats)", "share of examples").get_xlabel()
    'log-density (nats)'
    """
    values = np.concatenate(list(groups.values()))
    finite = np.isfinite(values)
    style.remark_left_out(axes, int((~finite).sum()), len(values), "examples")
    values = values[finite] if finite.any() else np.zeros(1)
    # A few outliers would squeeze all other examples into one bin: they are counted in the leftmost bin.
    low, high = np.quantile(values, [0.005, 1])
    margin = 0.5 if low == high else 0
    bins = np.linspace(low - margin, high + margin, 31).tolist()
    looks: tuple[dict[str, Any], ...] = (
        {"color": style.BLUE, "alpha": 0.55},
        {"color": style.ORANGE, "histtype": "step", "hatch": "////", "lw": 1.5},
    )
    for (label, own), look in zip(groups.items(), looks, strict=True):
        own = own[np.isfinite(own)]
        if len(own):
            axes.hist(own.clip(low, high), bins, weights=np.full(len(own), 1 / len(own)), label=label, **look)
    axes.set_xlabel(quantity)
    axes.set_ylabel(share)
    style.legend_above_data(axes)
    return axes
