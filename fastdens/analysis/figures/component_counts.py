"""Figure of the number of components of each class."""

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


def plot_component_counts(
    axes: Axes, n_components: ArrayLike | Tensor, class_names: Sequence[str], *, legend: bool = True
) -> Axes:
    """Number of components of each class: mean, middle nine tenths and extremes of its draws.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    n_components : array or Tensor
        [M, C, S], of M classes, C chains and S draws. Classes with a count of NaN are left out, with a remark.
    class_names : sequence of str
        M names; drawn up to 30 classes.
    legend : bool
        Whether to draw a legend.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If the shapes disagree.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_component_counts
    >>> counts = np.random.default_rng(0).integers(1, 6, size=(3, 2, 20))  # Classes, chains, draws.
    >>> plot_component_counts(Figure(layout="constrained").subplots(), counts, ["cat", "dog", "owl"]).get_ylabel()
    'components'
    """
    from matplotlib.ticker import MaxNLocator

    names = check.named(class_names, "class_names")
    counts = check.shaped(n_components, "n_components", "MCS", M=len(names))
    draws = counts.reshape(len(counts), -1)
    position = np.flatnonzero(np.isfinite(draws).all(1))
    style.remark_left_out(axes, len(draws) - len(position), len(draws), "classes")
    draws = draws[position]
    room = style.spacing(axes, len(names))
    low, high = np.quantile(draws, [0.05, 0.95], axis=1)
    axes.vlines(position, low, high, color=style.SKY_BLUE, lw=min(5, 0.7 * room), label="middle 90 % of draws")
    ends = np.stack([draws.min(1), draws.max(1)])
    axes.plot(position, ends.T, "_", color=style.GREY, ms=np.clip(room, 3, 8), label=["fewest and most", None])
    axes.plot(position, draws.mean(1), "o", color="black", ms=np.clip(room / 2, 2, 4), label="mean")
    if len(names) <= style.MANY_CLASSES:
        style.name_ticks(axes, names)
    axes.set_xlabel("class")
    axes.set_ylabel("components")
    axes.set_ylim(0.5, float(draws.max(initial=1)) + 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if legend:
        style.legend_above_data(axes)
    return axes
