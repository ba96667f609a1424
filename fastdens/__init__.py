"""fastdens: thousands of small density models at once, on a GPU and on a CPU."""

from fastdens import activations, reduction
from fastdens.batch import RaggedBatch
from fastdens.class_layer import ClassLayerModels
from fastdens.densities import GaussianMixtureDensity
from fastdens.dirichlet_process_mixtures import DirichletProcessMixtures
from fastdens.divergences import MonteCarloEstimate
from fastdens.gaussian_mixtures import GaussianMixtures
from fastdens.saved_fits import load
from fastdens.student_t_density import StudentTMixtureDensity
from fastdens.validation import ConvergenceWarning, ModelError

__version__ = "0.1.0"

__all__ = [
    "ClassLayerModels",
    "ConvergenceWarning",
    "DirichletProcessMixtures",
    "GaussianMixtureDensity",
    "GaussianMixtures",
    "ModelError",
    "MonteCarloEstimate",
    "RaggedBatch",
    "StudentTMixtureDensity",
    "activations",
    "load",
    "reduction",
]
