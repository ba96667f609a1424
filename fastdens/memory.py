"""How much memory a process holds, and how much a computation may take: limits as users write them."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]I?B|)\s*", re.IGNORECASE)

# Taken for the memory where the system does not tell it.
_USUAL_MEMORY = 16 << 30
# Control groups, in which containers and batch systems run: the limit on memory, and what counts towards it.
_CONTROL_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)

MemoryLimit = int | str


def parse_bytes(name: str, value: object) -> int:
    """Bytes of an argument: an integer, or a text such as "4GiB" or "500 MB".

    Raises
    ------
    TypeError, ValueError
        If it is neither, or not positive.
    """
    n_bytes = None
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        n_bytes = int(float(match[1]) * _UNITS[match[2].upper()])
    elif hasattr(value, "__index__") and not isinstance(value, bool):
        n_bytes = value.__index__()
    if n_bytes is None or n_bytes <= 0:
        kind = ValueError if isinstance(value, str) or n_bytes is not None else TypeError
        raise kind(f"{name} is {value!r}, but it must be a number of bytes, or a text such as '4GiB' or '500MB'.")
    return n_bytes


def describe_bytes(n_bytes: float) -> str:
    """A number of bytes for messages, rounded up to three digits: "1.25 GiB"."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n_bytes >= size:
            digits = 2 if n_bytes < 10 * size else 1 if n_bytes < 100 * size else 0
            return f"{-(-n_bytes * 10**digits // size) / 10**digits:.{digits}f} {unit}"
    return f"{int(n_bytes)} bytes"


def resident_bytes() -> int:
    """Main memory that this process holds, its resident set; where the system does not say, the most it has held."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        # Where this module does not exist, there is /proc. macOS counts bytes, others KiB.
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10
    return pages * os.sysconf("SC_PAGE_SIZE")


def total_bytes() -> int:
    """Main memory that this process may ever use: that of the machine, or what its control group grants."""
    asked = hasattr(os, "sysconf")
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if asked else _USUAL_MEMORY]
    for folder, most, _ in _CONTROL_GROUPS:
        with suppress(OSError, ValueError):
            found.append(int((folder / most).read_text()))
    return min(found)


def free_bytes() -> int:
    """Main memory that this process could still have; where the system does not say, all of it."""
    free = total_bytes()
    with suppress(OSError, TypeError):
        available = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        free = min(free, int(available[1]) << 10)  # type: ignore[index]
    for folder, most, used in _CONTROL_GROUPS:
        with suppress(OSError, ValueError):
            free = min(free, int((folder / most).read_text()) - int((folder / used).read_text()))
    return max(free, 0)


def default_limit() -> int:
    """A limit where the user states none: what this process holds, and half of what it could still have."""
    return resident_bytes() + free_bytes() // 2


def _return_free_memory() -> None:
    """Have the allocator of glibc give back to the system what is free, which would count as held."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def code_bytes() -> int:
    """What code takes that the next work on models loads, and compiles where it is not kept on disk.

    More of it the first time; threads and the allocator have their share.
    """
    return (64 if "numba" in sys.modules else 256) << 20


def room_under(limit: int, needed: int, purpose: str) -> int:
    """Bytes that this process may still take before it reaches a limit.

    Parameters
    ----------
    limit : int
    needed : int
        The fewest with which the caller can do its work.
    purpose : str
        That work, for the message: "sorting x by class".

    Raises
    ------
    ValueError
        If there is less room than is needed.
    """
    _return_free_memory()
    held = resident_bytes()
    if limit - held < needed:
        raise ValueError(
            f"max_memory is {describe_bytes(limit)}, of which the process holds {describe_bytes(held)} already, but "
            f"{purpose} needs {describe_bytes(needed)}: pass at least {describe_bytes(held + needed)}."
        )
    return limit - held
