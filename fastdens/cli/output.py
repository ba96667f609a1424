"""What a command prints: lines for a reader, or one JSON document for a program."""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

import fastdens as fd
from fastdens.pipeline.options import Options
from fastdens.printable import printable

FORMAT = 1
"""Version of the documents, which rises when a name goes or changes its meaning; more names leave it as it is."""

_warned: ContextVar[list[str] | None] = ContextVar("_warned", default=None)


@dataclass(frozen=True)
class Output(Options):
    """What a command prints, beside errors, which go to stderr and have an exit status of their own."""

    quiet: Annotated[bool, Parameter(negative=(), alias="-q")] = False
    """Print nothing but errors and, with --json, its document: no progress, no warnings, no text."""

    json: Annotated[bool, Parameter(negative=())] = False
    """Print one JSON document on the standard output, in place of text."""

    @property
    def progress(self) -> bool:
        """Whether progress is shown."""
        return not self.quiet

    def line(self, text: str) -> None:
        """Print text for a reader."""
        if not self.quiet and not self.json:
            _print(printable(text))

    def document(self, command: str, **content: Any) -> None:
        """Print the document of a command, if one was asked for."""
        if self.json:
            if sys.stdout is None:
                raise OSError("--json asks for a document on the standard output, which is closed: redirect it.")
            head = {"format": FORMAT, "command": command, "version": fd.__version__}
            whole = {**head, **_plain(content), "warnings": _warned.get() or []}
            _print(json.dumps(whole, indent=1, allow_nan=False))

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Warnings in the block are a sentence on stderr, and part of the document."""
        with warnings.catch_warnings():
            token = _warned.set([])
            warnings.showwarning = lambda message, *_, **__: self._hear(message)
            try:
                yield
            finally:
                _warned.reset(token)

    def _hear(self, message: Warning | str) -> None:
        sentence = " ".join(str(message).split())
        found = _warned.get()
        if found is not None:
            found.append(sentence)
        if not self.quiet:
            complain(f"warning: {sentence}")


def complain(text: str) -> None:
    """One line on stderr, whoever reads it."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"fastdens: {printable(' '.join(text.split()))}", file=sys.stderr, flush=True)


@contextmanager
def printing() -> Iterator[None]:
    """A block that prints on the standard output; work goes on where nobody reads it any more.

    Raises
    ------
    OSError
        If the standard output cannot be written.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        if error.filename is not None:
            raise
        _discard_output()
        raise OSError(f"the standard output cannot be written ({error.strerror}): make room, or redirect it.") from None


def _print(text: str) -> None:
    with printing():
        print(text)


def _discard_output() -> None:
    """Let what is printed from here on, and what the interpreter still holds, go nowhere."""
    # Streams that stand for the standard output, in a test or a notebook, have no file.
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _plain(value: Any) -> Any:
    """A value as JSON has it: numbers that are not finite are null, paths are text, arrays are lists."""
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
