"""fastdens: thousands of small density models at once, on a GPU and on a CPU."""

from fastdens import activations, reduction
from fastdens.batch import RaggedBatch
from fastdens.class_layer import ClassLayerModels
from fastdens.densities import EntropyEstimate, GaussianMixtureDensity
from fastdens.gaussian_mixtures import GaussianMixtures
from fastdens.validation import ConvergenceWarning, ModelError

__version__ = "0.1.0"

__all__ = [
    "ClassLayerModels",
    "ConvergenceWarning",
    "EntropyEstimate",
    "GaussianMixtureDensity",
    "GaussianMixtures",
    "ModelError",
    "RaggedBatch",
    "activations",
    "reduction",
]
