"""Axes to draw on, the data of the tests, and what was drawn, read back from the axes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from fastdens.analysis import ClassLogDensity, Modes

SUBSETS = ("most memorized", "least memorized", "random")


def new_axes():
    return Figure(figsize=(5.5, 3.6), layout="constrained").subplots()


def names_of(n):
    return [str(c) if n <= 10 else f"class {c}" for c in range(n)]


def layers_of(n):
    return [f"blocks.{k}.mlp" for k in range(n)] if n > 4 else [f"stage {k + 1}" for k in range(n)]


def two_groups(rng, n):
    group = (np.arange(n) < n // 2).astype(np.int64)
    rng.shuffle(group)
    mean = np.where(group == 1, -20.0, -80.0) + rng.uniform(-9, 9, n)
    return ClassLogDensity(mean, rng.uniform(3, 9, n), np.full(n, 500)), Modes(2, -50.0, group, 0.001, 40.0)


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


def legend_of(axes):
    """Texts of the legend, none without one."""
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


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
