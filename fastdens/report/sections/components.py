"""How many components a class needs, and whether its chains agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastdens.analysis.figures import plot_component_counts, plot_trace
from fastdens.pipeline.results import Analysis, Chains
from fastdens.report.figures import literal, panels
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """Components of each layer; of a sampled density also those of each class, and how its chains agree."""
    for layer in analysis.layers:
        yield section_scope("components", layer.name)("mean", "components", layer.n_components.mean())
    for layer_name, chains in _sampled(analysis):
        yield from _chain_metrics(analysis, layer_name, chains)


def _sampled(analysis: Analysis) -> list[tuple[str, Chains]]:
    """Name and chains of each layer whose density was sampled."""
    return [(layer.name, layer.chains) for layer in analysis.layers if layer.chains is not None]


def _chain_metrics(analysis: Analysis, layer_name: str, chains: Chains) -> Iterator[Metric]:
    of_layer = section_scope("components", layer_name)
    mean = chains.n_components.mean((1, 2))
    yield of_layer("min", "fewest components of a class", mean.min())
    yield of_layer("max", "most components of a class", mean.max())
    yield of_layer("n_agreeing", "classes whose chains agree", chains.n_agreeing)
    yield of_layer("rhat_limit", "split R-hat limit", chains.limit)
    yield of_layer("rhat_max", "largest split R-hat", chains.rhat.max())
    yield of_layer("ess_min", "smallest effective sample size", chains.effective_sample_size.min())
    yield of_layer("n_draws", "draws of a class", chains.log_joint[0].size)
    for c, name in enumerate(analysis.examples.class_names):
        of_class = of_layer.of_class(name)
        yield of_class("mean", "class components", mean[c])
        yield of_class("std", "class components standard deviation", chains.n_components[c].std(ddof=1))
        yield of_class("rhat", "class split R-hat", chains.rhat[c])
        yield of_class("ess", "class effective sample size", chains.effective_sample_size[c])


def figures(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    """Number of components of every class, and traces of the class whose chains agree least."""
    sampled = _sampled(analysis)
    if sampled:
        yield "component_counts", _component_counts(analysis, sampled)
        yield "trace", _trace(analysis, sampled)


def _component_counts(analysis: Analysis, sampled: list[tuple[str, Chains]]) -> Figure:
    names = [literal(name) for name in analysis.examples.class_names]

    def draw(axes: Axes, of_layer: tuple[str, Chains]) -> None:
        layer_name, chains = of_layer
        legend = of_layer is sampled[0]
        plot_component_counts(axes, chains.n_components, names, legend=legend).set_title(literal(layer_name))

    figure = panels(sampled, draw)
    top = max(axes.get_ylim()[1] for axes in figure.axes)
    for axes in figure.axes:
        axes.set_ylim(top=top)
    return figure


def _trace(analysis: Analysis, sampled: list[tuple[str, Chains]]) -> Figure:
    def draw(axes: Axes, of_layer: tuple[str, Chains]) -> None:
        layer_name, chains = of_layer
        worst = int(chains.rhat.argmax())
        plot_trace(axes, chains.log_joint[worst], "log-joint (nats)", chains.sweeps)
        layer, own = literal(layer_name, 24), literal(analysis.examples.class_names[worst], 24)
        title = f"{layer}, class {own}, split R-hat {chains.rhat[worst]:.2f}"
        axes.set_title(title, loc="left", fontsize="medium", pad=20)

    return panels(sampled, draw)


SECTION = Section("components", metrics=metrics, figures=figures)
