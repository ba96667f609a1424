"""Claims: only one of the processes that share a folder may write a file, or all of the folder, at a time.

A claim is a lock on a file beside the one to write. The operating system frees it however the process ends.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fastdens.io.atomic import write_error
from fastdens.kernels.optional import require

_SECONDS_BETWEEN_LOOKS = 0.25
# Hidden names in a folder that one process has for itself: what is locked, and who has locked it.
_FOLDER, _OWNER = "folder", ".folder.owner"


def lock_path(file: Path) -> Path:
    """The lock of a file, a hidden file beside it."""
    return file.with_name(f".{file.stem}.lock")


@contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Claim a file for the block, without waiting.

    Parameters
    ----------
    file : Path

    Yields
    ------
    bool
        True if this process, and no other, may write the file.

    Raises
    ------
    WriteError
        If nothing can be written beside the file.
    ImportError
        If filelock is not installed.
    """
    filelock = require("filelock", "a folder that processes share", "cpu")
    lock = filelock.FileLock(lock_path(file))
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        yield False
        return
    except OSError as error:
        raise write_error(file, error) from None
    try:
        yield True
    finally:
        # Removed while it is held: filelock grants no lock on a file that was removed after it was opened. Windows
        # removes no open file; there filelock removes it after the release.
        with suppress(PermissionError):
            lock_path(file).unlink(missing_ok=True)
        lock.release()


def done_by_one(file: Path, is_done: Callable[[], bool], do: Callable[[], None]) -> None:
    """Let one of the processes that call this at the same time do something; the others wait, and take over if it dies.

    Parameters
    ----------
    file : Path
        What a process claims while it does it.
    is_done : callable
        Whether it is done, by whatever process.
    do : callable
    """
    while not is_done():
        with claimed(file) as is_mine:
            # It may have been done in this moment.
            if is_mine and not is_done():
                do()
        if not is_mine:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def remove_stale_lock(file: Path) -> None:
    """Remove the lock that a killed process left, unless another process holds it."""
    if lock_path(file).exists():
        with claimed(file):
            pass


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Have a folder for this process for the block; a folder that does not exist is made, and goes if it stays empty.

    Raises
    ------
    BlockingIOError
        If another process has it; the message says which.
    WriteError
        If it cannot be made or written to.
    ImportError
        If filelock is not installed.
    """
    with ExitStack() as stack:
        if not folder.exists():
            stack.callback(_remove_if_empty, folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            is_mine = stack.enter_context(claimed(folder / _FOLDER))
        except OSError as error:
            raise write_error(folder, error) from None
        if not is_mine:
            raise BlockingIOError(
                f"{folder} is being written by {_owner(folder)}: wait until that ends, or choose another folder."
            )
        owner = folder / _OWNER
        # Who it is helps the other one only.
        with suppress(OSError):
            owner.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        try:
            yield
        finally:
            with suppress(OSError):
                owner.unlink()


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _owner(folder: Path) -> str:
    """Who has a folder, which the other process may be about to write."""
    try:
        return (folder / _OWNER).read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"
