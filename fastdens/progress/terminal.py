"""Bars that move in a terminal, drawn by rich, a line each whatever its width."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from fastdens.kernels.optional import require
from fastdens.progress.bar import Bar

_PURPOSE = "a progress bar in a terminal (progress=True)"
_WIDEST, _NARROWEST = 40, 6
# A note is cut to this at least, or left out.
_SHORTEST_NOTE = 8


def moves(stream: Any) -> bool:
    """Whether a stream is a terminal whose lines can be drawn again.

    Raises
    ------
    ImportError
        If it is a terminal and rich is missing.
    """
    isatty = getattr(stream, "isatty", None)
    if isatty is None or not isatty():
        return False
    console = _console(stream)
    return console.is_interactive and not console.is_dumb_terminal


class Terminal:
    """Lines at the foot of the terminal, drawn ten times a second."""

    def __init__(self, stream: Any) -> None:
        self._bars: tuple[Bar, ...] = ()
        self._streams = sys.stdout, sys.stderr
        # What a block prints stands above the bars; where it goes to a file, it goes there.
        prints_here = sys.stdout is not None and sys.stdout.isatty()
        live = require("rich.live", _PURPOSE, "cpu").Live
        self._live = live(
            console=_console(stream),
            get_renderable=self._lines,
            refresh_per_second=10,
            redirect_stdout=prints_here,
        )
        with suppress(OSError):
            self._live.start()

    def show(self, bars: tuple[Bar, ...]) -> None:
        """Keep the bars for the next drawing."""
        self._bars = bars

    def close(self, bar: Bar) -> None:
        """Leave the last bar as it is, and the terminal as it was."""
        self._bars = (bar,)
        # A terminal that is gone ends no work.
        with suppress(OSError):
            self._live.stop()

    def leave(self) -> None:
        """Give a forked process the streams of its parent, past a lock that may be held there."""
        sys.stdout, sys.stderr = self._streams

    def _lines(self) -> Any:
        group = require("rich.console", _PURPOSE, "cpu").Group
        return group(*map(_Line, self._bars))


def _console(stream: Any) -> Any:
    return require("rich.console", _PURPOSE, "cpu").Console(file=stream, force_jupyter=False)


class Pieces(NamedTuple):
    """A line: words, a bar of so many cells, and words."""

    description: str
    bar: int
    steps: str
    time: str
    note: str


def arranged(bar: Bar, width: int) -> Pieces:
    """The pieces of a line that fit into so many cells: first the note goes, then the bar, then the time."""
    cells = require("rich.cells", _PURPOSE, "cpu")
    length = cells.cell_len
    description, count, time = bar.description, bar.count, bar.time
    room = width - length(description) - length(count) - length(time) - 2
    if room <= _NARROWEST:
        if room < 0:
            time = ""
        return Pieces(_cut(description, max(width - length(count) - 1, 0)), 0, count, time, "")
    # Beside the bar and before the note stands a blank.
    room -= 1
    wanted = length(bar.note) + 1 if bar.note else 0
    cells_of_bar = min(max(room - wanted, _NARROWEST), _WIDEST)
    left = room - cells_of_bar - 1
    note = bar.note if length(bar.note) <= left else _cut(bar.note, left) if left >= _SHORTEST_NOTE else ""
    return Pieces(description, cells_of_bar, count, time, note)


def _cut(text: str, width: int) -> str:
    """The beginning of a text, with dots in place of the rest."""
    cells = require("rich.cells", _PURPOSE, "cpu")
    if cells.cell_len(text) <= width:
        return text
    return f"{cells.set_cell_size(text, max(width - 1, 0)).rstrip()}{'…' * (width > 0)}"


class _Line:
    """A bar as rich draws it."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        segment = require("rich.segment", _PURPOSE, "cpu").Segment
        text = require("rich.text", _PURPOSE, "cpu").Text
        bar = require("rich.progress_bar", _PURPOSE, "cpu").ProgressBar
        pieces = arranged(self._bar, options.max_width)
        yield text(pieces.description, end="")
        if pieces.bar:
            yield segment(" ")
            yield bar(self._bar.total, self._bar.made, width=pieces.bar)
        for piece, style in (
            (pieces.steps, "progress.download"),
            (pieces.time, "progress.remaining"),
            (pieces.note, ""),
        ):
            if piece:
                yield text(f" {piece}", style=style, end="")
        yield segment.line()
