"""The picture of the results: seconds of every library over those of the floor, both on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastdens.analysis.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY_BLUE, YELLOW, save_figure
from fastdens.bench.results import RowResult
from fastdens.kernels.optional import require

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

NAME = "times"
FILES = (f"{NAME}.png", f"{NAME}.pdf")

_OURS, _FLOOR = "fastdens", "the floor"
_PANELS = (("EM", ("em", "factors", "variational")), ("other operations", ()))
_COLOURS = (ORANGE, GREEN, PURPLE, SKY_BLUE, YELLOW, "black", ORANGE, GREEN, PURPLE, SKY_BLUE, YELLOW)
_MARKERS = "s^DvPX<>ph*"


def draw(rows: Sequence[RowResult], folder: Path, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Write ``times.png`` and ``times.pdf``: rows with a floor, EM and its like at the left, the rest at the right.

    On the grey line lies what takes as long as the matrix products alone; each step up the axis is ten times as long.
    """
    figures = require("matplotlib.figure", "the picture", "bench")
    drawn = [row for row in rows if row.floor is not None and row.ours.seconds is not None]
    names = list(dict.fromkeys(peer.name for row in drawn for peer in row.peers if peer.seconds is not None))
    figure = figures.Figure(figsize=(9, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    ours_are_em = _PANELS[0][1]
    for axes, (title, _), in_em in zip(panels, _PANELS, (True, False), strict=True):
        _draw_panel(axes, [row for row in drawn if (row.operation in ours_are_em) is in_em], names)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("seconds of the floor")
    panels[0].set_ylabel("seconds")
    marks: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        marks = dict(zip(labels, handles, strict=True)) | marks
    ordered = sorted(marks, key=lambda label: (label not in (_OURS, _FLOOR), [*names, label].index(label)))
    figure.legend([marks[label] for label in ordered], ordered, loc="outside right upper", fontsize=8, frameon=False)
    return save_figure(figure, folder / NAME, overwrite=overwrite)


def _draw_panel(axes: Axes, rows: Sequence[RowResult], names: Sequence[str]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(which="major", color="0.9", linewidth=0.6)
    for row in rows:
        tops = [peer.seconds for peer in row.peers if peer.seconds is not None]
        if tops:
            axes.plot(
                [row.floor or 0.0] * 2, [row.ours.seconds or 0.0, max(tops)], color="0.85", linewidth=0.8, zorder=1
            )
    for at, name in enumerate(names):
        found = [(row, peer) for row in rows for peer in row.peers if peer.name == name and peer.seconds is not None]
        colour, marker = _COLOURS[at % len(_COLOURS)], _MARKERS[at % len(_MARKERS)]
        for agrees in (True, False):
            points = [
                (row.floor or 0.0, peer.seconds or 0.0) for row, peer in found if (peer.agrees is not False) is agrees
            ]
            if points:
                # An outcome that differs is drawn hollow.
                face = colour if agrees else "none"
                label = name if agrees else f"{name}, other outcome"
                axes.scatter(
                    [x for x, _ in points],
                    [y for _, y in points],
                    s=22,
                    c=face,
                    edgecolors=colour,
                    marker=marker,
                    label=label,
                )
    ours = [(row.floor or 0.0, row.ours.seconds or 0.0) for row in rows]
    axes.scatter([x for x, _ in ours], [y for _, y in ours], s=34, c=BLUE, zorder=3, label=_OURS)
    if rows:
        floors = [row.floor for row in rows if row.floor is not None]
        ends = (min(floors) / 2, max(floors) * 2)
        axes.plot(ends, ends, color=GREY, linewidth=1.2, zorder=2, label=_FLOOR)
