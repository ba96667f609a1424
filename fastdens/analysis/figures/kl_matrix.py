"""Figure of the divergence of each class from each other class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

import fastdens.analysis.figures._checks as check
import fastdens.analysis.figures._style as style
from fastdens.analysis.arguments import as_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_kl_matrix(
    axes: Axes, kl: ArrayLike | Tensor, class_names: Sequence[str], *, order: ArrayLike | Tensor | None = None
) -> Axes:
    """Divergence KL(p_i || p_j) of all pairs of classes, at row i and column j.

    The scale is logarithmic if all drawn values are positive and span a decade or more. The diagonal is blank, and so
    are values that are not finite, with a remark.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    kl : array or Tensor
        [M, M], in nats.
    class_names : sequence of str
        M names; drawn up to 30 classes.
    order : array or Tensor, optional
        [M], the class at each place, such as the argsort of mean log-densities; by default the given order.

    Returns
    -------
    matplotlib.axes.Axes
        The given axes.

    Raises
    ------
    ValueError
        If the shapes disagree, or the order is not a permutation.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_kl_matrix
    >>> axes = Figure(layout="constrained").subplots()
    >>> plot_kl_matrix(axes, [[0.0, 2.0], [30.0, 0.0]], ["cat", "dog"]) is axes
    True
    """
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    names = check.named(class_names, "class_names")
    n_classes = len(names)
    values = check.shaped(kl, "kl", "MM", M=n_classes)
    places = np.arange(n_classes) if order is None else as_numpy(order)
    if sorted(places.ravel().tolist()) != list(range(n_classes)) or places.ndim != 1:
        raise ValueError(f"order does not name each of the {n_classes} classes once: pass a permutation of 0 to M - 1.")
    values = values[np.ix_(places, places)]
    others = ~np.eye(n_classes, dtype=bool)
    shown = others & np.isfinite(values)
    style.remark_left_out(axes, int((others & ~shown).sum()), n_classes * (n_classes - 1), "values")

    drawn = values[shown]
    logarithmic = drawn.size > 0 and drawn.min() > 0 and drawn.max() >= 10 * drawn.min()
    image = axes.imshow(
        np.ma.masked_where(~shown, values), cmap=colormaps["viridis"].with_extremes(bad="0.85"),
        norm=LogNorm(drawn.min(), drawn.max()) if logarithmic else None, interpolation="none", aspect="equal",
    )  # fmt: skip
    if drawn.size:
        axes.figure.colorbar(image, ax=axes, label="KL(row ‖ column) (nats)")
    if n_classes <= style.MANY_CLASSES:
        style.name_ticks(axes, [names[c] for c in places], "x")
        style.name_ticks(axes, [names[c] for c in places], "y")
        axes.set_xlim(-0.5, n_classes - 0.5)
    where = "" if order is None or n_classes <= style.MANY_CLASSES else ", by place in the order"
    axes.set_xlabel(f"class{where}")
    axes.set_ylabel(f"class{where}")
    return axes
