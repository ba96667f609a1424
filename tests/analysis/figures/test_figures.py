"""Rules that all figures keep."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fastdens.analysis import figures
from fastdens.analysis.figures import (
    plot_by_bin,
    plot_class_log_density,
    plot_component_counts,
    plot_correlations,
    plot_distance_and_divergence,
    plot_divergence_by_layer,
    plot_kl_matrix,
    plot_scores,
    plot_split_agreement,
    plot_subset_scores,
    save_figure,
)
from tests.analysis.figures.drawing import assert_legible, names_of, new_axes, two_groups


def test_figures_without_a_single_value_say_so():
    nan = np.full(3, np.nan)
    names = ["a", "b", "c"]
    for axes, said in (
        (plot_distance_and_divergence(new_axes(), nan, nan, nan)[0], "3 of 3 classes not finite, left out"),
        (plot_component_counts(new_axes(), nan[:, None, None], names), "3 of 3 classes not finite, left out"),
        (plot_divergence_by_layer(new_axes(), names, {"s": nan[:, None]}), "3 of 3 values not finite, left out"),
        (plot_correlations(new_axes(), names, {"p": (nan, nan, nan)}), "3 of 3 correlations not finite, left out"),
        (plot_kl_matrix(new_axes(), np.full((3, 3), np.nan), names), "6 of 6 values not finite, left out"),
        (plot_by_bin(new_axes(), nan, "radius", errors=nan), "3 without a value"),
    ):
        assert axes.get_title(loc="right") == said
        assert_legible(axes)
    assert_legible(plot_subset_scores(new_axes(), names, {"s": nan}))
    assert_legible(plot_scores(new_axes(), names, nan, 0.5))
    assert_legible(plot_split_agreement(new_axes(), np.full((3, 3), np.nan), names))


def test_axes_of_a_part_of_a_figure_do_as_well(rng):
    part = Figure(figsize=(8, 4), layout="constrained").subfigures(1, 2)[0]
    density, modes = two_groups(rng, 10)
    assert_legible(plot_class_log_density(part.subplots(), density, modes, names_of(10)))


def test_nothing_global_is_changed(rng, tmp_path):
    before = dict(matplotlib.rcParams)
    density, modes = two_groups(rng, 10)
    axes = plot_class_log_density(new_axes(), density, modes, names_of(10))
    save_figure(axes.figure, tmp_path / "figure")
    assert dict(matplotlib.rcParams) == before and plt.get_fignums() == []
    assert all(hasattr(figures, name) for name in figures.__all__)
