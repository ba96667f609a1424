"""The setting: examples, classes, the network, the densities."""

from __future__ import annotations

from collections.abc import Iterator

from fastdens.pipeline.results import Analysis
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """How many examples and classes there are, how well the network fits them, and how layers were projected."""
    examples = analysis.examples
    of_analysis = section_scope("setting")
    yield of_analysis("n_examples", "training examples", len(examples.labels))
    yield of_analysis("n_classes", "classes", len(examples.class_names))
    if examples.test_labels is not None:
        yield of_analysis("n_test_examples", "test examples", len(examples.test_labels))
    if examples.test_accuracy is not None:
        yield of_analysis("test_accuracy", "network test accuracy", examples.test_accuracy)
    if examples.train_predicted is not None:
        fitted = examples.train_predicted == examples.labels
        if examples.flipped is None or not examples.flipped.any():
            yield of_analysis("fitted", "network share of labels fitted", fitted.mean())
        else:
            kept = ~examples.flipped
            yield of_analysis("n_flipped", "flipped labels", int(examples.flipped.sum()))
            yield of_analysis("fitted_kept", "network share of kept labels fitted", fitted[kept].mean())
            yield of_analysis("fitted_flipped", "network share of flipped labels memorized", fitted[~kept].mean())
    for layer in analysis.layers:
        of_layer = section_scope("setting", layer.name)
        yield of_layer("n_features", "features", layer.n_features)
        yield of_layer("n_dimensions", "dimensions", layer.n_dimensions)
        yield of_layer("explained", "share of squares explained", layer.explained)


SECTION = Section("setting", metrics=metrics)
