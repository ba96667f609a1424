"""Flipped labels: how well a low density finds the examples whose label was flipped."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis import roc_auc, roc_auc_standard_error
from fastdens.analysis.figures import plot_flipped
from fastdens.pipeline.results import Analysis, LayerAnalysis
from fastdens.report.estimates import REACH
from fastdens.report.figures import literal, panels
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The area under the ROC curve of a score that tells nothing.
_CHANCE = 0.5


def applies(analysis: Analysis) -> bool:
    """Whether labels are known to be flipped."""
    return bool(flipped_examples(analysis).any())


def flipped_examples(analysis: Analysis) -> NDArray[np.bool_]:
    """Which labels are known to be flipped."""
    examples = analysis.examples
    return np.zeros(len(examples.labels), bool) if examples.flipped is None else examples.flipped


def rank_of_flipped(log_density: NDArray[np.float64], flipped: NDArray[np.bool_]) -> str:
    """Whether examples with a flipped label are seen to be "sparse" or "dense" beside the others, or "alike"."""
    area, reach = roc_auc(-log_density, flipped), REACH * roc_auc_standard_error(-log_density, flipped)
    return "sparse" if area - reach > _CHANCE else "dense" if area + reach < _CHANCE else "alike"


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """Area under the ROC curve, and mean log-density of both kinds of examples."""
    flipped = flipped_examples(analysis)
    for layer in analysis.layers:
        of_layer = section_scope("flipped_labels", layer.name)
        error = roc_auc_standard_error(-layer.log_density, flipped)
        yield of_layer("auc", "flipped AUC", layer.flipped_auc, standard_error=error)
        yield of_layer("log_density_kept", "mean log-density, label kept", layer.log_density[~flipped].mean())
        yield of_layer("log_density_flipped", "mean log-density, label flipped", layer.log_density[flipped].mean())


def figures(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    """Log-densities of both kinds of examples."""
    flipped = flipped_examples(analysis)

    def draw(axes: Axes, layer: LayerAnalysis) -> None:
        auc = "" if math.isnan(layer.flipped_auc) else f", AUC {layer.flipped_auc:.3f}"
        plot_flipped(axes, layer.log_density, flipped).set_title(f"{literal(layer.name)}{auc}")

    yield "flipped_labels", panels(analysis.layers, draw)


SECTION = Section("flipped_labels", "Flipped labels", applies, metrics, figures)
