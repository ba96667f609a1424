"""Common elements of the figures: colours, markers, ticks of classes and layers, legends, remarks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import east_asian_width

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# What the bars of a figure are, in its legend: they differ from figure to figure.
STANDARD_ERROR, INTERVAL = "± 1 standard error", "interval"

# Colours of Okabe & Ito, which remain distinct under every common colour blindness.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6E6E6E"
PURPLE, YELLOW, SKY_BLUE = "#CC79A7", "#E69F00", "#56B4E9"

SMALL = 8  # points: the smallest text of a figure
LONGEST_NAME = 20  # letters of a name that are drawn
MANY_CLASSES = 30  # beyond, class names are left out
MANY_POINTS = 5_000  # beyond, points are rasterized in a PDF


class SeriesStyle(NamedTuple):
    """Colour, marker, line style and hatch that distinguish a series."""

    colour: str
    marker: str
    line: Any
    hatch: str


STYLES = (
    SeriesStyle(BLUE, "o", "-", ""),
    SeriesStyle(ORANGE, "s", "--", "///"),
    SeriesStyle(GREEN, "^", "-.", "..."),
    SeriesStyle(PURPLE, "D", ":", "xxx"),
    SeriesStyle(YELLOW, "v", (0, (5, 1, 1, 1, 1, 1)), "\\\\\\"),
    SeriesStyle(SKY_BLUE, "P", (0, (3, 2, 1, 2)), "++"),
    SeriesStyle("black", "X", (0, (8, 2)), "--"),
)


def spacing(axes: Axes, n: int, which: str = "x") -> float:
    """Distance in points (1/72 inch) between neighbours when ``n`` positions share an axis."""
    length = axes.bbox.width if which == "x" else axes.bbox.height
    return float(length * 72 / axes.figure.dpi / n)


def dodge(n: int) -> NDArray[np.floating]:
    """Shifts of ``n`` series that share positions, so that their bars stand side by side."""
    return (np.arange(n) - (n - 1) / 2) * min(0.22, 0.7 / n)


def styled(series: Mapping[str, Any]) -> Iterator[tuple[str, Any, SeriesStyle, float]]:
    """Name, values, style and shift of each series of a mapping."""
    return zip(series, series.values(), STYLES, dodge(len(series)).tolist(), strict=False)


def draw_intervals(axes: Axes, x: NDArray[Any], ends: NDArray[np.float64], **style: Any) -> None:
    """Draw a bar from the low to the high end [2, n] at each x that has both."""
    drawn = np.isfinite(ends).all(0)
    axes.vlines(x[drawn], ends[0, drawn], ends[1, drawn], rasterized=int(drawn.sum()) > MANY_POINTS, **style)


def name_ticks(axes: Axes, names: Sequence[str], which: str = "x") -> None:
    """Label the ticks 0, 1, ... by names, upright where they would overlap; long names lose their middle."""
    room = spacing(axes, len(names), which)
    size = 10 if room >= 13 else SMALL
    shown = [shortened(name, LONGEST_NAME) for name in names]
    if which == "y":
        axes.set_yticks(range(len(shown)), shown, fontsize=size)
        return
    longest = max(map(drawn_width, shown))
    upright = longest * size > room
    # Upright names may take as much as half the height of the axes.
    height = spacing(axes, 1, "y") / 2
    if upright and longest * size > height:
        size = SMALL
        letter = max(drawn_width(name) / max(text_width(name), 1) for name in shown)
        shown = [shortened(name, min(LONGEST_NAME, int(height / (letter * size)))) for name in names]
    axes.set_xticks(range(len(shown)), shown, fontsize=size, rotation=90 if upright else 0)
    axes.set_xlim(-0.5 - 0.03 * len(shown), len(shown) - 0.5 + 0.03 * len(shown))


def drawn_width(text: str) -> float:
    """Width of a text in the font of the figure, as a share of the size of the text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    size = 100
    with warnings.catch_warnings():
        # Whoever draws the text is told of glyphs that the font lacks.
        warnings.filterwarnings("ignore", "Glyph")
        width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width) / size


def text_width(text: str) -> int:
    """Width in letters, of which an East Asian character takes two."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def shortened(name: str, most: int) -> str:
    """A name of at most ``most`` letters: a longer one loses its middle, as names of layers differ at the end."""
    if text_width(name) <= most:
        return name
    head, tail = name[: most // 2], name[-(most // 2) :]
    while text_width(head) > (most - 1) * 2 // 5:
        head = head[:-1]
    while text_width(head) + 1 + text_width(tail) > most:
        tail = tail[1:]
    return f"{head}…{tail}"


def lay_out(axes: Axes) -> None:
    """Lay out the figure, so that sizes of the axes can be measured."""
    figure = axes.figure.figure
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)


def make_room(axes: Axes, share: float) -> None:
    """Leave the uppermost ``share`` of the axes free of data."""
    transform = axes.yaxis.get_transform()
    low, high = transform.transform(np.array(axes.get_ylim(), np.float64))
    top = transform.inverted().transform(np.array([low + (high - low) / (1 - share)]))[0]
    axes.set_ylim(top=float(top))


def legend_above_data(axes: Axes, *twins: Axes, handles: Sequence[Any] | None = None) -> None:
    """Draw a legend inside the axes, in as few rows as fit, and keep the data of the axes and their twins below it.

    Call it last, after ticks and labels are set.
    """
    lay_out(axes)
    if handles is None:
        handles = axes.get_legend_handles_labels()[0]
    for n_columns in range(len(handles), 0, -1):
        legend = axes.legend(
            handles=list(handles), loc="upper left", ncols=n_columns, frameon=False, fontsize=SMALL + 0.5,
            columnspacing=1.2, handletextpad=0.5, handlelength=2.2, borderaxespad=0.2,
        )  # fmt: skip
        # Markers of a hundred classes are small; those of the legend need not be.
        for line in legend.get_lines():
            line.set_markersize(max(5, line.get_markersize()))
        extent = legend.get_window_extent()
        if extent.width <= 0.97 * axes.bbox.width:
            break
    for own in (axes, *twins):
        make_room(own, min(0.6, 1.05 * extent.height / axes.bbox.height))


def explained_bar(text: str, *, color: str = GREY, lw: float = 1.2, alpha: float = 1.0) -> Line2D:
    """A handle for the legend that says what the bars of a figure are."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color, lw=lw, alpha=alpha, label=text)


def remark(axes: Axes, text: str) -> None:
    """Append a remark to those above the axes, at the right."""
    before = axes.get_title(loc="right")
    axes.set_title(f"{before}; {text}" if before else text, loc="right", fontsize=SMALL, color=GREY, pad=3)


def remark_left_out(axes: Axes, n_left_out: int, n: int, what: str) -> None:
    """Remark how many values could not be drawn, if any."""
    if n_left_out:
        remark(axes, f"{n_left_out:,} of {n:,} {what} not finite, left out")


def fraction_axis(axes: Axes) -> None:
    """Set the y axis from 0 to 1, or to the end of the highest error bar, with a small margin."""
    axes.set_ylim(0, max(1, float(axes.dataLim.y1)) + 0.02)
    axes.set_yticks(np.linspace(0, 1, 6))
