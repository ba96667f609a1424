"""Figures: what is drawn where, read back from the axes."""

from __future__ import annotations

from itertools import pairwise

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from fastdens.analysis import figures
from fastdens.analysis.class_log_density import ClassLogDensity
from fastdens.analysis.figures import (
    BLUE,
    GREY,
    ORANGE,
    plot_by_bin,
    plot_certified_accuracy,
    plot_class_log_density,
    plot_component_counts,
    plot_correlations,
    plot_distance_and_divergence,
    plot_divergence_by_layer,
    plot_flipped,
    plot_kl_matrix,
    plot_scores,
    plot_split_agreement,
    plot_subset_scores,
    plot_trace,
    save_figure,
)
from fastdens.analysis.modes import Modes

SUBSETS = ("most memorized", "least memorized", "random")
PREDICTORS = ("log-density", "relative entropy", "10-NN distance")


def new_axes():
    return Figure(figsize=(5.5, 3.6), layout="constrained").subplots()


@pytest.fixture
def axes():
    return new_axes()


def names_of(n):
    return [str(c) if n <= 10 else f"class {c}" for c in range(n)]


def layers_of(n):
    return [f"blocks.{k}.mlp" for k in range(n)] if n > 4 else [f"stage {k + 1}" for k in range(n)]


def segments(axes):
    """Ends of all bars, one array [n, 2, 2] a collection."""
    return [
        np.array(lines.get_segments())
        for lines in axes.collections
        if isinstance(lines, LineCollection) and lines.get_segments()
    ]


def points(axes):
    """Data of all lines that have a label of their own or a marker."""
    return [np.column_stack([line.get_xdata(), line.get_ydata()]) for line in axes.lines]


def bars(mean, low, high):
    return np.stack([np.column_stack([mean, low]), np.column_stack([mean, high])], 1)


def assert_legible(axes):
    """Text of 8 points and more; ticks that do not run into each other; data beside the legend, not under it."""
    figure = axes.figure.figure
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert texts and min(text.get_fontsize() for text in texts) >= 8
    for axis, low, high in ((axes.xaxis, "x0", "x1"), (axes.yaxis, "y0", "y1")):
        limits = sorted(axis.get_view_interval())
        boxes = [
            tick.label1.get_window_extent()
            for tick in axis.get_major_ticks()
            if tick.label1.get_text() and limits[0] <= tick.get_loc() <= limits[1]
        ]
        boxes.sort(key=lambda box: getattr(box, low))
        for first, second in pairwise(boxes):
            assert getattr(first, high) <= getattr(second, low)
    if axes.get_legend() is None:
        return
    legend = axes.get_legend().get_window_extent()
    assert legend.x1 <= axes.bbox.x1 + 1
    twins = [own for own in figure.axes if own.bbox.bounds == axes.bbox.bounds]
    for own in twins:
        data = points(own) + [ends.reshape(-1, 2) for ends in segments(own)]
        for patch in own.patches:
            left, top, width = patch.get_extents().x0, patch.get_extents().y1, patch.get_extents().width
            corners = own.transData.inverted().transform([[left, top], [left + width, top]])
            if patch.get_label() != "interval of the line":
                data.append(corners)
        for shape in data:
            xy = own.transData.transform(np.asarray(shape, float))
            inside = (xy[:, 0] > legend.x0) & (xy[:, 0] < legend.x1) & (xy[:, 1] > legend.y0) & (xy[:, 1] < legend.y1)
            assert not inside.any()


