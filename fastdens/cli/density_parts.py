"""What the report says of one density only: its name, its columns, its figures, its section."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from fastdens.cli.densities import INIT_COMPONENTS, MAX_COMPONENTS, THIN, Chains, burn_in
from fastdens.cli.page import Number, Numbers, figure_html, grid, table_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastdens.cli.analyze import Analysis, AnalyzeOptions

_AGREEMENT_COLUMNS = {
    "classes whose chains agree": "d",
    "largest split R-hat": ".2f",
    "smallest effective sample size": ".1f",
}

FigureOf = Callable[["Analysis"], "Figure"]


class DensityParts(NamedTuple):
    """Parts of the report that belong to one density; columns are quantities and how their numbers are shown, the
    caveat is what to bear in mind of the densities of flipped labels."""

    name: str
    how: Callable[[AnalyzeOptions], str]
    numbers: Callable[[Analysis], Iterable[Number]]
    stage_columns: Mapping[str, str]
    class_columns: Mapping[str, str]
    figures: Mapping[str, FigureOf]
    caveat: str
    section: Callable[[Analysis, Numbers, Mapping[str, bytes]], str]


def _how_components_were_chosen(options: AnalyzeOptions) -> str:
    if options.components:
        return f"by EM, with {options.components} components a class"
    return (
        f"by EM, with as many components, up to {MAX_COMPONENTS}, as give the least BIC over all classes of the stage"
    )


def _how_chains_were_run(options: AnalyzeOptions) -> str:
    assert options.sweeps is not None
    first = burn_in(options.sweeps)
    return (
        f"by collapsed Gibbs sampling: {options.chains} chains of {options.sweeps} sweeps for each class, started from "
        f"{INIT_COMPONENTS} components assigned at random; after the first {first} every {THIN}th was kept. A "
        "density is the posterior predictive one, averaged over all draws kept"
    )


def _sampled(analysis: Analysis) -> Iterable[tuple[str, Chains]]:
    """Name and chains of each stage."""
    return ((stage.layer, stage.chains) for stage in analysis.stages if stage.chains is not None)


def _chain_numbers(analysis: Analysis) -> Iterable[Number]:
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
            yield Number(quantity, layer, "", float(value))
        for c, name in enumerate(analysis.images.class_names):
            for quantity, value in {
                "class components": mean[c],
                "class components standard deviation": chains.n_components[c].std(ddof=1),
                "class split R-hat": chains.rhat[c],
                "class effective sample size": chains.effective_sample_size[c],
            }.items():
                yield Number(quantity, layer, name, float(value))


def _component_counts_figure(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_component_counts

    figure, axes = grid(len(analysis.stages))
    for (layer, chains), own in zip(_sampled(analysis), axes, strict=True):
        plot_component_counts(own, chains.n_components, analysis.images.class_names).set_title(layer)
    top = max(own.get_ylim()[1] for own in axes)
    for own in axes:
        own.set_ylim(top=top)
    axes[0].legend(frameon=False, fontsize="small", loc="upper right")
    return figure


def _trace_figure(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_trace

    figure, axes = grid(len(analysis.stages))
    for (layer, chains), own in zip(_sampled(analysis), axes, strict=True):
        worst = int(chains.rhat.argmax())
        plot_trace(own, chains.log_joint[worst], "log-joint (nats)", chains.sweeps)
        title = f"{layer}, class {analysis.images.class_names[worst]}, split R-hat {chains.rhat[worst]:.2f}"
        own.set_title(title, loc="left", fontsize="medium", pad=20)
    return figure


def _agreement_sentence(layer: str, numbers: Numbers) -> str:
    agreeing = numbers.html("classes whose chains agree", layer, digits="d")
    n_classes = numbers.html("classes", digits="d")
    limit = numbers.html("split R-hat limit", layer, digits=".2f")
    return f"At {layer} the chains of {agreeing} of {n_classes} classes agree (split R-hat of at most {limit})."


def _chains_section(analysis: Analysis, numbers: Numbers, figures: Mapping[str, bytes]) -> str:
    layers = [stage.layer for stage in analysis.stages]
    counts = ", ".join(f"{numbers.html('components', layer, digits='.2f')} at {layer}" for layer in layers)
    sentences = " ".join(_agreement_sentence(layer, numbers) for layer in layers)
    draws = numbers.html("draws of a class", layers[0], digits="d")
    agreement = table_html(
        ["stage", *_AGREEMENT_COLUMNS],
        [[layer, *(numbers.html(q, layer, digits=d) for q, d in _AGREEMENT_COLUMNS.items())] for layer in layers],
    )
    caption = (
        "Components that hold points, of each class: mean, middle 90 % and range of the draws kept. A class has on "
        f"average {counts}."
    )
    trace_caption = (
        "Log-joint of points, assignments and concentration in the draws kept, of the class of each stage whose chains "
        "differ most by split R-hat."
    )
    return f"""
<h2>How many components a class needs</h2>
{figure_html("component_counts", figures["component_counts"], caption)}

<h2>Do the chains agree?</h2>
<p>{sentences} The limit is the customary one or, where the draws kept are so few that independent ones exceed it by
chance, what those exceed once in a thousand times. R-hat and the effective sample size, of {draws} draws a class, are
those of the log-joint and stand in the table of classes. Where chains disagree, each has found groupings of its own and
stays there; the number of components is then an average over these.</p>
{figure_html("trace", figures["trace"], trace_caption)}
{agreement}
"""


DENSITY_PARTS = {
    "dp": DensityParts(
        "Dirichlet-process mixture of Gaussians",
        _how_chains_were_run,
        _chain_numbers,
        {
            "components": ".2f",
            "fewest components of a class": ".2f",
            "most components of a class": ".2f",
        },
        {
            "class components": ".2f",
            "class components standard deviation": ".2f",
            "class split R-hat": ".3f",
            "class effective sample size": ".1f",
        },
        {"component_counts": _component_counts_figure, "trace": _trace_figure},
        "Each example is left out of its own component when it is scored: a few flipped ones that have a component of "
        "their own would be dense under it.",
        _chains_section,
    ),
    "gmm": DensityParts(
        "mixture of Gaussians",
        _how_components_were_chosen,
        lambda analysis: (),
        {"components": "d"},
        {},
        {},
        "",
        lambda analysis, numbers, figures: "",
    ),
}
