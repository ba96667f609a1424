"""The one place where numba is imported, with the options that every CPU kernel uses."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from fastdens.kernels.caches import check_cache
from fastdens.kernels.optional import require

check_cache("NUMBA_CACHE_DIR")
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
    compile_ = functools.partial(
        numba.njit, function, nogil=True, no_cfunc_wrapper=True, inline=inline, fastmath=_FASTMATH, error_model="numpy"
    )
    compiled: Callable[..., Any]
    try:
        compiled = compile_(cache=True)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        _warn_of_no_cache()
        compiled = compile_()
    return compiled


@functools.cache
def _warn_of_no_cache() -> None:
    warnings.warn(
        "numba finds no folder that it can write machine code to, so the CPU kernels are compiled anew in every "
        "process: set NUMBA_CACHE_DIR to such a folder.",
        RuntimeWarning,
        stacklevel=4,
    )
