"""Figures of a comparison: the classes of A against those of B, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fastdens.analysis.figures import plot_paired_classes
from fastdens.pipeline.comparison import Comparison, LayerComparison
from fastdens.report.figures import literal, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figures(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    """Class densities of B against those of A, with the classes that change group."""
    names = [literal(name) for name in comparison.class_names]

    def draw(axes: Axes, layer: LayerComparison) -> None:
        a, b = layer.a, layer.b
        plot_paired_classes(
            axes,
            a.mean,
            b.mean,
            names,
            a_interval=(a.mean_low, a.mean_high),
            b_interval=(b.mean_low, b.mean_high),
            changed=np.isin(comparison.class_names, layer.changed),
        ).set_title(literal(a.name if a.name == b.name else f"{a.name}, {b.name}"))

    yield "class_densities", panels(comparison.layers, draw, height=4.4)
