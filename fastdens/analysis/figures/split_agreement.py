"""Whether layers, or networks, split the classes alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.analysis.figures._checks import named, shaped
from fastdens.analysis.figures._style import SMALL, lay_out, name_ticks, spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_split_agreement(axes: Axes, agreement: ArrayLike | Tensor, layers: Sequence[str]) -> Axes:
    """Adjusted Rand index of the split of every pair of layers, written into its cell where it fits.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    agreement : array or Tensor
        [L, L], at most 1; NaN is drawn as a dash on grey.
    layers : sequence of str
        L names, of layers or of seeds.

    Raises
    ------
    ValueError
        If the shapes disagree or a value exceeds 1.
    """
    from matplotlib import colormaps

    names = named(layers, "layers")
    n = len(names)
    values = shaped(agreement, "agreement", "LL", L=n)
    if (values > 1 + 1e-9).any():
        raise ValueError(f"agreement has a value of {np.nanmax(values):.4g}, but an adjusted Rand index is at most 1.")
    # By chance two splits agree with an index of 0; below it they agree less than that.
    lowest = float(min(0, np.nanmin(values, initial=0)))
    shades = colormaps["cividis"].with_extremes(bad="0.85")
    image = axes.imshow(np.ma.masked_invalid(values), cmap=shades, vmin=lowest, vmax=1, interpolation="none")
    axes.figure.colorbar(image, ax=axes, label="adjusted Rand index")
    name_ticks(axes, names, "x")
    name_ticks(axes, names, "y")
    axes.set_xlim(-0.5, n - 0.5)
    lay_out(axes)
    room = min(spacing(axes, n, "x"), spacing(axes, n, "y"))
    size = 10 if room >= 30 else SMALL
    if room >= 2.1 * SMALL:
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
