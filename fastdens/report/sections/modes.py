"""Densely and sparsely fitted classes: the line, its interval, and whether layers and seeds split alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis.figures import plot_class_log_density, plot_split_agreement
from fastdens.pipeline.results import Analysis, LayerAnalysis
from fastdens.report.figures import literal, panels, single
from fastdens.report.metrics import Metric, Scope, section_scope
from fastdens.report.section import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """Groups of the classes, the line between them, every class, and agreement of the groups."""
    for at, layer in enumerate(analysis.layers):
        of_layer = section_scope("modes", layer.name)
        modes, intervals = layer.modes, layer.intervals
        yield of_layer("n_groups", "groups", modes.n_groups)
        yield of_layer("line", "line", modes.line, low=intervals.line_low, high=intervals.line_high)
        yield of_layer("dip_pvalue", "dip test p-value", modes.dip_pvalue)
        yield of_layer("pvalue", "mode test p-value", modes.pvalue)
        yield of_layer("bic_gain", "BIC gain of two groups", modes.bic_gain)
        yield of_layer("n_above_line", "classes above the line", int(modes.group.sum()))
        yield from _class_metrics(analysis, layer)
        for other, agreement in zip(analysis.layer_names, analysis.layer_agreement[at], strict=True):
            of_pair = of_layer.of_group("layer", other, other)
            yield of_pair("rand_index", "adjusted Rand index of layers", agreement)
        if analysis.seed_agreement is not None:
            yield from _seed_metrics(of_layer, analysis.seed_agreement[at])


def _seed_metrics(of_layer: Scope, agreement: NDArray[np.float64]) -> Iterator[Metric]:
    """Networks with groups, and agreement [S, S] of the pairs of networks that have any to compare."""
    of_pairs = agreement[np.triu_indices(len(agreement), 1)]
    of_pairs = of_pairs[np.isfinite(of_pairs)]
    mean, low, high = (of_pairs.mean(), of_pairs.min(), of_pairs.max()) if len(of_pairs) else (np.nan,) * 3
    yield of_layer("n_networks", "networks of different seeds", len(agreement))
    # A split of several groups agrees with itself, a single group has no index.
    yield of_layer("n_networks_with_groups", "networks with two groups", int(np.isfinite(agreement.diagonal()).sum()))
    yield of_layer("n_seed_pairs", "pairs of networks with groups to compare", len(of_pairs))
    yield of_layer("rand_index_of_seeds", "adjusted Rand index of seeds", mean)
    yield of_layer("rand_index_of_seeds_min", "smallest adjusted Rand index of seeds", low)
    yield of_layer("rand_index_of_seeds_max", "largest adjusted Rand index of seeds", high)


def _class_metrics(analysis: Analysis, layer: LayerAnalysis) -> Iterator[Metric]:
    classes, intervals = layer.classes, layer.intervals
    for c, name in enumerate(analysis.examples.class_names):
        of_class = section_scope("modes", layer.name).of_class(name)
        yield of_class("n_examples", "class examples", classes.size[c])
        low, high = intervals.mean_low[c], intervals.mean_high[c]
        yield of_class("log_density", "class log-density", classes.mean[c], low=low, high=high)
        yield of_class("log_density_std", "class log-density standard deviation", classes.std[c])
        yield of_class("group", "class group", layer.modes.group[c])
        yield of_class("share_above_line", "class share of resamples above the line", intervals.membership[c])


def figures(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    """Mean log-density of every class, and agreement of the layers."""
    names = [literal(name) for name in analysis.examples.class_names]

    def draw(axes: Axes, layer: LayerAnalysis) -> None:
        ends = layer.intervals
        plot_class_log_density(
            axes,
            layer.classes,
            layer.modes,
            names,
            mean_interval=(ends.mean_low, ends.mean_high),
            line_interval=(ends.line_low, ends.line_high) if layer.modes.n_groups == 2 else None,
            legend=layer is analysis.layers[0] or layer.modes.n_groups == 2,
        ).set_title(literal(layer.name))

    yield "class_log_density", panels(analysis.layers, draw)
    if not _any_groups(analysis):
        return
    size = 3 + 0.45 * len(analysis.layers)
    figure, axes = single(size + 1.2, size)
    plot_split_agreement(axes, analysis.layer_agreement, [literal(name) for name in analysis.layer_names])
    yield "split_agreement", figure


def _any_groups(analysis: Analysis) -> bool:
    """Whether the classes of some layer fall into two groups."""
    return any(layer.modes.n_groups == 2 for layer in analysis.layers)


def context(analysis: Analysis) -> Mapping[str, object]:
    """Whether there are groups to compare between layers."""
    return {"any_groups": _any_groups(analysis)}


SECTION = Section("modes", "Densely and sparsely fitted classes", metrics=metrics, figures=figures, context=context)
