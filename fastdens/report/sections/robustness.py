"""Robustness of examples by their density and by the group of their class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis.figures import plot_by_bin, plot_certified_accuracy
from fastdens.pipeline.results import Analysis
from fastdens.report.estimates import mean_of, share_of
from fastdens.report.figures import new_figure
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section, known

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Part(NamedTuple):
    """A subset of the tried examples: its name on the page, and its kind and name in identifiers of metrics."""

    title: str
    kind: str
    name: str
    chosen: NDArray[np.bool_]


def applies(analysis: Analysis) -> bool:
    """Whether robustness was analysed."""
    return analysis.robustness is not None


def _parts(analysis: Analysis) -> list[Part]:
    """The examples of each bin and, where classes fall into two groups, of each group."""
    robustness = known(analysis.robustness)
    parts = [Part(f"bin {b + 1}", "bin", str(b + 1), robustness.bin == b) for b in range(robustness.n_bins)]
    if analysis.layer(robustness.layer).modes.n_groups == 2:
        parts.append(Part("sparse classes", "group", "sparse", robustness.group == 0))
        parts.append(Part("dense classes", "group", "dense", robustness.group == 1))
    return parts


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """Certified radius and accuracy under attack of each part, and test accuracy of the networks."""
    robustness = known(analysis.robustness)
    of_layer = section_scope("robustness", robustness.layer)
    for part in _parts(analysis):
        of_part, chosen = of_layer.of_group(part.kind, part.name, part.title), part.chosen
        yield of_part("n_tried", "examples tried", int(chosen.sum()))
        for name, quantity, (value, error) in (
            ("radius", "mean certified radius", mean_of(robustness.radius[chosen])),
            ("certified", "share certified", share_of(robustness.radius[chosen] > 0)),
            ("accuracy", "accuracy", share_of(robustness.clean[chosen])),
            ("robust_accuracy", "accuracy under attack", share_of(robustness.robust[chosen])),
        ):
            yield of_part(name, quantity, value, standard_error=error)
    for b, accuracy in enumerate(robustness.accuracy, start=1):
        of_bin = of_layer.of_group("bin", str(b), f"bin {b}")
        yield of_bin("test_accuracy", "test accuracy of the network without the bin", accuracy)


def figures(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    """Mean radius and accuracy under attack of each bin, and the share certified beyond a radius."""
    robustness = known(analysis.robustness)
    bins = [robustness.bin == b for b in range(robustness.n_bins)]
    figure = new_figure(13, 4)
    radius, attack, curve = figure.subplots(1, 3)

    mean, error = np.array([mean_of(robustness.radius[chosen]) for chosen in bins]).T
    plot_by_bin(radius, mean, "mean certified radius (L2, pixels in [0, 1])", errors=error).set_ylim(bottom=0)
    share, error = np.array([share_of(robustness.robust[chosen]) for chosen in bins]).T
    plot_by_bin(attack, share, "accuracy under attack", errors=error).set_ylim(0, 1)

    at = np.linspace(0, max(float(robustness.radius.max()) * 1.05, 0.1), 101)
    beyond = {f"bin {b + 1}": (robustness.radius[chosen][:, None] > at).mean(0) for b, chosen in enumerate(bins)}
    plot_certified_accuracy(curve, at, beyond)
    yield "robustness_by_density", figure


def context(analysis: Analysis) -> Mapping[str, object]:
    """The parts, and the layer whose density defines the bins."""
    robustness = known(analysis.robustness)
    return {"layer": robustness.layer, "n_bins": robustness.n_bins, "parts": _parts(analysis)}


SECTION = Section("robustness", "Density and robustness", applies, metrics, figures, context)
