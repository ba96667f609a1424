"""fastdens: thousands of small density models at once, on a GPU and on a CPU.

Modules load when one of their names is first used: importing this package costs nothing that is not needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastdens import activations, distributed, kernels, nn, ood, reduction
    from fastdens import analysis as analysis
    from fastdens import convergence as convergence
    from fastdens import partitions as partitions
    from fastdens import pipeline as pipeline
    from fastdens import report as report
    from fastdens import sklearn as sklearn
    from fastdens import training as training
    from fastdens.batch import RaggedBatch
    from fastdens.class_layer import ClassLayerModels
    from fastdens.distributions.divergences import MonteCarloEstimate
    from fastdens.distributions.factor_analyser_mixture import FactorAnalyserMixtureDensity
    from fastdens.distributions.gaussian_mixture import GaussianMixtureDensity
    from fastdens.distributions.shared_covariance import SharedCovarianceDensity
    from fastdens.distributions.student_t_mixture import StudentTMixtureDensity
    from fastdens.errors import ConstantFeatureWarning, ConvergenceWarning, ModelError, NotFittedError
    from fastdens.mixtures.dirichlet_process import DirichletProcessMixtures
    from fastdens.mixtures.factor_analysers import FactorAnalyserMixtures
    from fastdens.mixtures.gaussian import GaussianMixtures
    from fastdens.mixtures.variational import VariationalDirichletProcessMixtures
    from fastdens.model_choice import ComponentChoice, select_components
    from fastdens.saved_fits import load

__version__ = "0.1.0"

__all__ = [
    "ClassLayerModels",
    "ComponentChoice",
    "ConstantFeatureWarning",
    "ConvergenceWarning",
    "DirichletProcessMixtures",
    "FactorAnalyserMixtureDensity",
    "FactorAnalyserMixtures",
    "GaussianMixtureDensity",
    "GaussianMixtures",
    "ModelError",
    "MonteCarloEstimate",
    "NotFittedError",
    "RaggedBatch",
    "SharedCovarianceDensity",
    "StudentTMixtureDensity",
    "VariationalDirichletProcessMixtures",
    "activations",
    "distributed",
    "kernels",
    "load",
    "nn",
    "ood",
    "reduction",
    "select_components",
]

# Parts of these need more than torch and numpy, and so they are nothing for ``from fastdens import *``.
_BESIDE = ("analysis", "convergence", "partitions", "pipeline", "report", "sklearn", "training")

_MODULE_OF = {
    "ClassLayerModels": "class_layer",
    "ComponentChoice": "model_choice",
    "ConstantFeatureWarning": "errors",
    "ConvergenceWarning": "errors",
    "DirichletProcessMixtures": "mixtures.dirichlet_process",
    "FactorAnalyserMixtureDensity": "distributions.factor_analyser_mixture",
    "FactorAnalyserMixtures": "mixtures.factor_analysers",
    "GaussianMixtureDensity": "distributions.gaussian_mixture",
    "GaussianMixtures": "mixtures.gaussian",
    "ModelError": "errors",
    "MonteCarloEstimate": "distributions.divergences",
    "NotFittedError": "errors",
    "RaggedBatch": "batch",
    "SharedCovarianceDensity": "distributions.shared_covariance",
    "StudentTMixtureDensity": "distributions.student_t_mixture",
    "VariationalDirichletProcessMixtures": "mixtures.variational",
    "load": "saved_fits",
    "select_components": "model_choice",
}


if not TYPE_CHECKING:  # To type checkers a misspelt name is an error.

    def __getattr__(name: str) -> Any:
        if name not in __all__ and name not in _BESIDE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name not in _MODULE_OF:
            return importlib.import_module(f"{__name__}.{name}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_BESIDE})