def two_groups(rng, n):
    group = (np.arange(n) < n // 2).astype(np.int64)
    rng.shuffle(group)
    mean = np.where(group == 1, -20.0, -80.0) + rng.uniform(-9, 9, n)
    return ClassLogDensity(mean, rng.uniform(3, 9, n), np.full(n, 500)), Modes(2, -50.0, group, 0.001, 40.0)


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


def test_flipped_and_kept_examples_are_shares_that_add_to_one(axes, rng):
    values, flipped = np.r_[rng.normal(0, 1, 400), -1e6, np.nan, -np.inf], np.zeros(403, bool)
    flipped[:50] = True
    plot_flipped(axes, torch.from_numpy(values), flipped)
    kept = [patch.get_height() for patch in axes.containers[0]]
    assert len(kept) == 30 and sum(kept) == pytest.approx(1)
    # The value far out is counted in the leftmost bin and does not stretch the axis.
    assert kept[0] > 0 and axes.get_xlim()[0] > -10
    edges = [*(bar.get_x() for bar in axes.containers[0]), np.nanmax(values)]
    counts, _ = np.histogram(values[:50], np.array(edges) + 1e-12)
    assert axes.patches[-1].get_xy()[:, 1].max() == pytest.approx(counts.max() / 50)
    assert axes.patches[-1].get_hatch()
    assert axes.get_title(loc="right") == "2 of 403 examples not finite, left out"
    assert_legible(axes)
    plot_flipped(new_axes(), [1.0, 1.0], [False, False])
    with pytest.raises(ValueError, match=r"^flipped has shape \(3,\), but it must be \[N\] with N = 2\.$"):
        plot_flipped(axes, [1.0, 2.0], [True, False, True])
    with pytest.raises(ValueError, match=r"^none of the 2 values of log_density is finite"):
        plot_flipped(axes, [np.nan, np.inf], [True, False])


@pytest.mark.parametrize("n", [1, 4, 12])
def test_scores_are_bars_with_their_values_and_the_line_of_the_network(axes, rng, n):
    scores = rng.uniform(0, 1, n)
    scores[0] = 0.01
    plot_scores(axes, layers_of(n), scores, 0.93)
    np.testing.assert_array_equal([bar.get_height() for bar in axes.patches], scores)
    assert [text.get_text() for text in axes.texts] == [f"{value:.3f}" for value in scores]
    assert set(axes.lines[0].get_ydata()) == {0.93}
    assert axes.get_yticks().max() == 1
    assert_legible(axes)
    # White inside its bar, black above a bar too short for it: never white on white.
    unit = axes.transData.transform([[0, 0], [0, 1]])[:, 1]
    for text, value in zip(axes.texts, scores, strict=True):
        box, top = text.get_window_extent(), unit[0] + value * (unit[1] - unit[0])
        assert box.y1 <= top if text.get_color() == "white" else box.y0 >= top
        assert box.width <= axes.patches[0].get_window_extent().width
    with pytest.raises(ValueError, match=r"^scores has a value of 1\.5, but all lie between 0 and 1\.$"):
        plot_scores(axes, layers_of(n), np.full(n, 1.5), 0.9)


@pytest.mark.parametrize("n", [1, 4, 12])
def test_scores_of_subsets_stand_side_by_side_with_their_errors(axes, rng, n):
    scores = {subset: rng.uniform(0.1, 1, n) for subset in SUBSETS}
    errors = {subset: rng.uniform(0, 0.03, n) for subset in SUBSETS}
    scores["random"][-1] = np.nan
    assert plot_subset_scores(axes, layers_of(n), scores, errors, ylabel="F1") is axes
    assert len({(c[0].get_facecolor(), c[0].get_hatch()) for c in axes.containers}) == 3
    assert len({c[0].get_hatch() for c in axes.containers}) == 3
    right = -np.inf
    for own, subset in zip(axes.containers, SUBSETS, strict=True):
        np.testing.assert_array_equal([bar.get_height() for bar in own], scores[subset])
        assert own[0].get_x() >= right
        right = own[0].get_x() + own[0].get_width()
    ends = dict(zip(SUBSETS, segments(axes), strict=False))
    for subset in SUBSETS[:2]:
        low, high = scores[subset] - errors[subset], scores[subset] + errors[subset]
        np.testing.assert_array_equal(ends[subset][:, :, 1], np.stack([low, high], 1))
    assert len(ends.get("random", [])) == n - 1
    assert [tick.get_text() for tick in axes.get_xticklabels()] == layers_of(n)
    assert_legible(axes)


def test_series_of_wrong_names_are_refused_with_the_nearest(axes):
    scores = {subset: [0.5] for subset in SUBSETS}
    with pytest.raises(ValueError, match=r"^errors names 'randm', which is no series; the nearest: 'random'\.$"):
        plot_subset_scores(axes, ["a"], scores, {"randm": [0.1]})
    with pytest.raises(ValueError, match=r"^errors has nothing for the series 'least memorized'"):
        plot_subset_scores(axes, ["a"], scores, {"random": [0.1], "most memorized": [0.1]})
    with pytest.raises(ValueError, match=r"^errors of 'random' is -0\.1 at index 0, but an error is not negative\.$"):
        plot_subset_scores(axes, ["a"], {"random": [0.5]}, {"random": [-0.1]})
    with pytest.raises(ValueError, match=r"^scores of 'random' has shape \(2,\), but it must be \[L\] with L = 1\.$"):
        plot_subset_scores(axes, ["a"], {"random": [0.5, 0.5]})
    with pytest.raises(ValueError, match=r"^scores has 8 series, but 1 to 7 can be told apart"):
        plot_subset_scores(axes, ["a"], {str(i): [0.5] for i in range(8)})
    with pytest.raises(TypeError, match=r"^scores is a list: pass a mapping"):
        plot_subset_scores(axes, ["a"], [0.5])


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


def test_a_trace_has_a_line_for_each_chain(axes, rng, tmp_path):
    draws, sweeps = rng.normal(size=(4, 60)).cumsum(1), np.arange(320, 560, 4)
    assert plot_trace(axes, torch.from_numpy(draws), "log joint (nats)", sweeps) is axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("sweep", "log joint (nats)")
    for line, chain in zip(axes.lines, draws, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), sweeps)
        np.testing.assert_array_equal(line.get_ydata(), chain)
    assert len({line.get_color() for line in axes.lines}) == 4
    assert len({line.get_marker() for line in axes.lines}) == 4
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [f"chain {c}" for c in (1, 2, 3, 4)]
    # The lines are really on the paper: pixels of each colour, and not a few.
    axes.figure.savefig(tmp_path / "trace.png", dpi=100)
    pixels = (255 * plt.imread(tmp_path / "trace.png")[..., :3]).round().astype(int)
    for line in axes.lines:
        colour = [int(line.get_color()[k : k + 2], 16) for k in (1, 3, 5)]
        assert (np.abs(pixels - colour).max(-1) < 40).sum() > 100


