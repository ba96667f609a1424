"""Figure of the agreement of layers, or of networks, on the groups of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

import fastdens.analysis.figures._checks as check
import fastdens.analysis.figures._style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_split_agreement(axes: Axes, agreement: ArrayLike | Tensor, layers: Sequence[str]) -> Axes:
    """Adjusted Rand index of every pair of layers, written into its cell where it fits.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    agreement : array or Tensor
        [L, L], at most 1; NaN, where there are no groups to compare, is a dash on grey.
    layers : sequence of str
        L names, of layers or of seeds.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If the shapes disagree or a value exceeds 1.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_split_agreement
    >>> axes = Figure(layout="constrained").subplots()
    >>> plot_split_agreement(axes, [[1.0, 0.4], [0.4, 1.0]], ["layer3", "layer4"]) is axes
    True
    """
    from matplotlib import colormaps

    names = check.named(layers, "layers")
    n = len(names)
    values = check.shaped(agreement, "agreement", "LL", L=n)
    if (values > 1 + 1e-9).any():
        raise ValueError(f"agreement has a value of {np.nanmax(values):.4g}, but an adjusted Rand index is at most 1.")
    # Random splits have an index of 0 on average; it may be negative.
    lowest = float(min(0, np.nanmin(values, initial=0)))
    shades = colormaps["cividis"].with_extremes(bad="0.85")
    image = axes.imshow(np.ma.masked_invalid(values), cmap=shades, vmin=lowest, vmax=1, interpolation="none")
    axes.figure.colorbar(image, ax=axes, label="adjusted Rand index")
    style.name_ticks(axes, names, "x")
    style.name_ticks(axes, names, "y")
    axes.set_xlim(-0.5, n - 0.5)
    style.lay_out(axes)
    room = min(style.spacing(axes, n, "x"), style.spacing(axes, n, "y"))
    size = 10 if room >= 30 else style.SMALL
    if room >= 2.1 * style.SMALL:
        for (row, column), value in np.ndenumerate(values):
            dark = np.isfinite(value) and (value - lowest) / (1 - lowest) < 0.5
            axes.text(
                column, row, _cell(value, short=room < 30), ha="center", va="center", fontsize=size,
                color="white" if dark else "black",
            )  # fmt: skip
    return axes


def _cell(value: float, short: bool) -> str:
    if not np.isfinite(value):
        return "–"
    text = f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
    return {"1.00": "1"}.get(text, text.replace("0.", ".", 1)) if short else text
