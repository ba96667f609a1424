"""Claims: only one of the processes that share a folder may write a file at a time.

A claim is a lock on a file beside the one to write. The operating system frees it however the process ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastdens.kernels.optional import require


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
    try:
        yield True
    finally:
        # Removed while it is held: filelock grants no lock on a file that was removed after it was opened. Windows
        # removes no open file; there filelock removes it after the release.
        with suppress(PermissionError):
            lock_path(file).unlink(missing_ok=True)
        lock.release()


def remove_stale_lock(file: Path) -> None:
    """Remove the lock that a killed process left, unless another process holds it."""
    if lock_path(file).exists():
        with claimed(file):
            pass
