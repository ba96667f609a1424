"""Where the label arises: test examples classified by the class densities of each layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastdens.analysis import GenerativeClassification
from fastdens.analysis.figures import plot_scores
from fastdens.pipeline.results import Analysis
from fastdens.report.figures import literal, single
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def applies(analysis: Analysis) -> bool:
    """Whether test examples were classified."""
    return bool(_held_out(analysis))


def _held_out(analysis: Analysis) -> list[tuple[str, GenerativeClassification]]:
    """Name of each layer and how its densities classify the test examples."""
    return [(layer.name, layer.held_out) for layer in analysis.layers if layer.held_out is not None]


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """Accuracy, precision, recall and F1 of each layer."""
    for name, held_out in _held_out(analysis):
        of_layer = section_scope("label", name)
        error = held_out.accuracy_standard_error
        yield of_layer("accuracy", "held-out accuracy", held_out.accuracy, standard_error=error)
        yield of_layer("precision", "held-out precision", held_out.precision)
        yield of_layer("recall", "held-out recall", held_out.recall)
        yield of_layer("f1", "held-out F1", held_out.f1, standard_error=held_out.f1_standard_error)


def figures(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    """Accuracy at each layer, beside that of the network."""
    figure, axes = single(7, 4)
    names = [literal(name) for name, _ in _held_out(analysis)]
    accuracy = [held_out.accuracy for _, held_out in _held_out(analysis)]
    plot_scores(axes, names, accuracy, analysis.examples.test_accuracy)
    yield "held_out_accuracy", figure


SECTION = Section("label", "Where the label arises", applies, metrics, figures)
