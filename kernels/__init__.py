"""Low-level batched density operations on plain tensors: Triton on a GPU, numba on a CPU, a float64 reference.

Each operation is one module of the same name. Modules load on first use, so that importing this package imports
neither triton nor numba.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastdens.kernels.em_statistics import EMStatistics, em_statistics
    from fastdens.kernels.gaussian_log_prob import gaussian_log_prob
    from fastdens.kernels.gibbs import GibbsSweeps, gibbs_sweep
    from fastdens.kernels.mixture_log_prob import mixture_log_prob
    from fastdens.kernels.niw_posterior import NIWPosterior, niw_posterior
    from fastdens.kernels.precision_cholesky import precision_cholesky
    from fastdens.kernels.responsibilities import Responsibilities, responsibilities
    from fastdens.kernels.seeding import kmeans_plusplus, random_rows
    from fastdens.kernels.student_t_log_prob import student_t_log_prob
    from fastdens.kernels.sufficient_statistics import SufficientStatistics, sufficient_statistics

_MODULE_OF = {
    "EMStatistics": "em_statistics",
    "GibbsSweeps": "gibbs",
    "NIWPosterior": "niw_posterior",
    "Responsibilities": "responsibilities",
    "SufficientStatistics": "sufficient_statistics",
    "em_statistics": "em_statistics",
    "gaussian_log_prob": "gaussian_log_prob",
    "gibbs_sweep": "gibbs",
    "kmeans_plusplus": "seeding",
    "mixture_log_prob": "mixture_log_prob",
    "niw_posterior": "niw_posterior",
    "precision_cholesky": "precision_cholesky",
    "random_rows": "seeding",
    "responsibilities": "responsibilities",
    "student_t_log_prob": "student_t_log_prob",
    "sufficient_statistics": "sufficient_statistics",
}

__all__ = [
    "EMStatistics",
    "GibbsSweeps",
    "NIWPosterior",
    "Responsibilities",
    "SufficientStatistics",
    "em_statistics",
    "gaussian_log_prob",
    "gibbs_sweep",
    "kmeans_plusplus",
    "mixture_log_prob",
    "niw_posterior",
    "precision_cholesky",
    "random_rows",
    "responsibilities",
    "student_t_log_prob",
    "sufficient_statistics",
]


class _Operations(ModuleType):
    """A package in which the name of an operation is the operation.

    Python binds a submodule in its package under its own name when it is first imported, by whomever; where that
    name is an operation's, the operation is bound instead.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in __all__:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Operations


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
