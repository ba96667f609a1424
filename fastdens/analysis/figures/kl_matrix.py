"""How far the density of each class is from that of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.analysis.arguments import as_numpy
from fastdens.analysis.figures._checks import named, shaped
from fastdens.analysis.figures._style import MANY_CLASSES, name_ticks, remark_left_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_kl_matrix(
    axes: Axes, kl: ArrayLike | Tensor, class_names: Sequence[str], *, order: ArrayLike | Tensor | None = None
) -> Axes:
    """Divergence of all pairs of classes: at row i and column j that of class i from class j, KL(p_i || p_j).

    The scale is logarithmic where all drawn values are positive and span a decade or more. The diagonal is left blank,
    and so are values that are not finite; the figure says how many of these there are.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    kl : array or Tensor
        [M, M], in nats.
    class_names : sequence of str
        M names; drawn up to 30 classes.
    order : array or Tensor, optional
        [M], the class at each place, as the argsort of mean log-densities; without, classes stand as they are given.

    Raises
    ------
    ValueError
        If the shapes disagree, or the order is no permutation.
    """
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    names = named(class_names, "class_names")
    n_classes = len(names)
    values = shaped(kl, "kl", "MM", M=n_classes)
    places = np.arange(n_classes) if order is None else as_numpy(order)
    if sorted(places.ravel().tolist()) != list(range(n_classes)) or places.ndim != 1:
        raise ValueError(f"order does not name each of the {n_classes} classes once: pass a permutation of 0 to M - 1.")
    values = values[np.ix_(places, places)]
    others = ~np.eye(n_classes, dtype=bool)
    shown = others & np.isfinite(values)
    remark_left_out(axes, int((others & ~shown).sum()), n_classes * (n_classes - 1), "values")

    drawn = values[shown]
    logarithmic = drawn.size > 0 and drawn.min() > 0 and drawn.max() >= 10 * drawn.min()
    image = axes.imshow(
        np.ma.masked_where(~shown, values), cmap=colormaps["viridis"].with_extremes(bad="0.85"),
        norm=LogNorm(drawn.min(), drawn.max()) if logarithmic else None, interpolation="none", aspect="equal",
    )  # fmt: skip
    if drawn.size:
        axes.figure.colorbar(image, ax=axes, label="KL(row ‖ column) (nats)")
    if n_classes <= MANY_CLASSES:
        name_ticks(axes, [names[c] for c in places], "x")
        name_ticks(axes, [names[c] for c in places], "y")
        axes.set_xlim(-0.5, n_classes - 0.5)
    where = "" if order is None or n_classes <= MANY_CLASSES else ", by place in the order"
    axes.set_xlabel(f"class{where}")
    axes.set_ylabel(f"class{where}")
    return axes
