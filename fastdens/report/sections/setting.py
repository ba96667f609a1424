"""The setting: examples, classes, the network, the densities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastdens.inference.schedule import Schedule, most_sweeps
from fastdens.pipeline.densities import INIT_COMPONENTS, MAX_COMPONENTS
from fastdens.pipeline.options import burn_in
from fastdens.pipeline.results import Analysis
from fastdens.report.estimates import share_of
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section
from fastdens.report.sections import flipped_labels


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """How many examples and classes there are, how well the network fits them, and how layers were projected."""
    examples, of_analysis = analysis.examples, section_scope("setting")
    yield of_analysis("n_examples", "training examples", len(examples.labels))
    yield of_analysis("n_classes", "classes", len(examples.class_names))
    if examples.test_labels is not None:
        yield of_analysis("n_test_examples", "test examples", len(examples.test_labels))
    if examples.test_predicted is not None and examples.test_labels is not None:
        share, error = share_of(examples.test_predicted == examples.test_labels)
        yield of_analysis("test_accuracy", "network test accuracy", share, standard_error=error)
    flipped = flipped_labels.flipped_examples(analysis)
    if flipped.any():
        yield of_analysis("n_flipped", "flipped labels", int(flipped.sum()))
    if examples.train_predicted is not None:
        fitted = examples.train_predicted == examples.labels
        if flipped.any():
            share, error = share_of(fitted[~flipped])
            yield of_analysis("fitted_kept", "network share of kept labels fitted", share, standard_error=error)
            share, error = share_of(fitted[flipped])
            yield of_analysis("fitted_flipped", "network share of flipped labels fitted", share, standard_error=error)
        else:
            share, error = share_of(fitted)
            yield of_analysis("fitted", "network share of labels fitted", share, standard_error=error)
    for layer in analysis.layers:
        of_layer = section_scope("setting", layer.name)
        yield of_layer("n_features", "features", layer.n_features)
        yield of_layer("n_dimensions", "dimensions", layer.n_dimensions)
        yield of_layer("explained", "share of squares explained", layer.explained)
        if layer.n_left_out:
            yield of_layer("n_left_out", "dimensions left out, constant in a class", layer.n_left_out)


def context(analysis: Analysis) -> Mapping[str, object]:
    """Whether labels were flipped, and constants of the densities."""
    options = analysis.options
    schedule = Schedule.of(burn_in(options.sweeps), options.thin, options.search)
    return {
        "any_flipped": flipped_labels.applies(analysis),
        "burn_in": schedule.burn_in,
        "init_components": INIT_COMPONENTS,
        "max_components": MAX_COMPONENTS,
        "most_sweeps": most_sweeps(options.sweeps, options.max_sweeps),
        "n_search": schedule.n_search,
    }


SECTION = Section("setting", "Setting", metrics=metrics, context=context)
