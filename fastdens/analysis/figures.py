"""Figures of the analysis, one function each; every function draws on the axes it is given and returns them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fastdens.analysis._arrays import as_numpy
from fastdens.analysis.class_log_density import ClassLogDensity
from fastdens.analysis.modes import Modes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's colours, which stay apart under every common colour blindness.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6E6E6E"


def plot_class_log_density(axes: Axes, density: ClassLogDensity, modes: Modes, class_names: Sequence[str]) -> Axes:
    """Mean log-density of each class, sorted, bars of one standard deviation over its examples, and the line."""
    order = np.argsort(density.mean)
    position = np.arange(len(order))
    colours = np.array([ORANGE, BLUE])[modes.group[order]] if modes.n_groups == 2 else [GREY] * len(order)
    for at, c, colour in zip(position, order, colours, strict=True):
        axes.errorbar(at, density.mean[c], density.std[c], fmt="o", color=colour, ms=5, capsize=2.5, lw=1.2)
    if modes.n_groups == 2:
        axes.axhline(modes.line, color="black", ls="--", lw=1, label=f"line at {modes.line:.4g}")
        axes.legend(frameon=False, loc="upper left")
    else:
        axes.text(0.03, 0.95, "one group", transform=axes.transAxes, ha="left", va="top", color=GREY)
    # Names stay readable up to a few dozen classes; beyond that the rank says enough.
    if len(order) <= 30:
        names = [class_names[c] for c in order]
        axes.set_xticks(position, names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_xlabel("class")
    else:
        axes.set_xlabel("class, sorted by mean log-density")
    axes.set_ylabel("log-density (nats)")
    return axes


def plot_flipped(axes: Axes, log_density: ArrayLike, flipped: ArrayLike) -> Axes:
    """Share of examples by log-density, those of flipped label against the others."""
    values, flips = as_numpy(log_density), as_numpy(flipped).astype(bool)
    # A few examples far out would squeeze all others into one bin: they are counted in the outermost bins.
    low, high = np.quantile(values, [0.005, 1])
    bins = np.linspace(low, high, 31).tolist()
    for mask, colour, name in ((~flips, BLUE, "label kept"), (flips, ORANGE, "label flipped")):
        if mask.any():
            weights = np.full(mask.sum(), 1 / mask.sum())
            axes.hist(values[mask].clip(low, high), bins, weights=weights, color=colour, alpha=0.6, label=name)
    axes.set_xlabel("log-density under the given label (nats)")
    axes.set_ylabel("share of examples")
    axes.legend(frameon=False)
    return axes


def plot_scores(axes: Axes, layers: Sequence[str], scores: Sequence[float], reference: float) -> Axes:
    """Held-out score of the generative classification at each layer, beside that of the network."""
    bars = axes.bar(range(len(layers)), scores, color=BLUE, width=0.6)
    axes.bar_label(bars, fmt="%.3f", label_type="center", color="white")
    axes.axhline(reference, color="black", ls="--", lw=1, label=f"the network: {reference:.3f}")
    axes.set_xticks(range(len(layers)), list(layers))
    axes.set_ylim(0, 1)
    axes.set_ylabel("held-out accuracy")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    return axes
