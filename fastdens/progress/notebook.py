"""Bars in the output of a Jupyter cell: one output that is replaced, with no widgets to install."""

from __future__ import annotations

import sys
import time
from html import escape
from importlib import import_module
from typing import Any

from fastdens.progress.bar import Bar

# A front end is sent few messages.
_SECONDS = 0.25


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class Notebook:
    """One output of the cell, for all bars; at the end it is the sentence of the outermost."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._last = -_SECONDS

    def show(self, bars: tuple[Bar, ...]) -> None:
        """Replace the output, a few times a second at most."""
        now = time.perf_counter()
        if now - self._last >= _SECONDS:
            self._last = now
            self._put(bars)

    def close(self, bar: Bar) -> None:
        """Leave the sentence."""
        self._put((bar,))

    def _put(self, bars: tuple[Bar, ...]) -> None:
        content = {
            "text/plain": "\n".join(bar.sentence for bar in bars),
            "text/html": "".join(f"<div>{_gauge(bar)}{escape(bar.sentence)}</div>" for bar in bars),
        }
        if self._handle is None:
            self._handle = _display(content, display_id=True)
        else:
            self._handle.update(content, raw=True)


def print_in_cell(line: str) -> None:
    """A line in the output of the cell, which is no error as stderr would be there."""
    _display({"text/plain": line})


def _display(content: dict[str, str], **options: Any) -> Any:
    return import_module("IPython.display").display(content, raw=True, **options)


def _gauge(bar: Bar) -> str:
    if bar.ended is not None:
        return ""
    value = "" if bar.total is None else f' value="{bar.made}" max="{max(bar.total, 1)}"'
    return f"<progress{value}></progress> "
