"""Figures of the analysis, one function each; every function draws on the axes it is given and returns them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.analysis._arrays import as_numpy
from fastdens.analysis.class_log_density import ClassLogDensity
from fastdens.analysis.modes import Modes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's colours, which stay apart under every common colour blindness.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6E6E6E"
PURPLE, YELLOW, SKY_BLUE = "#CC79A7", "#E69F00", "#56B4E9"
_CHAIN_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY_BLUE, "black")


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


def plot_component_counts(axes: Axes, n_components: ArrayLike | Tensor, class_names: Sequence[str]) -> Axes:
    """Number of components of each class: the mean of its draws [M, C, S], a bar over the middle nine tenths of them,
    and a tick at the fewest and the most."""
    from matplotlib.ticker import MaxNLocator

    counts = as_numpy(n_components)
    if counts.ndim != 3 or len(counts) != len(class_names):
        raise ValueError(
            f"n_components has shape {counts.shape}, but it must be [M, C, S] with M = {len(class_names)}."
        )
    draws = counts.reshape(len(counts), -1)
    position = np.arange(len(draws))
    low, high = np.quantile(draws, [0.05, 0.95], axis=1)
    axes.vlines(position, low, high, color=SKY_BLUE, lw=5, label="middle 90 % of draws")
    ends = np.stack([draws.min(1), draws.max(1)])
    axes.plot(position, ends.T, "_", color=GREY, ms=8, label=["fewest and most", None])
    axes.plot(position, draws.mean(1), "o", color="black", ms=4, label="mean")
    if len(draws) <= 30:
        axes.set_xticks(position, class_names, rotation=90 if max(map(len, class_names)) > 2 else 0)
    axes.set_xlabel("class")
    axes.set_ylabel("components")
    axes.set_ylim(0.5, float(counts.max()) + 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return axes


def plot_trace(axes: Axes, draws: ArrayLike | Tensor, name: str, sweeps: ArrayLike | Tensor | None = None) -> Axes:
    """Draws [C, S] of the quantity ``name``, one line a chain, against their sweep numbers [S] or, without, their rank.

    Up to seven chains have a colour each and are named; more take the colours in turn.
    """
    from matplotlib.ticker import MaxNLocator

    values = as_numpy(draws)
    if values.ndim != 2:
        raise ValueError(f"draws has shape {values.shape}, but a trace is [C, S]: pass the draws of one model.")
    n_chains, n_draws = values.shape
    position = np.arange(1, n_draws + 1) if sweeps is None else as_numpy(sweeps)
    if position.shape != (n_draws,):
        raise ValueError(f"sweeps has shape {position.shape}, but there are {n_draws} draws: pass one number for each.")
    # Few draws are marked, and a single one would not be seen otherwise.
    marker = "o" if n_draws <= 50 else None
    for chain, line in enumerate(values):
        colour = _CHAIN_COLOURS[chain % len(_CHAIN_COLOURS)]
        axes.plot(position, line, color=colour, lw=1, marker=marker, ms=3, label=f"chain {chain + 1}")
    if 1 < n_chains <= len(_CHAIN_COLOURS):
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize="small")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if np.issubdtype(values.dtype, np.integer):
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("kept draw" if sweeps is None else "sweep")
    axes.set_ylabel(name)
    return axes
