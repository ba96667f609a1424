"""How many components a class needs, and whether its chains agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from fastdens.analysis.figures import plot_component_counts, plot_trace
from fastdens.pipeline.results import Analysis, Chains
from fastdens.report.figures import literal, panels
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section

_MOST_NAMED = 10
_MOST_DECIMALS = 6

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


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
    yield of_layer("rhat_limit", "rank-normalised R-hat limit", chains.max_rhat)
    yield of_layer("rhat_max", "largest rank-normalised R-hat", chains.rhat.max())
    yield of_layer("ess_limit", "effective sample size limit", chains.min_effective_sample_size)
    yield of_layer("ess_min", "smallest effective sample size", chains.effective_sample_size.min())
    yield of_layer("n_draws", "draws of a class", chains.log_joint[0].size)
    yield of_layer("n_sweeps_min", "fewest sweeps of a class", chains.n_sweeps.min())
    yield of_layer("n_sweeps_max", "most sweeps of a class", chains.n_sweeps.max())
    splits, accepted_splits, merges, accepted_merges = chains.split_merge.sum((0, 1)).tolist()
    yield of_layer("n_splits", "splits proposed", splits)
    yield of_layer("split_acceptance", "share of splits accepted", accepted_splits / splits if splits else np.nan)
    yield of_layer("n_merges", "merges proposed", merges)
    yield of_layer("merge_acceptance", "share of merges accepted", accepted_merges / merges if merges else np.nan)
    for c, name in enumerate(analysis.examples.class_names):
        of_class = of_layer.of_class(name)
        yield of_class("mean", "class components", mean[c])
        yield of_class("std", "class components standard deviation", chains.n_components[c].std(ddof=1))
        yield of_class("agree", "class chains agree", chains.agree[c])
        yield of_class("rhat", "class rank-normalised R-hat", chains.rhat[c])
        yield of_class("ess", "class effective sample size", chains.effective_sample_size[c])
        yield of_class("n_sweeps", "class sweeps", chains.n_sweeps[c])


def context(analysis: Analysis) -> Mapping[str, object]:
    """What the text says of the chains: which classes it names, with how many decimals, and what was done."""
    sampled = dict(_sampled(analysis))
    n_chains = {chains.log_joint.shape[1] for chains in sampled.values()}
    return {
        "disagreement": {layer: _disagreement(analysis, chains) for layer, chains in sampled.items()},
        "one_chain": n_chains == {1},
        "moved": any(chains.split_merge.any() for chains in sampled.values()),
        "unequal_sweeps": any(np.ptp(chains.n_sweeps) > 0 for chains in sampled.values()),
    }


def _disagreement(analysis: Analysis, chains: Chains) -> dict[str, object]:
    """The classes whose chains do not agree, the worst first, and formats that tell their numbers from the limits."""
    rhat, size = chains.rhat, chains.effective_sample_size
    worst_first = np.lexsort((size, -rhat, ~np.isnan(rhat)))
    worst = worst_first[~chains.agree[worst_first]]
    named = worst[:_MOST_NAMED]
    max_rhat, min_size = chains.max_rhat, chains.min_effective_sample_size
    return {
        "names": [analysis.examples.class_names[c] for c in named],
        "n_others": len(worst) - len(named),
        "rhat_digits": _telling_digits(rhat[named[rhat[named] > max_rhat]], max_rhat, 2),
        "ess_digits": _telling_digits(size[named[size[named] < min_size]], min_size, 1),
    }


def _telling_digits(beyond: NDArray[np.float64], limit: float, decimals: int) -> str:
    """A format of at least so many decimals in which numbers beyond the limit do not look like it."""
    while decimals < _MOST_DECIMALS and any(f"{x:.{decimals}f}" == f"{limit:.{decimals}f}" for x in beyond):
        decimals += 1
    return f".{decimals}f"


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
        plot_trace(axes, chains.log_joint[worst], "log-joint (nats)", chains.sweeps[worst])
        layer, own = literal(layer_name, 24), literal(analysis.examples.class_names[worst], 24)
        title = f"{layer}, class {own}, R-hat {chains.rhat[worst]:.2f}"
        axes.set_title(title, loc="left", fontsize="medium", pad=20)

    return panels(sampled, draw)


SECTION = Section("components", "How many components a class needs", metrics=metrics, figures=figures, context=context)
