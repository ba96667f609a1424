"""Programs in a terminal of some width, and what is left on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[1]
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*([A-Za-z])")
# Variables by which rich would think of another terminal.
_OTHERS = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


def in_terminal(
    program: str | Sequence[str],
    *,
    columns: int = 80,
    seconds: float = 120.0,
    on_output: Callable[[int, str], None] | None = None,
    **environment: str,
) -> tuple[str, int]:
    """What a program writes to a terminal, and its exit status; ``on_output`` gets its process and what is there.

    The program is a command, or the code of one, which is run in a fork of this process: all is imported there.
    """
    variables = {name: value for name, value in os.environ.items() if name not in _OTHERS}
    variables |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment}
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = os.fork()
    if process == 0:
        os.close(master)
        os.login_tty(slave)
        if isinstance(program, str):
            _run(program, variables)
        # Ignored in the background of a shell, and inherited.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execvpe(program[0], list(program), variables)
    os.close(slave)
    shown, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            read = os.read(master, 65536)
        except OSError:
            break
        if not read:
            break
        shown += read
        if on_output is not None:
            on_output(process, shown.decode(errors="replace"))
    os.close(master)
    return shown.decode(errors="replace"), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _run(code: str, variables: dict[str, str]) -> NoReturn:
    status = 1
    try:
        os.environ.clear()
        os.environ.update(variables)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        exec(code, {"__name__": "__main__"})
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


def lines_left(shown: str) -> list[str]:
    """The lines of a screen that is high enough, without those that were erased and without colours."""
    lines, row, column = [""], 0, 0
    at = 0
    while at < len(shown):
        sequence = _SEQUENCE.match(shown, at)
        if sequence:
            number = int(re.sub(r"\D", "", sequence[0]) or 1)
            if sequence[1] == "A":
                row = max(row - number, 0)
            elif sequence[1] == "K":
                lines[row] = ""
            at = sequence.end()
            continue
        if shown[at] == "\r":
            column = 0
        elif shown[at] == "\n":
            row, column = row + 1, 0
            if row == len(lines):
                lines.append("")
        else:
            lines[row] = lines[row][:column].ljust(column) + shown[at] + lines[row][column + 1 :]
            column += 1
        at += 1
    return [line.rstrip() for line in lines if line.strip()]
