"""Files that appear under their final name whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Of the Linux call renameat2: paths are relative to the working directory, and both names are exchanged.
_HERE, _EXCHANGE = -100, 2
_OF_WRITING = _NO_ROOM | {errno.EROFS, errno.EIO}


class WriteError(OSError):
    """A file or a folder cannot be written; nothing is left under its name that was not there before.

    Attributes
    ----------
    reason : str
        What the operating system says.
    errno : int or None
        Its number for that.
    """

    def __init__(self, path: Path, reason: str, number: int | None) -> None:
        # numpy tells no number where fewer bytes were written than asked for.
        remedy = (
            "make room on the disk, or choose another place"
            if number is None or number in _NO_ROOM
            else "check that the folder is there and that you may write to it"
        )
        super().__init__(f"{path} cannot be written ({reason}): {remedy}.")
        self.reason, self.errno = reason, number


def write_error(path: Path, error: OSError) -> WriteError:
    """An error of writing a file or a folder, or one in it, as one that names this path."""
    if isinstance(error, WriteError):
        reason = error.reason
    elif isinstance(error, FileExistsError | NotADirectoryError):
        reason = f"{error.filename} is a file or in one"
    else:
        reason = error.strerror or str(error)
    return WriteError(path, reason, error.errno)


def check_place(path: Path) -> None:
    """Raise a WriteError if nothing can be written under this name, to tell it before the work; folders are made."""
    probe = _hidden(path, "partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise write_error(path, error) from None


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
    WriteError
        If the disk is full, or the folder is missing, read-only, or a file.
    """
    final = Path(path)
    partial = _hidden(final, "partial")
    try:
        if final.exists() and not overwrite:
            raise FileExistsError(f"{final} exists already: choose another path or pass overwrite=True.")
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        _remove_leftovers(final, "partial")
        yield partial
        _flush(partial)
        if partial.is_dir() and final.exists():
            _replace_folder(partial, final)
        else:
            os.replace(partial, final)
        # Only now: until here what a killed process moved aside may be all there is.
        _remove_leftovers(final, "replaced")
    except OSError as error:
        if not _is_of_writing(error, final, partial):
            raise
        raise write_error(final, error) from None
    finally:
        # What cannot be removed goes with the next write; here it would hide what was wrong.
        with suppress(OSError):
            _remove(partial)


def _replace_folder(partial: Path, final: Path) -> None:
    """Put a folder in the place of another, over which it cannot be renamed."""
    if _exchange(partial, final):
        _remove(partial)
        return
    # The old one steps aside first.
    old = _hidden(final, "replaced")
    _remove(old)
    os.replace(final, old)
    try:
        os.replace(partial, final)
    except OSError:
        os.replace(old, final)
        raise
    _remove(old)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names at once, so that a process that is killed leaves both; False where the system cannot."""
    import ctypes

    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    done: int = rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)
    return done == 0


def _is_of_writing(error: OSError, final: Path, partial: Path) -> bool:
    """Whether an error is one of writing this file or folder, and not of something else that the block does."""
    if isinstance(error, WriteError):
        # Of a file in the folder that is written, by its hidden name.
        return str(partial) in str(error)
    if error.filename is None:
        return error.errno in _OF_WRITING or " requested and " in str(error)
    path = Path(os.fsdecode(error.filename))
    return path in (final, partial, *final.parents) or partial in path.parents


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
