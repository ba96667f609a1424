"""The bar that every long operation shows.

Bars of one process share a display, which is chosen where the first begins: bars that move in a terminal, a cell's
output in a notebook, lines in a log. A bar that begins while another stands is shown with it and vanishes at its end.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from fastdens.printable import printable
from fastdens.progress.bar import Bar, Display
from fastdens.progress.log import Log, write_line
from fastdens.progress.notebook import Notebook, in_notebook, print_in_cell
from fastdens.progress.terminal import Terminal, moves

Advance = Callable[..., None]


class _Board:
    """The bars of this process and their display."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._bars: list[Bar] = []
        self._display: Display | None = None

    def begin(self, bar: Bar) -> None:
        with self._lock:
            if self._display is None:
                self._display = _make_display(sys.stderr)
            self._bars.append(bar)
            self._display.show(tuple(self._bars))

    def step(self, bar: Bar, steps: int, note: str | None) -> None:
        with self._lock:
            bar.step(steps, note)
            if self._display is not None:
                self._display.show(tuple(self._bars))

    def end(self, bar: Bar, *, failed: bool) -> None:
        with self._lock:
            bar.end(failed=failed)
            if self._display is None:
                return
            if self._bars == [bar]:
                display, self._display = self._display, None
                self._bars.clear()
                display.close(bar)
            else:
                self._bars.remove(bar)
                self._display.show(tuple(self._bars))


_board = _Board()


def _forget() -> None:
    """Leave the bars to the process that this one was forked from."""
    global _board  # noqa: PLW0603
    if isinstance(_board._display, Terminal):
        _board._display.leave()
    _board = _Board()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def progress_bar(description: str, total: int | None, *, done: int = 0, shown: bool = True) -> Iterator[Advance]:
    """A bar on stderr; the block gets ``advance(steps=1, note=None)``.

    Where stderr is no terminal, it is a line a minute at most, and one at the end. Of the ranks of a job, the first
    shows it. The time that is left follows from that of all steps so far.

    Parameters
    ----------
    description : str
    total : int or None
        Steps until the end; None if that is not known.
    done : int
        Those of them that were made before.
    shown : bool
        False shows nothing and needs nothing installed.

    Raises
    ------
    ImportError
        If stderr is a terminal and rich is missing.
    """
    if not shown or sys.stderr is None or not _is_first_rank():
        yield lambda steps=1, note=None: None
        return
    bar = Bar(printable(description), total, done)
    _board.begin(bar)

    def advance(steps: int = 1, note: str | None = None) -> None:
        _board.step(bar, steps, None if note is None else printable(note))

    failed = True
    try:
        yield advance
        failed = False
    finally:
        _board.end(bar, failed=failed)


def tell(line: str) -> None:
    """A line about the work: on stderr, above the bars; in a notebook, an output of the cell."""
    if in_notebook():
        print_in_cell(line)
    else:
        write_line(line)


def _make_display(stream: Any) -> Display:
    if in_notebook():
        return Notebook()
    return Terminal(stream) if moves(stream) else Log()


def _is_first_rank() -> bool:
    """Whether this process is the first of a job, or of none."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    # What torchrun, and launchers like it, tell each process.
    return "WORLD_SIZE" not in os.environ or os.environ.get("RANK", "0") == "0"
