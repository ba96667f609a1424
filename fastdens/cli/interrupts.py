"""Ctrl-C and SIGTERM: both end a command after it has put down what it holds, and say whether it can go on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends work where Ctrl-C would."""


@contextmanager
def goes_on() -> Iterator[None]:
    """Work that the same command takes up again; an interrupt says so."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.args = ("what is finished is kept: the same command goes on from there",)
        raise


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM in the block raises :class:`Terminated`.

    Where another handler is set it stays. A rank of a job ends at once, as its launcher expects; and so does a process
    that was forked from this one.
    """
    in_job = int(os.environ.get("WORLD_SIZE", "1") or 1) > 1
    is_main = threading.current_thread() is threading.main_thread()
    if in_job or not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def end(number: int, _: Any) -> None:
        if os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
