"""Chains of a model, draw after draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.analysis.arguments import as_numpy
from fastdens.analysis.figures._style import SMALL, STYLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_trace(axes: Axes, draws: ArrayLike | Tensor, name: str, sweeps: ArrayLike | Tensor | None = None) -> Axes:
    """Draws [C, S] of the quantity ``name``, one line a chain, against their sweep numbers [S] or, without, their rank.

    Up to seven chains have a colour and a marker each and are named; more take the colours in turn.
    """
    from matplotlib.ticker import MaxNLocator

    values = as_numpy(draws)
    if values.ndim != 2:
        raise ValueError(f"draws has shape {values.shape}, but a trace is [C, S]: pass the draws of one model.")
    n_chains, n_draws = values.shape
    position = np.arange(1, n_draws + 1) if sweeps is None else as_numpy(sweeps)
    if position.shape != (n_draws,):
        raise ValueError(f"sweeps has shape {position.shape}, but there are {n_draws} draws: pass one number for each.")
    few_chains = n_chains <= len(STYLES)
    for chain, line in enumerate(values):
        style = STYLES[chain % len(STYLES)]
        # Few draws are marked, and a single one would not be seen otherwise; of many, one in a while tells the chain.
        marker = style.marker if few_chains or n_draws <= 50 else None
        every = max(1, n_draws // 12)
        shown = slice(chain * every // n_chains if n_draws > 50 else 0, None, every if n_draws > 50 else 1)
        axes.plot(
            position, line, color=style.colour, lw=1, marker=marker, ms=4, mec="white", mew=0.4, markevery=shown,
            label=f"chain {chain + 1}",
        )  # fmt: skip
    if 1 < n_chains <= len(STYLES):
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=SMALL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if np.issubdtype(values.dtype, np.integer):
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("kept draw" if sweeps is None else "sweep")
    axes.set_ylabel(name)
    return axes
