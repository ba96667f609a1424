from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens.analysis.figures import plot_component_counts
from tests.analysis.figures.drawing import assert_legible, bars, names_of, segments


@pytest.mark.parametrize("n", [1, 10, 30, 100])
def test_component_counts_are_means_middles_and_extremes_of_draws(axes, rng, n):
    counts = rng.integers(1, 9, (n, 4, 25))
    assert plot_component_counts(axes, torch.from_numpy(counts), names_of(n)) is axes
    draws = counts.reshape(n, -1)
    (middle,) = segments(axes)
    np.testing.assert_array_equal(middle, bars(np.arange(n), *np.quantile(draws, [0.05, 0.95], axis=1)))
    fewest, most, mean = axes.lines
    np.testing.assert_array_equal(fewest.get_ydata(), draws.min(1))
    np.testing.assert_array_equal(most.get_ydata(), draws.max(1))
    np.testing.assert_array_equal(mean.get_ydata(), draws.mean(1))
    assert_legible(axes)
    # Neighbours leave white between them.
    between = axes.transData.transform([[0, 1], [1, 1]])[:, 0] * 72 / axes.figure.dpi
    assert axes.collections[0].get_linewidth() < np.diff(between)


def test_a_class_without_components_is_left_out(axes):
    counts = np.full((3, 1, 2), 2.0)
    counts[1] = np.nan
    plot_component_counts(axes, counts, ["a", "b", "c"], legend=False)
    assert axes.lines[-1].get_xdata().tolist() == [0, 2] and axes.get_legend() is None
    assert axes.get_title(loc="right") == "1 of 3 classes not finite, left out"
    with pytest.raises(ValueError, match=r"^n_components has shape \(3, 1, 2\), but it must be \[M, C, S\] with M = 2"):
        plot_component_counts(axes, counts, ["a", "b"])
