"""Files that appear under their final name whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A path beside ``path`` to write a file or a folder to; it takes the final name when the block ends.

    If the block raises, also by Ctrl-C, what it wrote is removed; if the process is killed, it stays under a name that
    begins with a dot and ends in ``.partial``.

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
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    _remove(partial)
    try:
        yield partial
        _flush(partial)
        if partial.is_dir() and final.exists():
            # A folder cannot be renamed over another: the old one steps aside first.
            old = final.with_name(f".{final.name}.{os.getpid()}.replaced")
            os.replace(final, old)
            os.replace(partial, final)
            _remove(old)
        else:
            os.replace(partial, final)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Bring what was written to the disk, so that a name never outlives its content in a power failure."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
