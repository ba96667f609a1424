from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens.analysis.figures import plot_by_bin, plot_certified_accuracy
from tests.analysis.figures.drawing import assert_legible, bars, legend_of, new_axes, segments


@pytest.mark.parametrize("n", [1, 10, 60])
def test_bins_count_from_one_with_errors_or_intervals(axes, rng, n):
    values, error = rng.uniform(0, 1, n), rng.uniform(0, 0.1, n)
    assert plot_by_bin(axes, torch.from_numpy(values), "memorization score", errors=error) is axes
    x = np.arange(1, n + 1)
    np.testing.assert_array_equal(np.column_stack(axes.lines[0].get_data()), np.column_stack([x, values]))
    np.testing.assert_array_equal(segments(axes)[0], bars(x, values - error, values + error))
    assert axes.get_ylabel() == "memorization score" and "least to most dense" in axes.get_xlabel()
    assert legend_of(axes) == ["± 1 standard error"]
    assert not legend_of(plot_by_bin(new_axes(), values, "radius"))
    assert_legible(axes)
    several = new_axes()
    modes = {"dense mode": values, "sparse mode": values / 2}
    plot_by_bin(several, modes, "radius", intervals={name: (v - 0.1, v + 0.3) for name, v in modes.items()})
    for line, ends, v in zip(several.lines, segments(several), modes.values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), v)
        np.testing.assert_array_equal(ends, bars(line.get_xdata(), v - 0.1, v + 0.3))
    assert legend_of(several) == [*modes, "interval"]
    assert_legible(several)


def test_an_estimate_may_lie_outside_its_interval_and_a_bin_may_be_empty(axes):
    plot_by_bin(axes, [0.5, np.nan, 0.2], "PGD accuracy", intervals=([0.6, 0, 0.1], [0.7, 1, 0.3]))
    assert segments(axes)[0].tolist() == [[[1, 0.6], [1, 0.7]], [[3, 0.1], [3, 0.3]]]
    assert axes.get_title(loc="right") == "1 without a value"
    with pytest.raises(ValueError, match=r"^intervals and errors are both given"):
        plot_by_bin(axes, [1.0], "y", intervals=([0], [2]), errors=[1])
    with pytest.raises(ValueError, match=r"^values of 'b' has shape \(1,\), but it must be \[B\] with B = 2\.$"):
        plot_by_bin(axes, {"a": [1, 2], "b": [1]}, "y")
    with pytest.raises(ValueError, match=r"^intervals has 3 parts, but an interval has two"):
        plot_by_bin(axes, [1.0, 2.0], "y", intervals=([0, 0], [1, 1], [2, 2]))
    with pytest.raises(ValueError, match=r"^values is empty"):
        plot_by_bin(axes, [], "y")


@pytest.mark.parametrize("n", [1, 3, 10, 40])
def test_certified_accuracy_has_a_curve_for_each_bin(axes, rng, n):
    radii = np.linspace(0, 2, 21)
    curves = {f"bin {b}": np.sort(rng.uniform(0, 1, 21))[::-1] for b in range(n)}
    assert plot_certified_accuracy(axes, radii, curves) is axes
    for line, curve in zip(axes.lines, curves.values(), strict=True):
        np.testing.assert_array_equal(np.column_stack(line.get_data()), np.column_stack([radii, curve]))
    assert len({str(line.get_color()) for line in axes.lines}) == n
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert named == list(curves) if n <= 12 else (named[0], named[-1], len(named)) == ("bin 0", "bin 39", 12)
    assert_legible(axes)


def test_curves_of_certified_accuracy_that_cannot_be_are_refused(axes):
    with pytest.raises(ValueError, match=r"^radii do not increase"):
        plot_certified_accuracy(axes, [0, 1, 1], {"a": [1, 0.5, 0.2]})
    with pytest.raises(ValueError, match=r"^accuracy of 'a' has a value of 95, but all lie between 0 and 1\.$"):
        plot_certified_accuracy(axes, [0, 1], {"a": [95, 0.5]})
