"""Triton where it is installed, and a stand-in that says what to install where it is not.

Modules that define Triton kernels import ``triton`` and ``tl`` from here, so that their CPU and reference paths work
without it. ``triton.jit`` reads TRITON_INTERPRET when a kernel is defined: set it before the first operation is used.
"""

from __future__ import annotations

from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:

    class _MissingKernel:
        def __getitem__(self, grid: Any) -> Any:
            raise ImportError("The triton backend needs triton, which is not installed: pip install 'fastdens[gpu]'.")

    class _MissingModule:
        constexpr = None

        @staticmethod
        def jit(function: Any) -> Any:
            return _MissingKernel()

    triton = _MissingModule()
    tl = _MissingModule()

__all__ = ["tl", "triton"]
