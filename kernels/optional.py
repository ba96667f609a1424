"""Packages that are imported where they are used: one error names what to install.

Modules that define Triton kernels import ``triton`` and ``tl`` from here, so that their CPU and reference paths work
without it. ``triton.jit`` reads TRITON_INTERPRET when a kernel is defined: set it before the first operation is used.
"""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, purpose: str, extra: str) -> Any:
    """Import a module of an optional package.

    Parameters
    ----------
    module : str
        Its dotted name, such as "scipy.stats".
    purpose : str
        What needs it, for the message: "find_modes", "the CPU backend".
    extra : str
        The extra of this distribution that installs it, such as "analysis".

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If the package is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ImportError(
            f"{purpose} needs {package}, which is not installed: pip install 'fastdens[{extra}]'.", name=package
        ) from None


try:
    import triton
    import triton.language as tl
except ImportError:

    class _MissingKernel:
        def __getitem__(self, grid: Any) -> Any:
            return require("triton", "the Triton backend", "gpu")

    class _MissingModule:
        @staticmethod
        def constexpr(value: Any) -> Any:
            return value

        @staticmethod
        def jit(function: Any) -> Any:
            return _MissingKernel()

    triton = _MissingModule()
    tl = _MissingModule()

__all__ = ["require", "tl", "triton"]
