"""Densely and sparsely fitted classes: the line, its interval, and whether layers and seeds split alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fastdens.cli.page import Number, Numbers, Section, by_layer_html, figure_html, grid, single

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastdens.cli.analyze import Analysis


def _numbers(analysis: Analysis) -> Iterable[Number]:
    names, layers = analysis.subject.class_names, [layer.layer for layer in analysis.layers]
    for at, layer in enumerate(analysis.layers):
        modes, intervals = layer.modes, layer.intervals
        yield Number("groups", modes.n_groups, layer.layer)
        yield Number("line", modes.line, layer.layer, low=intervals.line_low, high=intervals.line_high)
        yield Number("dip test p-value", modes.dip_pvalue, layer.layer)
        yield Number("mode test p-value", modes.pvalue, layer.layer)
        yield Number("BIC gain of two groups", modes.bic_gain, layer.layer)
        yield Number("classes above the line", int(modes.group.sum()), layer.layer)
        for c, name in enumerate(names):
            yield Number("class examples", layer.classes.size[c], layer.layer, name)
            yield Number(
                "class log-density",
                layer.classes.mean[c],
                layer.layer,
                name,
                low=intervals.mean_low[c],
                high=intervals.mean_high[c],
            )
            yield Number("class log-density standard deviation", layer.classes.std[c], layer.layer, name)
            yield Number("class group", modes.group[c], layer.layer, name)
            yield Number("class share of resamples above the line", intervals.membership[c], layer.layer, name)
        for other, agreement in zip(layers, analysis.layer_agreement[at], strict=True):
            yield Number("adjusted Rand index of layers", agreement, layer.layer, group=other)
        if analysis.seed_agreement is not None:
            matrix = analysis.seed_agreement[at]
            n = len(matrix)
            yield Number("adjusted Rand index of seeds", (matrix.sum() - n) / (n * (n - 1)), layer.layer)


def _class_log_density(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_class_log_density

    figure, axes = grid(len(analysis.layers))
    for layer, own in zip(analysis.layers, axes, strict=True):
        ends = layer.intervals
        plot_class_log_density(
            own,
            layer.classes,
            layer.modes,
            analysis.subject.class_names,
            mean_interval=(ends.mean_low, ends.mean_high),
            line_interval=(ends.line_low, ends.line_high) if layer.modes.n_groups == 2 else None,
            legend=layer is analysis.layers[0] or layer.modes.n_groups == 2,
        ).set_title(layer.layer)
    return figure


def _agreement(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_split_agreement

    size = 3 + 0.45 * len(analysis.layers)
    figure, axes = single(size + 1.2, size)
    plot_split_agreement(axes, analysis.layer_agreement, [layer.layer for layer in analysis.layers])
    return figure


def _sentence(layer: str, n_groups: int, numbers: Numbers) -> str:
    pvalue = numbers.html("mode test p-value", layer, digits=".2g")
    if n_groups == 1:
        return f"{layer}: one group (p = {pvalue})"
    line = numbers.html("line", layer, digits=".4g")
    above = numbers.html("classes above the line", layer, digits="d")
    return f"{layer}: two groups, {above} classes above a line at {line} (p = {pvalue})"


def _html(analysis: Analysis, numbers: Numbers, figures: Mapping[str, bytes]) -> str:
    layers = [layer.layer for layer in analysis.layers]
    sentences = "; ".join(_sentence(layer.layer, layer.modes.n_groups, numbers) for layer in analysis.layers)
    columns = {
        "groups": "d",
        "line": ".4g",
        "classes above the line": "d",
        "mode test p-value": ".2g",
        "dip test p-value": ".2g",
        "BIC gain of two groups": ".2f",
    }
    first, last = layers[0], layers[-1]
    seeds = ""
    if analysis.seed_agreement is not None:
        n_seeds = len(analysis.seed_agreement[0])
        columns["adjusted Rand index of seeds"] = ".2f"
        seeds = (
            f" Between {n_seeds} networks trained from different seeds it is "
            f"{numbers.html('adjusted Rand index of seeds', last, digits='.2f')} at {last}, on average over pairs."
        )
    return f"""
<h2>Densely and sparsely fitted classes</h2>
{
        figure_html(
            "class_log_density",
            figures["class_log_density"],
            "Mean log-density of each class, sorted, with bars of one standard deviation over its examples. Classes "
            "are split by a line in the widest gap between two groups where a test of one mode and the BIC of two "
            f"Gaussians against one both ask for two; brackets are 95 % bootstrap intervals. {sentences}.",
        )
    }
{by_layer_html(numbers, layers, columns)}
{
        figure_html(
            "split_agreement",
            figures["split_agreement"],
            "Adjusted Rand index of the groups that two layers split the classes into (1: the same, 0: as by chance; "
            "two layers of one group agree). Between the first layer and the last it is "
            f"{numbers.html('adjusted Rand index of layers', first, digits='.2f', group=last)}.{seeds}",
        )
    }"""


MODES = Section(
    lambda analysis: True,
    _numbers,
    {"class_log_density": _class_log_density, "split_agreement": _agreement},
    _html,
)
