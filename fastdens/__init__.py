"""fastdens: thousands of small density models at once, on a GPU and on a CPU."""

from fastdens import activations, reduction
from fastdens.batch import RaggedBatch
from fastdens.class_layer import ClassLayerModels
from fastdens.distributions.divergences import MonteCarloEstimate
from fastdens.distributions.gaussian_mixture import GaussianMixtureDensity
from fastdens.distributions.student_t_mixture import StudentTMixtureDensity
from fastdens.errors import ConvergenceWarning, ModelError, NotFittedError
from fastdens.mixtures.dirichlet_process import DirichletProcessMixtures
from fastdens.mixtures.gaussian import GaussianMixtures
from fastdens.mixtures.saved_fits import load
from fastdens.mixtures.variational import VariationalDirichletProcessMixtures

__version__ = "0.1.0"

__all__ = [
    "ClassLayerModels",
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
    "load",
    "reduction",
]
