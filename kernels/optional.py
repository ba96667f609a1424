"""Packages that are imported where they are used: one error names what to install."""

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
