"""The way into the command and out of it: arguments, errors in one sentence, exit statuses."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from cyclopts import CycloptsError

from fastdens.cli.app import COMMANDS, make_app
from fastdens.cli.interrupts import INTERRUPTED, TERMINATED, Terminated, terminable
from fastdens.cli.output import Output, complain, printing
from fastdens.pipeline import OptionError
from fastdens.pipeline.options import RangeError
from fastdens.process_group import RankEndedError

DONE, ERROR, USAGE, FAULT = 0, 1, 2, 70
"""Exit statuses: it is done; an error that a sentence tells; options that make no sense; an error nobody foresaw."""

# The variable that shows an error whole.
_DEBUG = "FASTDENS_TRACEBACK"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        The exit status: 0; 1 after an error, 70 after a fault of fastdens, 130 after Ctrl-C and 143 after SIGTERM, each
        with one sentence on stderr.

    Raises
    ------
    SystemExit
        With status 2 if an option does not exist or is out of range.
    """
    try:
        with terminable():
            _run(sys.argv[1:] if arguments is None else arguments)
    except (CycloptsError, RangeError) as error:
        complain(_in_flags(error))
        sys.exit(USAGE)
    except (ValueError, TypeError, OSError, ImportError, RankEndedError) as error:
        complain(_in_flags(error))
        return ERROR
    except MemoryError:
        complain("there is not enough memory: analyze fewer --layers at a time, or fewer examples.")
        return ERROR
    except KeyboardInterrupt as interrupt:
        is_sigterm = isinstance(interrupt, Terminated)
        complain("; ".join(["terminated" if is_sigterm else "interrupted", *map(str, interrupt.args)]) + ".")
        return TERMINATED if is_sigterm else INTERRUPTED
    except Exception as error:
        if os.environ.get(_DEBUG):
            raise
        complain(
            f"this is a fault of fastdens, please report it ({type(error).__name__}: {error}): set {_DEBUG}=1 to see "
            "where it comes from."
        )
        return FAULT
    return DONE


def _run(arguments: Sequence[str]) -> None:
    command, bound, _ = make_app().parse_args(arguments, exit_on_error=False, print_error=False)
    output = next((value for value in bound.arguments.values() if isinstance(value, Output)), Output())
    # The help and the like print by themselves.
    with output.heard(), nullcontext() if command in COMMANDS else printing():
        command(*bound.args, **bound.kwargs)


def _in_flags(error: Exception) -> str:
    """The message, with options as the command spells them."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename} cannot be used ({error.strerror}): check that it is there and that you may use it."
    for name in error.options if isinstance(error, OptionError) else ():
        text = re.sub(rf"(?<![\w-]){name}\b", f"--{name.replace('_', '-')}", text, count=1)
    return text
