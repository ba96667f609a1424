"""The one place where numba is imported, with the options that every CPU kernel uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastdens.kernels.optional import require

numba = require("numba", "The CPU backend", "cpu")

# Sums may be reordered so that loops vectorise; NaN and infinity keep their meaning.
_FASTMATH = {"contract", "reassoc", "nsz"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a CPU kernel: no GIL, no exceptions on division by zero, machine code kept on disk."""
    return _compiled(function, inline="never")


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel that becomes part of its callers before any of them is optimised.

    Code that is called may be optimised in two ways, by itself and with its caller, and sums of the two then differ in
    their last bit: the one runs in the process that compiled it, the other in those that find it on disk.
    """
    return _compiled(function, inline="always")


def _compiled(function: Callable[..., Any], inline: str) -> Callable[..., Any]:
    compiled: Callable[..., Any] = numba.njit(
        function, nogil=True, cache=True, inline=inline, fastmath=_FASTMATH, error_model="numpy"
    )
    return compiled
