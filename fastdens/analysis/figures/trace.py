"""Figure of the draws of the chains of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

import fastdens.analysis.figures._style as style
from fastdens.analysis.arguments import as_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_trace(axes: Axes, draws: ArrayLike | Tensor, name: str, sweeps: ArrayLike | Tensor | None = None) -> Axes:
    """Trace plot of a quantity, one line for each chain.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    draws : array or Tensor
        [C, S], of C chains and S draws. Up to seven chains have a colour and a marker each and are named in a legend.
    name : str
        The quantity and its unit.
    sweeps : array or Tensor, optional
        [S], sweep number of each draw; by default the draws are numbered from 1.

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
    >>> from fastdens.analysis.figures import plot_trace
    >>> draws = np.random.default_rng(0).normal(size=(4, 50))  # Four chains.
    >>> plot_trace(Figure(layout="constrained").subplots(), draws, "log-joint (nats)").get_ylabel()
    'log-joint (nats)'
    """
    from matplotlib.ticker import MaxNLocator

    values = as_numpy(draws)
    if values.ndim != 2:
        raise ValueError(f"draws has shape {values.shape}, but a trace is [C, S]: pass the draws of one model.")
    n_chains, n_draws = values.shape
    position = np.arange(1, n_draws + 1) if sweeps is None else as_numpy(sweeps)
    if position.shape != (n_draws,):
        raise ValueError(f"sweeps has shape {position.shape}, but there are {n_draws} draws: pass one number for each.")
    few_chains = n_chains <= len(style.STYLES)
    for chain, line in enumerate(values):
        look = style.STYLES[chain % len(style.STYLES)]
        # Few draws are all marked, since a single one has no line; of many, an occasional marker identifies the chain.
        marker = look.marker if few_chains or n_draws <= 50 else None
        every = max(1, n_draws // 12)
        shown = slice(chain * every // n_chains if n_draws > 50 else 0, None, every if n_draws > 50 else 1)
        axes.plot(
            position, line, color=look.colour, lw=1, marker=marker, ms=4, mec="white", mew=0.4, markevery=shown,
            label=f"chain {chain + 1}",
        )  # fmt: skip
    if 1 < n_chains <= len(style.STYLES):
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=style.SMALL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if np.issubdtype(values.dtype, np.integer):
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("kept draw" if sweeps is None else "sweep")
    axes.set_ylabel(name)
    return axes
