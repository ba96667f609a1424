"""What was planted in the data, and how well the densities find it: flipped labels, classes of a long tail."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from fastdens.cli.page import Number, Numbers, Section, by_layer_html, figure_html, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastdens.cli.analyze import Analysis


def _has_flips(analysis: Analysis) -> bool:
    return analysis.subject.flipped is not None and bool(analysis.subject.flipped.any())


def _flipped_numbers(analysis: Analysis) -> Iterable[Number]:
    assert analysis.subject.flipped is not None
    flips = analysis.subject.flipped.numpy()
    for layer in analysis.layers:
        yield Number("flipped AUC", layer.flipped_auc, layer.layer)
        yield Number("mean log-density, label kept", layer.log_density[~flips].mean(), layer.layer)
        yield Number("mean log-density, label flipped", layer.log_density[flips].mean(), layer.layer)


def _flipped_labels(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_flipped

    assert analysis.subject.flipped is not None
    figure, axes = grid(len(analysis.layers))
    for layer, own in zip(analysis.layers, axes, strict=True):
        title = layer.layer if math.isnan(layer.flipped_auc) else f"{layer.layer}, AUC {layer.flipped_auc:.3f}"
        plot_flipped(own, layer.log_density, analysis.subject.flipped).set_title(title)
    return figure


def _flipped_html(analysis: Analysis, numbers: Numbers, figures: Mapping[str, bytes]) -> str:
    layers = [layer.layer for layer in analysis.layers]
    first, last = layers[0], layers[-1]
    columns = {"flipped AUC": ".3f", "mean log-density, label kept": ".2f", "mean log-density, label flipped": ".2f"}
    return f"""
<h2>Flipped labels</h2>
{
        figure_html(
            "flipped_labels",
            figures["flipped_labels"],
            "Log-density of examples whose label was flipped against those whose label was kept. The area under the "
            "ROC curve of finding the flipped ones by low density is "
            f"{numbers.html('flipped AUC', first)} at {first} and {numbers.html('flipped AUC', last)} at {last} (0.5 "
            "is chance; under it the flipped ones are the denser).",
        )
    }
{by_layer_html(numbers, layers, columns)}"""


def _has_tails(analysis: Analysis) -> bool:
    return analysis.subject.long_tailed is not None and bool(analysis.subject.long_tailed.any())


def _tail_numbers(analysis: Analysis) -> Iterable[Number]:
    assert analysis.subject.long_tailed is not None
    tailed = analysis.subject.long_tailed.numpy()
    yield Number("long-tailed classes", int(tailed.sum()))
    for layer in analysis.layers:
        yield Number("long-tailed AUC", layer.long_tailed_auc, layer.layer)
        yield Number("mean class log-density, long-tailed", layer.classes.mean[tailed].mean(), layer.layer)
        yield Number("mean class log-density, others", layer.classes.mean[~tailed].mean(), layer.layer)
    for name, is_tailed in zip(analysis.subject.class_names, tailed, strict=True):
        yield Number("class long-tailed", int(is_tailed), "", name)


def _tail_html(analysis: Analysis, numbers: Numbers, figures: Mapping[str, bytes]) -> str:
    layers, n = [layer.layer for layer in analysis.layers], numbers.html
    last = layers[-1]
    columns = {
        "long-tailed AUC": ".3f",
        "mean class log-density, long-tailed": ".2f",
        "mean class log-density, others": ".2f",
    }
    best = analysis.layers[int(np.argmax([layer.long_tailed_auc for layer in analysis.layers]))].layer
    return f"""
<h2>Classes of a long tail</h2>
<p>In {n("long-tailed classes", digits="d")} classes most training examples are one of their kind. The area under the
ROC curve of finding these classes by a low mean log-density is {n("long-tailed AUC", last)} at {last} and largest at
{best}, {n("long-tailed AUC", best)}.</p>
{by_layer_html(numbers, layers, columns)}"""


PLANTED = (
    Section(_has_flips, _flipped_numbers, {"flipped_labels": _flipped_labels}, _flipped_html),
    Section(_has_tails, _tail_numbers, {}, _tail_html),
)
