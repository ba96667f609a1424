from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens.analysis.figures import plot_distance_and_divergence
from tests.analysis.figures.drawing import assert_legible, bars, legend_of, new_axes, segments


@pytest.mark.parametrize("n", [1, 10, 100])
def test_distance_and_divergence_have_an_axis_each_in_the_colour_of_their_points(axes, rng, n):
    x, distance, entropy = rng.normal(-40, 9, n), rng.gamma(9, 1, n), rng.gamma(3, 9, n)
    errors = {name: rng.uniform(0, 1, n) for name in ("log_density_error", "distance_error", "relative_entropy_error")}
    own, twin = plot_distance_and_divergence(axes, torch.from_numpy(x), distance, entropy, **errors)
    assert own is axes and twin is not axes and axes.figure.axes == [axes, twin]
    for side, y, error in ((own, distance, "distance_error"), (twin, entropy, "relative_entropy_error")):
        (line,), (upright, level) = side.lines, segments(side)
        np.testing.assert_array_equal(np.column_stack(line.get_data()), np.column_stack([x, y]))
        np.testing.assert_array_equal(upright, bars(x, y - errors[error], y + errors[error]))
        ends = np.stack([x - errors["log_density_error"], x + errors["log_density_error"]], 1)
        np.testing.assert_array_equal(level[:, :, 0], ends)
        assert line.get_color() == side.yaxis.label.get_color() == side.yaxis.get_ticklabels()[0].get_color()
    assert own.lines[0].get_marker() != twin.lines[0].get_marker()
    assert own.lines[0].get_color() != twin.lines[0].get_color()
    assert (axes.get_xlabel(), twin.get_ylabel()) == ("mean log-density of the class (nats)", "relative entropy (nats)")
    names = ["mean pairwise distance", "relative entropy"]
    assert legend_of(axes) == [*names, "± 1 standard error"]
    assert legend_of(plot_distance_and_divergence(new_axes(), x, distance, entropy)[0]) == names
    assert_legible(axes)
    if n == 1:
        pixels = [side.transData.transform([x[0], y[0]])[1] for side, y in ((own, distance), (twin, entropy))]
        assert abs(pixels[0] - pixels[1]) > 10


def test_a_class_that_lacks_one_of_the_quantities_is_left_out(axes):
    nan = np.nan
    _, twin = plot_distance_and_divergence(axes, [1, 2, 3, nan], [1, 2, 3, 4], [1, np.inf, 3, 4])
    assert axes.lines[0].get_xdata().tolist() == twin.lines[0].get_xdata().tolist() == [1, 3]
    assert axes.get_title(loc="right") == "2 of 4 classes not finite, left out"
    with pytest.raises(ValueError, match=r"^relative_entropy has shape \(1,\), but it must be \[M\] with M = 2\.$"):
        plot_distance_and_divergence(axes, [1, 2], [1, 2], [1])
    with pytest.raises(ValueError, match=r"^distance_error is -1 at index 1"):
        plot_distance_and_divergence(axes, [1, 2], [1, 2], [1, 2], distance_error=[0, -1])


def test_thousands_of_points_are_pixels_in_a_pdf(rng):
    for n, pixels in ((5_000, False), (5_001, True)):
        values = rng.normal(size=n)
        axes, _ = plot_distance_and_divergence(new_axes(), values, values, values, distance_error=np.ones(n))
        assert all(bool(artist.get_rasterized()) is pixels for artist in (axes.lines[0], axes.collections[0]))
