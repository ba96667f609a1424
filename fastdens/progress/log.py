"""Bars where stderr is a file, a pipe, or a terminal without control sequences: a line a minute at most."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from fastdens.progress.bar import Bar

_SECONDS = 60.0


def write_line(line: str) -> None:
    """A line on stderr; work does not end because nobody reads of it."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class Log:
    """A line for all bars whenever a step is made a minute or more after the last line, and one at the end."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def show(self, bars: tuple[Bar, ...]) -> None:
        """Write a line if it is time for one."""
        now = time.perf_counter()
        if now - self._last >= _SECONDS:
            self._last = now
            write_line("; ".join(bar.sentence for bar in bars))

    def close(self, bar: Bar) -> None:
        """Write the last line."""
        write_line(bar.sentence)
