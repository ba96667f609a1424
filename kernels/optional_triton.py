"""Triton, or stand-ins where it is not installed: modules that define kernels import ``triton`` and ``tl`` from here.

Their CPU and reference paths then work without it. ``triton.jit`` reads TRITON_INTERPRET when a kernel is defined: set
it before the first operation is used.
"""

from __future__ import annotations

from typing import Any

from fastdens.kernels.caches import check_cache
from fastdens.kernels.optional import require

try:
    import triton
    import triton.language as tl

    check_cache("TRITON_CACHE_DIR")
except ImportError:

    class _MissingKernel:
        def __getitem__(self, grid: Any) -> Any:
            return require("triton", "the Triton backend", "gpu")

    class _MissingModule:
        @staticmethod
        def constexpr(value: Any) -> Any:
            return value

        @staticmethod
        def jit(function: Any = None, **options: Any) -> Any:
            return _MissingKernel() if function is not None else lambda function: _MissingKernel()

    triton = _MissingModule()
    tl = _MissingModule()

__all__ = ["tl", "triton"]
