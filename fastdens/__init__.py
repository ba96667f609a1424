"""fastdens: thousands of small density models at once, on a GPU and on a CPU.

Modules load when one of their names is first used: importing this package costs nothing that is not needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastdens import activations, distributed, kernels, reduction
    from fastdens.batch import RaggedBatch
    from fastdens.class_layer import ClassLayerModels
    from fastdens.distributions.divergences import MonteCarloEstimate
    from fastdens.distributions.gaussian_mixture import GaussianMixtureDensity
    from fastdens.distributions.student_t_mixture import StudentTMixtureDensity
    from fastdens.errors import ConstantFeatureWarning, ConvergenceWarning, ModelError, NotFittedError
    from fastdens.mixtures.dirichlet_process import DirichletProcessMixtures
    from fastdens.mixtures.gaussian import GaussianMixtures
    from fastdens.mixtures.saved_fits import load
    from fastdens.mixtures.variational import VariationalDirichletProcessMixtures

__version__ = "0.1.0"

__all__ = [
    "ClassLayerModels",
    "ConstantFeatureWarning",
    "ConvergenceWarning",
    "DirichletProcessMixtures",
    "GaussianMixtureDensity",
    "GaussianMixtures",
    "ModelError",
    "MonteCarloEstimate",
    "NotFittedError",
    "RaggedBatch",
    "StudentTMixtureDensity",
    "VariationalDirichletProcessMixtures",
    "activations",
    "distributed",
    "kernels",
    "load",
    "reduction",
]

_MODULE_OF = {
    "ClassLayerModels": "class_layer",
    "ConstantFeatureWarning": "errors",
    "ConvergenceWarning": "errors",
    "DirichletProcessMixtures": "mixtures.dirichlet_process",
    "GaussianMixtureDensity": "distributions.gaussian_mixture",
    "GaussianMixtures": "mixtures.gaussian",
    "ModelError": "errors",
    "MonteCarloEstimate": "distributions.divergences",
    "NotFittedError": "errors",
    "RaggedBatch": "batch",
    "StudentTMixtureDensity": "distributions.student_t_mixture",
    "VariationalDirichletProcessMixtures": "mixtures.variational",
    "load": "mixtures.saved_fits",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _MODULE_OF:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
