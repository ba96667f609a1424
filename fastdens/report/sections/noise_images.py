"""Images of noise: whether the densities tell them apart from test images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastdens.analysis.figures import plot_two_histograms
from fastdens.pipeline.results import Analysis, LayerAnalysis
from fastdens.report.estimates import mean_of
from fastdens.report.figures import literal, panels
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section, known

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def applies(analysis: Analysis) -> bool:
    """Whether images of noise were shown to the network."""
    return all(layer.noise is not None for layer in analysis.layers)


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """Area under the ROC curve, and mean of the largest log-density of both kinds of images."""
    yield section_scope("noise_images")("n_images", "images of noise", len(known(analysis.layers[0].noise).log_density))
    for layer in analysis.layers:
        of_layer, noise = section_scope("noise_images", layer.name), known(layer.noise)
        yield of_layer("auc", "noise AUC", noise.auc, standard_error=noise.auc_standard_error)
        for name, kind, values in (
            ("log_density_noise", "images of noise", noise.log_density),
            ("log_density_test", "test images", noise.test_log_density),
        ):
            quantity = f"mean largest class log-density, {kind}"
            value, error = mean_of(values)
            yield of_layer(name, quantity, value, standard_error=error)


def figures(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    """Histograms of the largest log-density of both kinds of images at each layer."""

    def draw(axes: Axes, layer: LayerAnalysis) -> None:
        noise = known(layer.noise)
        plot_two_histograms(
            axes,
            {"test images": noise.test_log_density, "images of noise": noise.log_density},
            "largest class log-density (nats)",
            "share of images",
        ).set_title(literal(layer.name))

    yield "noise_images", panels(analysis.layers, draw)


SECTION = Section("noise_images", "Images of noise", applies, metrics, figures)
