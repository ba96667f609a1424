from __future__ import annotations

import numpy as np
import pytest

from fastdens.analysis.figures import plot_scores, plot_subset_scores
from tests.analysis.figures.drawing import SUBSETS, assert_legible, layers_of, legend_of, new_axes, segments


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
    assert legend_of(axes) == [*SUBSETS, "± 1 standard error"]
    assert legend_of(plot_subset_scores(new_axes(), layers_of(n), scores)) == [*SUBSETS]
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