def test_traces_of_one_chain_one_draw_and_many_chains(axes, rng):
    plot_trace(axes, rng.integers(1, 4, (1, 3)), "components")
    assert axes.get_xlabel() == "kept draw" and axes.get_legend() is None
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3]
    axes.figure.draw_without_rendering()
    assert all(float(tick).is_integer() for tick in [*axes.get_xticks(), *axes.get_yticks()])
    axes.clear()
    plot_trace(axes, rng.normal(size=(2, 1)), "alpha")
    # One point is no line: it shows by its marker.
    assert [line.get_marker() for line in axes.lines] == ["o", "s"]
    axes.clear()
    plot_trace(axes, rng.normal(size=(20, 200)), "alpha")
    assert len(axes.lines) == 20 and axes.get_legend() is None
    axes.figure.draw_without_rendering()


def test_shapes_that_are_no_trace_are_refused(axes):
    with pytest.raises(ValueError, match=r"\(3, 2, 5\), but a trace is \[C, S\]"):
        plot_trace(axes, np.ones((3, 2, 5)), "alpha")
    with pytest.raises(ValueError, match=r"sweeps has shape \(4,\), but there are 5 draws"):
        plot_trace(axes, np.ones((2, 5)), "alpha", np.arange(4))


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


@pytest.mark.parametrize("n", [1, 10, 60])
def test_bins_count_from_one_with_errors_or_intervals(axes, rng, n):
    values, error = rng.uniform(0, 1, n), rng.uniform(0, 0.1, n)
    assert plot_by_bin(axes, torch.from_numpy(values), "memorization score", errors=error) is axes
    x = np.arange(1, n + 1)
    np.testing.assert_array_equal(np.column_stack(axes.lines[0].get_data()), np.column_stack([x, values]))
    np.testing.assert_array_equal(segments(axes)[0], bars(x, values - error, values + error))
    assert axes.get_ylabel() == "memorization score" and "least to most dense" in axes.get_xlabel()
    assert axes.get_legend() is None
    assert_legible(axes)
    several = new_axes()
    modes = {"dense mode": values, "sparse mode": values / 2}
    plot_by_bin(several, modes, "radius", intervals={name: (v - 0.1, v + 0.3) for name, v in modes.items()})
    for line, ends, v in zip(several.lines, segments(several), modes.values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), v)
        np.testing.assert_array_equal(ends, bars(line.get_xdata(), v - 0.1, v + 0.3))
    assert [text.get_text() for text in several.get_legend().get_texts()] == list(modes)
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
    assert "open: not significant" in [text.get_text() for text in axes.get_legend().get_texts()]
    assert axes.get_title(loc="right") == f"1 of {3 * n} correlations not finite, left out"
    assert_legible(axes)


def test_correlations_without_significance_are_all_filled(axes):
    plot_correlations(axes, ["a"], {"log-density": ([0.3], [0.1], [0.4])}, ylabel="Kendall's τ")
    assert len(axes.lines[0].get_ydata()) == 1 and len(axes.lines[1].get_ydata()) == 0
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["log-density"]
    with pytest.raises(ValueError, match=r"^correlations of 'p' have 2 parts, but three are drawn"):
        plot_correlations(axes, ["a"], {"p": ([0.3], [0.1])})
    with pytest.raises(ValueError, match=r"^significant names 'q', which is no series; the nearest: 'p'"):
        plot_correlations(axes, ["a"], {"p": ([0.3], [0.1], [0.4])}, significant={"q": [True]})


