from __future__ import annotations

import numpy as np
import pytest

from fastdens.analysis.figures import plot_divergence_by_layer
from tests.analysis.figures.drawing import SUBSETS, assert_legible, layers_of, legend_of, segments


@pytest.mark.parametrize("n", [1, 4, 12])
def test_divergence_is_drawn_by_medians_and_quartiles(axes, rng, n):
    values = {subset: rng.lognormal(1, 0.5, (n, 90)) * np.logspace(0, 3, n)[:, None] for subset in SUBSETS}
    values["random"][0, :7] = [np.inf, np.nan, np.inf, np.nan, np.inf, -np.inf, np.nan]
    assert plot_divergence_by_layer(axes, layers_of(n), values) is axes
    for subset, line, ends in zip(SUBSETS, axes.lines, segments(axes), strict=True):
        own = values[subset]
        finite = [row[np.isfinite(row)] for row in own]
        np.testing.assert_allclose(line.get_ydata(), [np.median(row) for row in finite])
        np.testing.assert_allclose(ends[:, :, 1], [np.percentile(row, [25, 75]) for row in finite])
        np.testing.assert_array_equal(ends[:, 0, 0], line.get_xdata())
        assert np.abs(line.get_xdata() - np.arange(n)).max() < 0.5
    assert len({(line.get_marker(), str(line.get_linestyle())) for line in axes.lines}) == 3
    assert axes.get_yscale() == ("linear" if n == 1 else "log")
    assert axes.get_title(loc="right") == f"7 of {3 * 90 * n:,} values not finite, left out"
    assert legend_of(axes) == [*SUBSETS, "from lower to upper quartile"]
    assert_legible(axes)


def test_divergence_takes_summaries_layers_without_values_and_negative_medians(axes):
    nan = np.nan
    summary = (np.array([1.0, 40, 900]), np.array([0.5, 20, nan]), np.array([2.0, 80, 1000]))
    plot_divergence_by_layer(axes, ["a", "b", "c"], {"summary": summary, "samples": np.full((3, 2), nan)})
    assert axes.lines[0].get_ydata().tolist() == [1, 40, 900]
    assert segments(axes)[0][:, :, 1].tolist() == [[0.5, 2], [20, 80]] and np.isnan(axes.lines[1].get_ydata()).all()
    assert axes.get_yscale() == "log" and axes.get_title(loc="right").startswith("7 of 15 values")
    axes.clear()
    # A list of three rows is samples, for three layers.
    plot_divergence_by_layer(axes, ["a", "b", "c"], {"samples": [[-1, -1], [2, 2], [1000, 1000]]})
    assert axes.lines[0].get_ydata().tolist() == [-1, 2, 1000] and axes.get_yscale() == "linear"
    with pytest.raises(ValueError, match=r"^values of 's' has shape \(2, 5\), but it must be \[L, P\] with L = 3\.$"):
        plot_divergence_by_layer(axes, ["a", "b", "c"], {"s": np.ones((2, 5))})
    with pytest.raises(ValueError, match=r"^values of 's' runs from 3 to 1 at index 0"):
        plot_divergence_by_layer(axes, ["a"], {"s": ([2], [3], [1])})
