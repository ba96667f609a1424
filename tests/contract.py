"""What every call keeps, whatever it is given: a result or one sentence of ours, bounded memory, its folder."""

from __future__ import annotations

import linecache
import os
import re
import resource
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

import fastdens as fd

T = TypeVar("T")

SOURCES = (Path(fd.__file__).parent, Path(fd.kernels.__file__).parent)
DOCUMENTED = (ValueError, TypeError, OSError, ImportError, NotImplementedError)

# What a reader may take beyond what it returns, for a file of up to a megabyte.
MEMORY = 256 << 20


def fault_of(error: BaseException, documented: tuple[type[BaseException], ...] = DOCUMENTED) -> str | None:
    """What is wrong with an error that left a public function; None if it is a documented one, in one sentence."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    place, message = f"{last.filename}:{last.lineno}", str(error)
    if not isinstance(error, documented):
        return f"{type(error).__name__} is not documented ({message[:200]}), from {place}"
    raised = linecache.getline(last.filename, last.lineno)
    if not any(source in Path(last.filename).parents for source in SOURCES) or "raise" not in raised:
        return f"{type(error).__name__} is not ours ({message[:200]}), from {place}"
    # Values and names from outside may hold anything but the end of a line.
    own = re.sub(r"'[^']*'|\"[^\"]*\"|\([^()]*\)", "", message)
    if "\n" in message or not message.endswith(".") or re.search(r"\. [A-Z]", own) or len(message) > 1000:
        return f"not one sentence: {message[:300]!r}, from {place}"
    if re.search(r"MemoryError|[Aa]llocate", message):
        return f"more memory than {MEMORY >> 20} MiB: {message[:200]}, from {place}"
    return None


@contextmanager
def bounded_memory(n_bytes: int = MEMORY) -> Iterator[None]:
    """Let the process grow by so much at most: more is a MemoryError, whether or not the memory would be touched."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + n_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


_EVENTS = {"open", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link"}
_EVENTS |= {"os.system", "os.exec", "os.fork", "subprocess.Popen", "socket.connect", "pickle.find_class"}


def _within(package: str) -> bool:
    """Whether a package is running, which may compile a kernel at its first use."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(package):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class _Watch:
    """What the interpreter's audit events tell while a folder is watched: files opened elsewhere, code run."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        self._is_hooked = False

    def start(self, folder: Path) -> None:
        if not self._is_hooked:
            # A hook cannot be taken away again.
            sys.addaudithook(self._hook)
            self._is_hooked = True
        self.seen, self.folder = [], os.path.realpath(folder)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder is None or event not in _EVENTS:
            return
        if event == "open" and isinstance(arguments[0], int):
            return
        if event == "open" or event.startswith("os."):
            place = os.path.realpath(os.fsdecode(arguments[0]))  # type: ignore[arg-type]
            # Modules that are imported at the first use, and the sources of the lines in a traceback.
            if place.startswith(self.folder) or place.endswith((".py", ".pyc", ".so")):
                return
            # What the system tells of its memory.
            if event == "open" and place.startswith(("/sys/fs/cgroup/", "/proc/")):
                return
        if not _within("numba"):
            self.seen.append(f"{event}{arguments!r:.200}")


_WATCH = _Watch()


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """What is done outside of the folder, and the code that is run, as a list that grows."""
    _WATCH.start(folder)
    try:
        yield _WATCH.seen
    finally:
        _WATCH.folder = None


def outcome(call: Callable[[], T]) -> tuple[T | None, list[str]]:
    """What a call returns, None if it raises a documented error in one sentence, and what it warned of.

    Raises
    ------
    AssertionError
        If it raises anything else.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = call()
        except Exception as error:
            wrong = fault_of(error)
            if wrong is not None:
                raise AssertionError(wrong) from error
            return None, []
    return found, [str(warning.message) for warning in caught]


def floating_parts(found: object) -> Iterator[Tensor]:
    """The floating-point arrays of a result: of a tensor, an array, a number, or tuples and dataclasses of them."""
    if isinstance(found, Tensor | np.ndarray | float):
        part = torch.as_tensor(found)
        if part.is_floating_point():
            yield part.detach()
    elif isinstance(found, tuple | list):
        for part in found:
            yield from floating_parts(part)
    elif isinstance(found, Mapping):
        yield from floating_parts(list(found.values()))
    elif is_dataclass(found) and not isinstance(found, type):
        yield from floating_parts([getattr(found, own.name) for own in fields(found)])
