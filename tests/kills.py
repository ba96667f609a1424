"""Runs that are killed at random moments and run again: at every moment what has a final name is whole.

``FASTDENS_KILLS`` says how many kills a test makes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

KILLS = int(os.environ.get("FASTDENS_KILLS", "8"))
# A run of the tests that hangs ends here.
_SECONDS = 300.0
_MOST_KILLS_OF_A_RUN = 3

processes = multiprocessing.get_context("forkserver")
_preloaded: list[str] = []


class Command:
    """A command as a process with the methods of those of multiprocessing."""

    def __init__(self, words: Sequence[str]) -> None:
        self._child = subprocess.Popen(words)

    @property
    def exitcode(self) -> int | None:
        return self._child.returncode

    def join(self, seconds: float | None = None) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(seconds)

    def kill(self) -> None:
        self._child.kill()


def preload(module: str) -> None:
    """Let :data:`processes` be forked from one that has imported a module: a kill hits the work and not the imports.

    Test modules call it when they are collected: the process that is forked from is started once.
    """
    _preloaded.append(module)
    processes.set_forkserver_preload(_preloaded)


def forked(function: Callable[..., None], *arguments: Any) -> Callable[[Path], Any]:
    """Runs of ``function(folder, *arguments)``, a function of a module that had better be preloaded."""
    if function.__module__ not in _preloaded:
        preload(function.__module__)
    # The first child waits for the imports; a run that is measured must not.
    first = processes.Process(target=os.getpid)
    first.start()
    first.join()

    def start(folder: Path) -> Any:
        child = processes.Process(target=function, args=(folder, *arguments))
        child.start()
        return child

    return start


def command(*words: str) -> Callable[[Path], Any]:
    """Runs of a command, in whose words ``{folder}`` stands for the folder."""
    return lambda folder: Command([word.replace("{folder}", str(folder)) for word in words])


def names_in(folder: Path) -> set[str]:
    """Paths of all files in a folder and under it, hidden ones too."""
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def is_hidden(name: str) -> bool:
    """Whether a file or a folder around it is hidden: such names are not final."""
    return any(part.startswith(".") for part in Path(name).parts)


def same_content(found: Path, expected: Path) -> None:
    """Assert that two files hold the same bytes; safetensors writes its metadata in any order."""
    if found.read_bytes() != expected.read_bytes():
        one, other = _safetensors(found), _safetensors(expected)
        assert one is not None and one == other, f"{found} differs from {expected}"


def _safetensors(file: Path) -> tuple[Any, dict[str, bytes]] | None:
    """Metadata, and the bytes of each tensor; None for a file of another kind."""
    try:
        with safe_open(file, framework="np") as tensors:
            names = tensors.keys()
            return tensors.metadata(), {name: _described(tensors.get_tensor(name)) for name in names}
    except SafetensorError:
        return None


def _described(array: Any) -> bytes:
    return f"{array.dtype}{array.shape}".encode() + array.tobytes()


def unexpected(file: Path) -> None:
    """Refuse a file that an undisturbed run does not leave."""
    raise AssertionError(f"{file} is left under a final name")


def kill_and_compare(
    start: Callable[[Path], Any],
    folder: Path,
    rng: np.random.Generator,
    *,
    kills: int = KILLS,
    compare: Callable[[Path, Path], None] = same_content,
    check_other: Callable[[Path], None] = unexpected,
) -> None:
    """Kill runs at random moments, run them again to the end, and compare all files with those of an undisturbed run.

    Parameters
    ----------
    start : callable
        Starts a run that writes to the folder that it is given: :func:`forked` or :func:`command`.
    folder : Path
        An empty folder for the folders of the runs.
    rng : Generator
        Draws the moments, evenly over the time that the undisturbed run takes.
    kills : int
        Kills that hit a running process, up to three before a run is left alone.
    compare : callable
        Asserts that a file of a final name equals that of the undisturbed run; it is called after each kill and at the
        end.
    check_other : callable
        Asserts that a file is whole which has no hidden name, and which the undisturbed run does not leave.
    """
    undisturbed = folder / "undisturbed"
    seconds = _run_to_the_end(start, undisturbed)
    expected = names_in(undisturbed)
    n_killed = n_runs = 0
    while n_killed < kills:
        own = folder / f"run-{n_runs}"
        own.mkdir()
        n_runs += 1
        assert n_runs <= 10 + 4 * kills, "the runs end before they are killed"
        for _ in range(int(rng.integers(1, _MOST_KILLS_OF_A_RUN + 1))):
            child = start(own)
            child.join(rng.uniform(0, seconds))
            child.kill()
            child.join(_SECONDS)
            assert child.exitcode in (0, -signal.SIGKILL), f"a run ended with exit code {child.exitcode}"
            n_killed += child.exitcode != 0
            for name in sorted(names_in(own)):
                if name in expected:
                    compare(own / name, undisturbed / name)
                elif not is_hidden(name):
                    check_other(own / name)
        _run_to_the_end(start, own)
        left = names_in(own)
        assert left == expected, f"{own} has {sorted(left - expected)} beside, and lacks {sorted(expected - left)}"
        for name in expected:
            compare(own / name, undisturbed / name)


def _run_to_the_end(start: Callable[[Path], Any], folder: Path) -> float:
    """Run undisturbed; the seconds that it took."""
    folder.mkdir(exist_ok=True)
    began = time.monotonic()
    child = start(folder)
    child.join(_SECONDS)
    if child.exitcode is None:
        child.kill()
    assert child.exitcode == 0, f"an undisturbed run ended with exit code {child.exitcode}"
    return time.monotonic() - began
