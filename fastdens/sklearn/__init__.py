"""Estimators for one data set in scikit-learn's manner: arrays in and out, pipelines, searches.

They hold no mathematics: each makes a batch and hands it to the estimators of :mod:`fastdens`.
"""

from fastdens.kernels.optional import require

if not hasattr(require("sklearn.utils.validation", "fastdens.sklearn", "sklearn"), "validate_data"):
    raise ImportError("fastdens.sklearn needs scikit-learn 1.6 or later: pip install 'fastdens[sklearn]'.")

from fastdens.sklearn.density_classifier import DensityClassifier
from fastdens.sklearn.dirichlet_process_mixture import DirichletProcessMixture
from fastdens.sklearn.gaussian_mixture import GaussianMixture
from fastdens.sklearn.uncentred_svd import UncentredSVD

__all__ = ["DensityClassifier", "DirichletProcessMixture", "GaussianMixture", "UncentredSVD"]
