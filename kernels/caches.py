"""Folders of compiled code that the environment names: who can write to one runs code as its reader."""

from __future__ import annotations

import os
import stat


def check_cache(variable: str) -> None:
    """Refuse a folder of compiled code that other users may change.

    Parameters
    ----------
    variable : str
        The variable of the environment that names the folder: "NUMBA_CACHE_DIR" or "TRITON_CACHE_DIR".

    Raises
    ------
    PermissionError
        If the folder belongs to another user than this one and root, or if everyone may write to it.
    """
    folder = os.environ.get(variable)
    if not folder or os.name != "posix" or not os.path.isdir(folder):
        return
    status = os.stat(folder)
    if status.st_mode & stat.S_IWOTH or status.st_uid not in (0, os.geteuid()):
        raise PermissionError(
            f"{variable} is {folder}, to which other users may write, and the compiled code in it would run as yours: "
            "set it to a folder that is yours alone."
        )
