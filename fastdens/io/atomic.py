"""Files that appear under their final name whole or not at all."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A path beside ``path`` to write a file or a folder to; it takes the final name when the block ends.

    If the block raises, also by Ctrl-C, what it wrote is removed; if the process is killed, it stays under a name that
    begins with a dot and ends in ``.partial``, until the next write to the same final name from the same machine.

    Parameters
    ----------
    path : path-like
        The final name. Missing parent folders are created.
    overwrite : bool
        Replace what is there.

    Yields
    ------
    Path

    Raises
    ------
    FileExistsError
        If something has the final name already and may not be replaced.
    """
    final = Path(path)
    if final.exists() and not overwrite:
        raise FileExistsError(f"{final} exists already: choose another path or pass overwrite=True.")
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = _hidden(final, "partial")
    _remove(partial)
    _remove_leftovers(final, "partial")
    try:
        yield partial
        _flush(partial)
        if partial.is_dir() and final.exists():
            # A folder cannot be renamed over another: the old one steps aside first.
            old = _hidden(final, "replaced")
            _remove(old)
            os.replace(final, old)
            os.replace(partial, final)
            _remove(old)
        else:
            os.replace(partial, final)
        # Only now: until here what a killed process moved aside may be all there is.
        _remove_leftovers(final, "replaced")
    finally:
        _remove(partial)


def _machine() -> str:
    """A hash of the machine's name: process numbers of another machine, on a shared disk, mean nothing here."""
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()


def _hidden(final: Path, suffix: str) -> Path:
    """The name beside ``final`` that this process alone uses."""
    return final.with_name(f".{final.name}.{_machine()}-{os.getpid()}.{suffix}")


def _remove_leftovers(final: Path, suffix: str) -> None:
    """Remove what killed processes of this machine left beside ``final`` when they wrote to that name."""
    name = re.compile(rf"\.{re.escape(final.name)}\.{_machine()}-([1-9][0-9]*)\.{suffix}")
    for entry in os.listdir(final.parent):
        match = name.fullmatch(entry)
        if match and not _exists(int(match[1])):
            # Another process may be removing it too, or it may belong to another user: then it stays.
            with suppress(OSError):
                _remove(final.with_name(entry))


def _exists(process: int) -> bool:
    """Whether a process of this number runs, or may run."""
    if os.name != "posix":
        # Elsewhere signal 0 does not ask, it interrupts.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Flush to the disk, so that after a power failure no name points to missing content."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
