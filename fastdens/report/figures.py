"""Figures of a report: axes laid out side by side, and pictures to put into the page."""

from __future__ import annotations

import base64
import math
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from fastdens.analysis.figures import save_figure
from fastdens.kernels.optional import require
from fastdens.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PIXELS_PER_INCH = 100
"""On the page. The PNG has twice as many: letters are as large as those of the page, and sharp on dense screens."""

_Panel = TypeVar("_Panel")


class Picture(NamedTuple):
    """A figure as the page shows it: its name, its width in CSS pixels, and a data URI of its PNG."""

    name: str
    width: int
    source: str


def save_picture(name: str, figure: Figure, folder: Path) -> Picture:
    """Write ``name.png`` and ``name.pdf`` into the folder, and return the picture for the page."""
    png, _ = save_figure(figure, folder / name, overwrite=True)
    width = round(float(figure.get_size_inches()[0]) * _PIXELS_PER_INCH)
    return Picture(name, width, f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}")


def save_pictures(figures: Iterable[tuple[str, Figure]], folder: Path) -> dict[str, Picture]:
    """Write figures, each after its name, into the folder, and return the pictures by name."""
    # Names are no programs of TeX, whatever the reader's own settings are.
    plain = require("matplotlib", "write_report", "analysis").rc_context({"text.usetex": False})
    with plain, warnings.catch_warnings():
        # The page shows names in every script, figures show boxes for what matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        return {name: save_picture(name, figure, folder) for name, figure in figures}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, whose axes make room for their labels."""
    figure: Figure = require("matplotlib.figure", "write_report", "analysis").Figure(
        figsize=(width, height), layout="constrained"
    )
    return figure


def single(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that many inches with one axes."""
    figure = new_figure(width, height)
    return figure, figure.subplots()


def panels(items: Iterable[_Panel], draw: Callable[[Axes, _Panel], object], height: float = 3.6) -> Figure:
    """A figure with one axes for each item, two a row (a single one is as wide as a row)."""
    items = list(items)
    n_rows, n_columns = math.ceil(len(items) / 2), min(len(items), 2)
    figure = new_figure(11, height * n_rows)
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for unused in axes[len(items) :]:
        unused.remove()
    for own, item in zip(axes[: len(items)], items, strict=True):
        draw(own, item)
    return figure


def literal(name: str, longest: int = 40) -> str:
    """A name on one line of a figure, without its middle if it is long.

    What is invisible in it is spelled out, and dollar signs are escaped, since matplotlib typesets the text between two
    of them as a formula.
    """
    name = printable(" ".join(name.split()))
    if len(name) > longest:
        name = f"{name[: longest // 2]}…{name[-(longest - longest // 2 - 1) :]}"
    return name.replace("$", r"\$")
