"""How far apart the examples of a class are, how far its density is from independence, and how far classes differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis.figures import plot_distance_and_divergence, plot_kl_matrix
from fastdens.kernels.optional import require
from fastdens.pipeline.results import Analysis, LayerAnalysis
from fastdens.report.figures import literal, panels
from fastdens.report.metrics import Metric, Scope, section_scope
from fastdens.report.section import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def of_pairs(divergence: NDArray[np.float64]) -> NDArray[np.float64]:
    """The divergences [M, M] of different classes, in one row."""
    return divergence[~np.eye(len(divergence), dtype=bool)]


def kl_over_pairs(scope: Scope, divergence: NDArray[np.float64], prefix: str = "") -> Iterator[Metric]:
    """Median, quartiles, mean and spread of the divergences [M, M] of different classes, none for a single class."""
    if len(divergence) > 1:
        values = of_pairs(divergence)
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        yield scope("kl_median", f"{prefix}median KL divergence", median)
        yield scope("kl_lower_quartile", f"{prefix}lower quartile of the KL divergence", low)
        yield scope("kl_upper_quartile", f"{prefix}upper quartile of the KL divergence", high)
        with np.errstate(invalid="ignore"):
            mean, std = values.mean(), values.std(ddof=1)
        yield scope("kl_mean", f"{prefix}mean KL divergence", mean)
        yield scope("kl_std", f"{prefix}standard deviation of the KL divergence", std)


def mean_of_pairs(analysis: Analysis) -> bool:
    """Whether mean and standard deviation over pairs are shown, as published, in place of median and quartiles."""
    return analysis.options.pair_divergence == "draws"


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """Distances and relative entropies of classes, their correlation with density, and divergences of all pairs."""
    names = analysis.examples.class_names
    for layer in analysis.layers:
        of_layer = section_scope("divergences", layer.name)
        distance, entropy, divergence = layer.distance, layer.relative_entropy, layer.divergence
        for c, name in enumerate(names):
            of_class = of_layer.of_class(name)
            value, error = distance.value[c], distance.standard_error[c]
            yield of_class("distance", "class mean pairwise distance", value, standard_error=error)
            value, error = entropy.value[c], entropy.standard_error[c]
            yield of_class("relative_entropy", "class relative entropy", value, standard_error=error)
        rank = _rank_correlation(layer, distance.value)
        yield of_layer("distance_correlation", "rank correlation of density and distance", rank)
        rank = _rank_correlation(layer, entropy.value)
        yield of_layer("entropy_correlation", "rank correlation of density and relative entropy", rank)
        for i, name in enumerate(names):
            for j, other in enumerate(names):
                value, error = divergence.value[i, j], divergence.standard_error[i, j]
                yield of_layer.of_pair(name, other)("kl", "KL divergence", value, standard_error=error)
        yield from kl_over_pairs(of_layer, divergence.value)


def _rank_correlation(layer: LayerAnalysis, values: NDArray[np.float64]) -> float:
    """Spearman's, of the mean log-density of the classes with their finite values; NaN for fewer than three."""
    finite = np.isfinite(values)
    if finite.sum() < 3:
        return float("nan")
    stats = require("scipy.stats", "write_report", "analysis")
    return float(stats.spearmanr(layer.classes.mean[finite], values[finite])[0])


def figures(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    """Density against distance and relative entropy, and the matrix of divergences."""
    names = [literal(name) for name in analysis.examples.class_names]

    def draw_distance(axes: Axes, layer: LayerAnalysis) -> None:
        plot_distance_and_divergence(
            axes,
            layer.classes.mean,
            layer.distance.value,
            layer.relative_entropy.value,
            distance_error=layer.distance.standard_error,
            relative_entropy_error=layer.relative_entropy.standard_error,
        )
        axes.set_title(literal(layer.name))

    def draw_matrix(axes: Axes, layer: LayerAnalysis) -> None:
        by_density = np.argsort(layer.classes.mean, kind="stable")
        plot_kl_matrix(axes, layer.divergence.value, names, order=by_density).set_title(literal(layer.name))

    yield "distance_and_divergence", panels(analysis.layers, draw_distance)
    yield "kl_matrix", panels(analysis.layers, draw_matrix, height=4.6)


def context(analysis: Analysis) -> Mapping[str, object]:
    """What is shown of the divergences of all pairs."""
    return {"mean_of_pairs": mean_of_pairs(analysis)}


SECTION = Section(
    "divergences", "Density, distance and relative entropy", metrics=metrics, figures=figures, context=context
)