@pytest.mark.parametrize("n", [1, 10, 30, 100])
def test_divergences_of_classes_are_a_matrix_in_the_order_asked_for(rng, n):
    axes = Figure(figsize=(5.5, 4.6), layout="constrained").subplots()
    kl = rng.lognormal(3, 2, (n, n))
    np.fill_diagonal(kl, 0)
    order = rng.permutation(n)
    assert plot_kl_matrix(axes, torch.from_numpy(kl), names_of(n), order=order) is axes
    (image,) = axes.images
    drawn = image.get_array()
    others = ~np.eye(n, dtype=bool)
    np.testing.assert_array_equal(drawn.mask, ~others)
    np.testing.assert_array_equal(drawn.data[others], kl[np.ix_(order, order)][others])
    assert image.get_cmap().name == "viridis"
    if n == 1:
        assert image.colorbar is None
    else:
        assert type(image.norm).__name__ == "LogNorm" and "nats" in image.colorbar.ax.get_ylabel()
        assert (image.norm.vmin, image.norm.vmax) == (kl[others].min(), kl[others].max())
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert ([text.get_text() for text in labels] == [names_of(n)[c] for c in order]) is (n <= 30)
    assert_legible(axes)


def test_divergences_that_are_not_finite_are_blank_and_alike_ones_are_on_a_linear_scale(axes):
    plot_kl_matrix(axes, [[0, 1, np.inf], [1.5, 0, 2], [np.nan, 2, 0]], ["a", "b", "c"])
    assert axes.images[0].get_array().mask.sum() == 5 and type(axes.images[0].norm).__name__ == "Normalize"
    assert axes.get_title(loc="right") == "2 of 6 values not finite, left out"
    with pytest.raises(ValueError, match=r"^order does not name each of the 2 classes once"):
        plot_kl_matrix(axes, np.ones((2, 2)), ["a", "b"], order=[0, 0])
    with pytest.raises(ValueError, match=r"^kl has shape \(2, 3\), but it must be \[M, M\] with M = 2\.$"):
        plot_kl_matrix(axes, np.ones((2, 3)), ["a", "b"])


@pytest.mark.parametrize("n", [1, 4, 12])
def test_agreement_is_written_into_its_cells(rng, n):
    axes = Figure(figsize=(5.2, 4.2), layout="constrained").subplots()
    agreement = rng.uniform(-0.2, 1, (n, n))
    np.fill_diagonal(agreement, 1)
    agreement[0, -1] = np.nan
    assert plot_split_agreement(axes, agreement, layers_of(n)) is axes
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), agreement)
    for text in axes.texts:
        column, row = text.get_position()
        value, shown = agreement[row, column], text.get_text().replace("−", "-")
        assert shown == "–" if np.isnan(value) else float(shown) == pytest.approx(value, abs=0.00501)
    assert len(axes.texts) == n * n
    assert_legible(axes)
    assert max(text.get_window_extent().width for text in axes.texts) <= 1.1 * axes.bbox.width / n
    with pytest.raises(ValueError, match=r"^agreement has a value of 2, but an adjusted Rand index is at most 1"):
        plot_split_agreement(axes, np.full((n, n), 2), layers_of(n))


def test_a_figure_is_written_twice_the_same_as_png_and_pdf(rng, tmp_path):
    values = rng.uniform(0, 1, 10)
    files = []
    for name in ("first", "folder/second.v1"):
        axes = plot_by_bin(new_axes(), values, "memorization score")
        png, pdf = save_figure(axes.figure, tmp_path / name)
        assert (png, pdf) == (tmp_path / f"{name}.png", tmp_path / f"{name}.pdf")
        files.append((png.read_bytes(), pdf.read_bytes()))
    assert files[0] == files[1]
    png, pdf = files[0]
    assert plt.imread(tmp_path / "first.png").shape == (720, 1100, 4)
    assert pdf.startswith(b"%PDF-") and b"CreationDate" not in pdf
    assert b"/CIDFontType2" in pdf and b"/Type3" not in pdf and b"/Subtype /Image" not in pdf
    with pytest.raises(FileExistsError):
        save_figure(axes.figure, tmp_path / "first")
    (tmp_path / "third.pdf").write_text("mine")
    with pytest.raises(FileExistsError):
        save_figure(axes.figure, tmp_path / "third")
    assert not (tmp_path / "third.png").exists() and (tmp_path / "third.pdf").read_text() == "mine"
    save_figure(axes.figure, tmp_path / "third", overwrite=True)
    assert (tmp_path / "third.pdf").read_bytes().startswith(b"%PDF-")
    with pytest.raises(ValueError, match=r"first\.png ends in \.png, but both"):
        save_figure(axes.figure, tmp_path / "first.png")
    assert not list(tmp_path.rglob(".*"))


def test_nothing_global_is_changed(rng, tmp_path):
    before = dict(matplotlib.rcParams)
    density, modes = two_groups(rng, 10)
    axes = plot_class_log_density(new_axes(), density, modes, names_of(10))
    save_figure(axes.figure, tmp_path / "figure")
    assert dict(matplotlib.rcParams) == before and plt.get_fignums() == []
    assert all(hasattr(figures, name) for name in figures.__all__)
