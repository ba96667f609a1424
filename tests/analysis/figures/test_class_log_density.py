from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens.analysis import ClassLogDensity, Modes
from fastdens.analysis.figures import BLUE, GREY, ORANGE, plot_class_log_density
from tests.analysis.figures.drawing import assert_legible, bars, names_of, new_axes, segments, two_groups


@pytest.mark.parametrize("n", [2, 10, 30, 100])
def test_class_means_are_sorted_with_their_deviations_intervals_and_line(axes, rng, n):
    density, modes = two_groups(rng, n)
    low, high = density.mean - rng.uniform(0, 2, n), density.mean + rng.uniform(0, 2, n)
    drawn = plot_class_log_density(
        axes, density, modes, names_of(n), mean_interval=(torch.from_numpy(low), high), line_interval=(-55, -44)
    )
    assert drawn is axes
    order = np.argsort(density.mean)
    sparse = modes.group[order] == 0
    drawn_bars = segments(axes)
    for part, (interval, deviation), line in (
        (sparse, drawn_bars[:2], axes.lines[0]),
        (~sparse, drawn_bars[2:], axes.lines[1]),
    ):
        at, c = np.flatnonzero(part), order[part]
        np.testing.assert_array_equal(np.column_stack(line.get_data()), np.column_stack([at, density.mean[c]]))
        np.testing.assert_array_equal(interval, bars(at, low[c], high[c]))
        ends = density.mean[c] - density.std[c], density.mean[c] + density.std[c]
        np.testing.assert_array_equal(deviation, bars(at, *ends))
    first, second = axes.lines[:2]
    assert (first.get_color(), second.get_color()) == (ORANGE, BLUE) and first.get_marker() != second.get_marker()
    assert set(axes.lines[2].get_ydata()) == {-50.0}
    (band,) = [patch for patch in axes.patches if patch.get_label() == "interval of the line"]
    assert (band.get_y(), band.get_height()) == (-55, 11)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"dense ({n // 2} {'class' if n == 2 else 'classes'})" in labels and "line at −50" in labels
    named = [tick.get_text() for tick in axes.get_xticklabels()]
    assert named == [names_of(n)[c] for c in order] if n <= 30 else "sorted" in axes.get_xlabel()
    assert axes.get_ylabel() == "log-density (nats)"
    assert_legible(axes)


def test_one_group_has_neither_line_nor_colours_and_classes_without_a_mean_are_left_out(axes, rng):
    mean = rng.normal(size=5)
    mean[3] = np.nan
    std = np.array([1, np.nan, 1, np.nan, 1])
    one = Modes(1, np.nan, np.zeros(5, np.int64), 0.4, -3.0)
    plot_class_log_density(axes, ClassLogDensity(mean, std, np.full(5, 9)), one, names_of(5))
    (line,) = axes.lines
    assert line.get_color() == GREY
    np.testing.assert_array_equal(line.get_ydata(), np.sort(mean)[:4])
    assert len(segments(axes)[0]) == 3
    assert axes.get_title(loc="right") == "1 of 5 class means not finite, left out; one group"
    single = new_axes()
    density = ClassLogDensity(mean[:1], std[:1], np.array([9]))
    plot_class_log_density(single, density, one._replace(group=np.zeros(1, np.int64)), ["only"], legend=False)
    assert single.get_legend() is None and [tick.get_text() for tick in single.get_xticklabels()] == ["only"]
    assert_legible(single)


def test_intervals_and_names_that_do_not_fit_the_classes_are_refused(axes, rng):
    density, modes = two_groups(rng, 4)
    with pytest.raises(ValueError, match=r"^density\.mean has shape \(4,\), but it must be \[M\] with M = 3\.$"):
        plot_class_log_density(axes, density, modes, names_of(3))
    with pytest.raises(ValueError, match=r"^mean_interval runs from 1 to 0 at index 2: "):
        plot_class_log_density(axes, density, modes, names_of(4), mean_interval=([0, 0, 1, 0], [1, 1, 0, 1]))
    with pytest.raises(ValueError, match=r"^low end of line_interval has shape \(2,\), but it must be one number\.$"):
        plot_class_log_density(axes, density, modes, names_of(4), line_interval=([0, 1], 1))
    with pytest.raises(ValueError, match=r"^none of the 4 class means is finite"):
        plot_class_log_density(axes, density._replace(mean=np.full(4, np.nan)), modes, names_of(4))
    with pytest.raises(ValueError, match=r"^class_names is \[\]: "):
        plot_class_log_density(axes, density, modes, [])


def test_an_interval_of_the_line_that_is_not_known_is_not_drawn(axes, rng):
    density, modes = two_groups(rng, 4)
    plot_class_log_density(axes, density, modes, names_of(4), line_interval=(np.nan, np.nan))
    assert not axes.patches and "interval of the line" not in axes.get_legend_handles_labels()[1]


@pytest.mark.parametrize("name", ["a class with a name of forty letters {}", "W" * 40 + "{}", "漢" * 40 + "{}"])
@pytest.mark.parametrize("n", [3, 30])
@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.filterwarnings("error:constrained_layout")
def test_long_names_of_classes_leave_room_for_the_data(axes, rng, n, name):
    density, modes = two_groups(rng, n)
    plot_class_log_density(axes, density, modes, [name.format(c) for c in range(n)])
    axes.figure.draw_without_rendering()
    assert axes.get_position().height > 0.35
    shown = {tick.get_text() for tick in axes.get_xticklabels()}
    assert len(shown) == n and all("…" in text and len(text) <= 20 for text in shown)
