"""Low-level batched density operations on plain tensors: Triton on a GPU, numba on a CPU, a float64 reference.

Modules load when one of their names is first used: importing this package imports neither triton nor numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastdens.kernels.cholesky import precision_cholesky as precision_cholesky
    from fastdens.kernels.e_step import Responsibilities as Responsibilities
    from fastdens.kernels.e_step import responsibilities as responsibilities
    from fastdens.kernels.em import EMStatistics as EMStatistics
    from fastdens.kernels.em import em_statistics as em_statistics
    from fastdens.kernels.expectation_maximization import EMSteps as EMSteps
    from fastdens.kernels.expectation_maximization import em_steps as em_steps
    from fastdens.kernels.factor_analysers import FactorResponsibilities as FactorResponsibilities
    from fastdens.kernels.factor_analysers import FactorStatistics as FactorStatistics
    from fastdens.kernels.factor_analysers import factor_mixture_log_prob as factor_mixture_log_prob
    from fastdens.kernels.factor_analysers import factor_responsibilities as factor_responsibilities
    from fastdens.kernels.factor_analysers import factor_statistics as factor_statistics
    from fastdens.kernels.factor_m_step import FactorParameters as FactorParameters
    from fastdens.kernels.factor_m_step import canonical_loadings as canonical_loadings
    from fastdens.kernels.factor_m_step import factor_update as factor_update
    from fastdens.kernels.gaussian import gaussian_log_prob as gaussian_log_prob
    from fastdens.kernels.gaussian import mixture_log_prob as mixture_log_prob
    from fastdens.kernels.gibbs import GibbsSweeps as GibbsSweeps
    from fastdens.kernels.gibbs import gibbs_sweep as gibbs_sweep
    from fastdens.kernels.k_means import KMeans as KMeans
    from fastdens.kernels.k_means import kmeans as kmeans
    from fastdens.kernels.layout import Layout as Layout
    from fastdens.kernels.layout import as_layout as as_layout
    from fastdens.kernels.m_step import SufficientStatistics as SufficientStatistics
    from fastdens.kernels.m_step import sufficient_statistics as sufficient_statistics
    from fastdens.kernels.niw import NIWPosterior as NIWPosterior
    from fastdens.kernels.niw import niw_posterior as niw_posterior
    from fastdens.kernels.parameters import GaussianParameters as GaussianParameters
    from fastdens.kernels.parameters import gaussian_parameters as gaussian_parameters
    from fastdens.kernels.seeding import kmeans_plusplus as kmeans_plusplus
    from fastdens.kernels.seeding import random_responsibilities as random_responsibilities
    from fastdens.kernels.seeding import random_rows as random_rows
    from fastdens.kernels.student_t import student_t_log_prob as student_t_log_prob

_MODULE_OF = {
    "EMStatistics": "em",
    "EMSteps": "expectation_maximization",
    "FactorParameters": "factor_m_step",
    "FactorResponsibilities": "factor_analysers",
    "FactorStatistics": "factor_analysers",
    "GaussianParameters": "parameters",
    "GibbsSweeps": "gibbs",
    "KMeans": "k_means",
    "Layout": "layout",
    "NIWPosterior": "niw",
    "Responsibilities": "e_step",
    "SufficientStatistics": "m_step",
    "as_layout": "layout",
    "canonical_loadings": "factor_m_step",
    "em_statistics": "em",
    "em_steps": "expectation_maximization",
    "factor_mixture_log_prob": "factor_analysers",
    "factor_responsibilities": "factor_analysers",
    "factor_statistics": "factor_analysers",
    "factor_update": "factor_m_step",
    "gaussian_log_prob": "gaussian",
    "gaussian_parameters": "parameters",
    "gibbs_sweep": "gibbs",
    "kmeans": "k_means",
    "kmeans_plusplus": "seeding",
    "mixture_log_prob": "gaussian",
    "niw_posterior": "niw",
    "precision_cholesky": "cholesky",
    "random_responsibilities": "seeding",
    "random_rows": "seeding",
    "responsibilities": "e_step",
    "student_t_log_prob": "student_t",
    "sufficient_statistics": "m_step",
}

__all__ = list(_MODULE_OF)


if not TYPE_CHECKING:  # To type checkers a misspelt name is an error.

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
