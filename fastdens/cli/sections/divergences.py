"""How far apart the examples of a class are, how far its density is from independence, and how far classes differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdens.cli.page import Number, Numbers, Section, by_layer_html, figure_html, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastdens.cli.analyze import Analysis
    from fastdens.cli.layer_analysis import LayerAnalysis


def of_pairs(divergence: NDArray[np.float64]) -> NDArray[np.float64]:
    """The divergences [M, M] of different classes, in one row."""
    return divergence[~np.eye(len(divergence), dtype=bool)]


def quartiles(prefix: str, pairs: NDArray[np.float64], layer: str, group: str = "") -> Iterable[Number]:
    """Median and quartiles of the divergences of pairs, under names that begin with ``prefix``."""
    low, median, high = np.quantile(pairs, [0.25, 0.5, 0.75])
    yield Number(f"{prefix}median KL divergence", median, layer, group=group)
    yield Number(f"{prefix}lower quartile of the KL divergence", low, layer, group=group)
    yield Number(f"{prefix}upper quartile of the KL divergence", high, layer, group=group)


def _numbers(analysis: Analysis) -> Iterable[Number]:
    names = analysis.subject.class_names
    for layer in analysis.layers:
        distance, entropy = layer.distance, _arrays(layer.relative_entropy)
        for c, name in enumerate(names):
            yield Number(
                "class mean pairwise distance",
                distance.value[c],
                layer.layer,
                name,
                standard_error=distance.standard_error[c],
            )
            yield Number("class relative entropy", entropy[0][c], layer.layer, name, standard_error=entropy[1][c])
        yield Number("rank correlation of density and distance", _rank(layer, distance.value), layer.layer)
        yield Number("rank correlation of density and relative entropy", _rank(layer, entropy[0]), layer.layer)
        divergence, error = _arrays(layer.divergence)
        for i, name in enumerate(names):
            for j, other in enumerate(names):
                yield Number("KL divergence", divergence[i, j], layer.layer, name, other, standard_error=error[i, j])
        if len(names) > 1:
            yield from quartiles("", of_pairs(divergence), layer.layer)


def _arrays(estimate: tuple) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    value, error = estimate
    return value.cpu().numpy(), error.cpu().numpy()


def _rank(layer: LayerAnalysis, values: NDArray[np.float64]) -> float:
    from scipy.stats import spearmanr

    finite = np.isfinite(values)
    return float(spearmanr(layer.classes.mean[finite], values[finite])[0]) if finite.sum() > 2 else float("nan")


def _distance_and_divergence(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_distance_and_divergence

    figure, axes = grid(len(analysis.layers))
    for layer, own in zip(analysis.layers, axes, strict=True):
        entropy, error = _arrays(layer.relative_entropy)
        plot_distance_and_divergence(
            own,
            layer.classes.mean,
            layer.distance.value,
            entropy,
            distance_error=layer.distance.standard_error,
            relative_entropy_error=error,
        )
        own.set_title(layer.layer)
    return figure


def _kl_matrix(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_kl_matrix

    figure, axes = grid(len(analysis.layers), height=4.6)
    for layer, own in zip(analysis.layers, axes, strict=True):
        plot_kl_matrix(
            own,
            _arrays(layer.divergence)[0],
            analysis.subject.class_names,
            order=np.argsort(layer.classes.mean, kind="stable"),
        )
        own.set_title(layer.layer)
    return figure


def _html(analysis: Analysis, numbers: Numbers, figures: Mapping[str, bytes]) -> str:
    layers, n = [layer.layer for layer in analysis.layers], numbers.html
    first, last = layers[0], layers[-1]
    distance, entropy = (f"rank correlation of density and {what}" for what in ("distance", "relative entropy"))
    columns = {distance: ".2f", entropy: ".2f"}
    pairs = ""
    if len(analysis.subject.class_names) > 1:
        columns |= {
            "lower quartile of the KL divergence": ".2f",
            "median KL divergence": ".2f",
            "upper quartile of the KL divergence": ".2f",
        }
        pairs = (
            f" Its median over pairs is {n('median KL divergence', first, digits='.2f')} nats at {first} and "
            f"{n('median KL divergence', last, digits='.2f')} at {last}."
        )
    return f"""
<h2>Density, distance and relative entropy</h2>
{
        figure_html(
            "distance_and_divergence",
            figures["distance_and_divergence"],
            "Mean log-density of each class against the mean Euclidean distance between pairs of its examples (left "
            "axis) and against the KL divergence of its density from the Gaussian of independent features with the "
            f"same means and variances (right axis). At {last} the rank correlation with the distance is "
            f"{n(distance, last, digits='.2f')} and with the relative entropy {n(entropy, last, digits='.2f')}.",
        )
    }
{
        figure_html(
            "kl_matrix",
            figures["kl_matrix"],
            "KL divergence of the density of each class (row) from that of each other (column), classes sorted by mean "
            f"log-density.{pairs}",
        )
    }
{by_layer_html(numbers, layers, columns)}"""


DIVERGENCES = Section(
    lambda analysis: True,
    _numbers,
    {"distance_and_divergence": _distance_and_divergence, "kl_matrix": _kl_matrix},
    _html,
)
