from __future__ import annotations

import numpy as np
import pytest

from fastdens.analysis.figures import plot_correlations
from tests.analysis.figures.drawing import assert_legible, layers_of, legend_of, segments

PREDICTORS = ("log-density", "relative entropy", "10-NN distance")


@pytest.mark.parametrize("n", [1, 4, 12])
def test_correlations_are_filled_where_significant(axes, rng, n):
    given = {name: rng.uniform(-0.5, 0.5, n) for name in PREDICTORS}
    given["10-NN distance"][0] = np.nan
    parts = {name: (rho, rho - 0.1, rho + 0.2) for name, rho in given.items()}
    significant = {name: rng.integers(0, 2, n).astype(bool) for name in PREDICTORS}
    assert plot_correlations(axes, layers_of(n), parts, significant=significant) is axes
    *lines, zero = axes.lines
    assert set(zero.get_ydata()) == {0}
    for i, name in enumerate(PREDICTORS):
        filled, empty = lines[2 * i : 2 * i + 2]
        known = np.isfinite(given[name])
        np.testing.assert_array_equal(filled.get_ydata(), given[name][significant[name] & known])
        np.testing.assert_array_equal(empty.get_ydata(), given[name][~significant[name] & known])
        assert filled.get_markerfacecolor() == filled.get_color() and empty.get_markerfacecolor() == "white"
    np.testing.assert_array_equal(segments(axes)[0][:, :, 1], np.stack(parts[PREDICTORS[0]][1:], 1))
    assert "open: not significant" in legend_of(axes)
    assert axes.get_title(loc="right") == f"1 of {3 * n} correlations not finite, left out"
    assert_legible(axes)


def test_correlations_without_significance_are_all_filled(axes):
    plot_correlations(axes, ["a"], {"log-density": ([0.3], [0.1], [0.4])}, ylabel="Kendall's τ")
    assert len(axes.lines[0].get_ydata()) == 1 and len(axes.lines[1].get_ydata()) == 0
    assert legend_of(axes) == ["log-density", "interval"]
    with pytest.raises(ValueError, match=r"^correlations of 'p' have 2 parts, but three are drawn"):
        plot_correlations(axes, ["a"], {"p": ([0.3], [0.1])})
    with pytest.raises(ValueError, match=r"^significant names 'q', which is no series; the nearest: 'p'"):
        plot_correlations(axes, ["a"], {"p": ([0.3], [0.1], [0.4])}, significant={"q": [True]})
