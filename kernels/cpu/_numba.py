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
    compiled: Callable[..., Any] = numba.njit(function, nogil=True, cache=True, fastmath=_FASTMATH, error_model="numpy")
    return compiled
