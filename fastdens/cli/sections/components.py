"""How many components a class needs, and whether the chains that say so agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from fastdens.cli.densities import Chains
from fastdens.cli.page import Number, Numbers, Section, by_layer_html, figure_html, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastdens.cli.analyze import Analysis


def _sampled(analysis: Analysis) -> Iterator[tuple[str, Chains]]:
    """Name and chains of each layer."""
    return ((layer.layer, layer.chains) for layer in analysis.layers if layer.chains is not None)


def _numbers(analysis: Analysis) -> Iterable[Number]:
    for found in analysis.layers:
        yield Number("components", found.n_components.mean(), found.layer)
    for layer, chains in _sampled(analysis):
        mean = chains.n_components.mean((1, 2))
        for quantity, value in {
            "fewest components of a class": mean.min(),
            "most components of a class": mean.max(),
            "classes whose chains agree": chains.n_agreeing,
            "split R-hat limit": chains.limit,
            "largest split R-hat": chains.rhat.max(),
            "smallest effective sample size": chains.effective_sample_size.min(),
            "draws of a class": chains.log_joint[0].size,
        }.items():
            yield Number(quantity, value, layer)
        for c, name in enumerate(analysis.subject.class_names):
            for quantity, value in {
                "class components": mean[c],
                "class components standard deviation": chains.n_components[c].std(ddof=1),
                "class split R-hat": chains.rhat[c],
                "class effective sample size": chains.effective_sample_size[c],
            }.items():
                yield Number(quantity, value, layer, name)


def _component_counts(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_component_counts

    figure, axes = grid(len(analysis.layers))
    for (layer, chains), own in zip(_sampled(analysis), axes, strict=True):
        names = analysis.subject.class_names
        plot_component_counts(own, chains.n_components, names, legend=own is axes[0]).set_title(layer)
    top = max(own.get_ylim()[1] for own in axes)
    for own in axes:
        own.set_ylim(top=top)
    return figure


def _trace(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_trace

    figure, axes = grid(len(analysis.layers))
    for (layer, chains), own in zip(_sampled(analysis), axes, strict=True):
        worst = int(chains.rhat.argmax())
        plot_trace(own, chains.log_joint[worst], "log-joint (nats)", chains.sweeps)
        title = f"{layer}, class {analysis.subject.class_names[worst]}, split R-hat {chains.rhat[worst]:.2f}"
        own.set_title(title, loc="left", fontsize="medium", pad=20)
    return figure


def _agreement_sentence(layer: str, numbers: Numbers) -> str:
    agreeing = numbers.html("classes whose chains agree", layer, digits="d")
    n_classes = numbers.html("classes", digits="d")
    limit = numbers.html("split R-hat limit", layer, digits=".2f")
    return f"At {layer} the chains of {agreeing} of {n_classes} classes agree (split R-hat of at most {limit})."


def _html_of_chains(analysis: Analysis, numbers: Numbers, figures: Mapping[str, bytes]) -> str:
    layers = [layer.layer for layer in analysis.layers]
    counts = ", ".join(f"{numbers.html('components', layer, digits='.2f')} at {layer}" for layer in layers)
    sentences = " ".join(_agreement_sentence(layer, numbers) for layer in layers)
    draws = numbers.html("draws of a class", layers[0], digits="d")
    count_columns = {
        "components": ".2f",
        "fewest components of a class": ".2f",
        "most components of a class": ".2f",
    }
    agreement_columns = {
        "classes whose chains agree": "d",
        "largest split R-hat": ".2f",
        "smallest effective sample size": ".1f",
    }
    caption = (
        "Components that hold points, of each class: mean, middle 90 % and range of the draws kept. A class has on "
        f"average {counts}."
    )
    trace_caption = (
        "Log-joint of points, assignments and concentration in the draws kept, of the class of each layer whose chains "
        f"differ most by split R-hat ({numbers.html('largest split R-hat', layers[-1], digits='.2f')} at {layers[-1]})."
    )
    return f"""
<h2>How many components a class needs</h2>
{figure_html("component_counts", figures["component_counts"], caption)}
{by_layer_html(numbers, layers, count_columns)}

<h2>Do the chains agree?</h2>
<p>{sentences} The limit is the customary one or, where the draws kept are so few that independent ones exceed it by
chance, what those exceed once in a thousand times. R-hat and the effective sample size, of {draws} draws a class, are
those of the log-joint and stand in the table of classes. Where chains disagree, each has found groupings of its own and
stays there; the number of components is then an average over these.</p>
{figure_html("trace", figures["trace"], trace_caption)}
{by_layer_html(numbers, layers, agreement_columns)}
"""


def _html_without_chains(analysis: Analysis, numbers: Numbers, figures: Mapping[str, bytes]) -> str:
    layers = [layer.layer for layer in analysis.layers]
    return f"""
<h2>How many components a class needs</h2>
{by_layer_html(numbers, layers, {"components": "d"})}
"""


COMPONENTS = (
    Section(
        lambda analysis: analysis.options.density == "dp",
        _numbers,
        {"component_counts": _component_counts, "trace": _trace},
        _html_of_chains,
    ),
    Section(lambda analysis: analysis.options.density != "dp", _numbers, {}, _html_without_chains),
)
