"""Robustness of examples by their density and by the mode of their class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdens.cli.page import Number, Numbers, Section, figure_html, table_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastdens.cli.analyze import Analysis
    from fastdens.cli.robustness import RobustnessAnalysis

_GROUPS = ("sparse classes", "dense classes")
_QUANTITIES = {
    "examples tried": "d",
    "mean certified radius": ".3f",
    "share certified": ".3f",
    "accuracy": ".3f",
    "accuracy under attack": ".3f",
}


def _of(analysis: Analysis) -> RobustnessAnalysis:
    assert analysis.robustness is not None
    return analysis.robustness


def _parts(analysis: Analysis) -> dict[str, NDArray[np.bool_]]:
    """Which of the examples tried belong to each bin and, where classes fall into two groups, to each group."""
    robustness = _of(analysis)
    parts = {f"bin {b + 1}": robustness.bin == b for b in range(robustness.n_bins)}
    if analysis.layer(robustness.layer).modes.n_groups == 2:
        parts |= {name: robustness.group == g for g, name in enumerate(_GROUPS)}
    return parts


def _share(values: NDArray[np.bool_]) -> tuple[float, float]:
    """A share and its standard error."""
    n = len(values)
    share = float(values.mean()) if n else math.nan
    return share, math.sqrt(share * (1 - share) / n) if n else math.nan


def _estimates(robustness: RobustnessAnalysis, chosen: NDArray[np.bool_]) -> dict[str, tuple[float, float]]:
    """What some of the examples tell, each with its standard error."""
    radius = robustness.radius[chosen]
    n = len(radius)
    mean = float(radius.mean()) if n else math.nan
    error = float(radius.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return {
        "mean certified radius": (mean, error),
        "share certified": _share(radius > 0),
        "accuracy": _share(robustness.clean[chosen]),
        "accuracy under attack": _share(robustness.robust[chosen]),
    }


def _numbers(analysis: Analysis) -> Iterable[Number]:
    robustness = _of(analysis)
    layer = robustness.layer
    for name, chosen in _parts(analysis).items():
        yield Number("examples tried", int(chosen.sum()), layer, group=name)
        for quantity, (value, error) in _estimates(robustness, chosen).items():
            yield Number(quantity, value, layer, group=name, standard_error=error)
    for b, accuracy in enumerate(robustness.accuracy):
        yield Number("test accuracy of the network without the bin", accuracy, layer, group=f"bin {b + 1}")


def _by_density(analysis: Analysis) -> Figure:
    from matplotlib.figure import Figure

    from fastdens.analysis.figures import plot_by_bin, plot_certified_accuracy

    robustness = _of(analysis)
    estimates = [_estimates(robustness, robustness.bin == b) for b in range(robustness.n_bins)]
    figure = Figure(figsize=(13, 4), layout="constrained")
    radius, attack, curve = figure.subplots(1, 3)
    for own, quantity, label in (
        (radius, "mean certified radius", "mean certified radius (L2, pixels in [0, 1])"),
        (attack, "accuracy under attack", "accuracy under attack"),
    ):
        mean, error = np.array([of_bin[quantity] for of_bin in estimates]).T
        plot_by_bin(own, mean, label, errors=error).set_ylim(bottom=0)
    attack.set_ylim(top=1)
    at = np.linspace(0, max(float(robustness.radius.max()) * 1.05, 0.1), 101)
    plot_certified_accuracy(
        curve,
        at,
        {
            f"bin {b + 1}": (robustness.radius[robustness.bin == b][:, None] > at).mean(0)
            for b in range(robustness.n_bins)
        },
    )
    return figure


def _html(analysis: Analysis, numbers: Numbers, figures: Mapping[str, bytes]) -> str:
    robustness, options, n = _of(analysis), analysis.options, numbers.html
    layer, last = robustness.layer, f"bin {robustness.n_bins}"
    rows = [
        [name, *(n(quantity, layer, digits=d, group=name) for quantity, d in _QUANTITIES.items())]
        for name in _parts(analysis)
    ]
    networks = [
        [f"bin {b + 1}", n("test accuracy of the network without the bin", layer, group=f"bin {b + 1}")]
        for b in range(robustness.n_bins)
    ]
    return f"""
<h2>Density and robustness</h2>
<p>Training examples were cut, class by class, into {robustness.n_bins} bins by their log-density at {layer}, bin 1 the
least dense. For each bin a network was trained without it, on images with Gaussian noise of standard deviation
{options.sigma:g} added (pixels from 0 to 1), and examples of the bin, flipped ones left out, were certified by
randomized smoothing at that noise with {options.certificate_draws} draws (Cohen et al., 2019) and attacked by projected
gradient descent within an L2 distance of {options.epsilon:g} (Madry et al., 2018). An example that the smoothed network
gets wrong, or abstains on, has radius zero.</p>
{
        figure_html(
            "robustness_by_density",
            figures["robustness_by_density"],
            "Mean certified radius and accuracy under attack of each density bin, bars of one standard error, and the "
            "share of each bin certified beyond a radius. The mean radius is "
            f"{n('mean certified radius', layer, group='bin 1')} in the least dense bin and "
            f"{n('mean certified radius', layer, group=last)} in the densest; "
            f"{n('accuracy under attack', layer, group='bin 1')} and {n('accuracy under attack', layer, group=last)} "
            "of the examples withstand the attack.",
        )
    }
{table_html(["examples", *_QUANTITIES], rows)}
{table_html(["network without", "test accuracy"], networks)}"""


ROBUSTNESS = Section(
    lambda analysis: analysis.robustness is not None,
    _numbers,
    {"robustness_by_density": _by_density},
    _html,
)
