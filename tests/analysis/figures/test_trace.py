from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from fastdens.analysis.figures import plot_trace


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
