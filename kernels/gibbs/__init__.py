"""Collapsed Gibbs sampling of Dirichlet-process Gaussian mixtures.

``sweep`` is the operation, ``problem`` what it is given and returns; ``launch`` runs it on a GPU, where a program
(``kernel``) is one chain. The public names load on first use, so that importing this package imports no Triton.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastdens.kernels.gibbs.problem import GibbsSweeps
    from fastdens.kernels.gibbs.sweep import gibbs_sweep

__all__ = ["GibbsSweeps", "gibbs_sweep"]

_MODULE_OF = {"GibbsSweeps": "problem", "gibbs_sweep": "sweep"}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
