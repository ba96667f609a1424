"""Quantities of fitted classes, as the options define them; only sampled densities have a choice of definitions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import fastdens as fd
from fastdens.analysis import generative_classification, kl_matrix, mean_over_draws, relative_entropy
from fastdens.pipeline.densities import ClassModels
from fastdens.pipeline.options import AnalysisOptions


class TrainingLogDensity(NamedTuple):
    """Log-density of each training example under its class, in nats, by two definitions.

    Attributes
    ----------
    in_sample : ndarray
        float64 [N], by the density that was fitted to it too.
    left_out : ndarray or None
        float64 [N], with the example left out of its own cluster in each draw: a few odd examples that have a cluster
        to themselves are dense in sample. None where there are no draws.
    """

    in_sample: NDArray[np.float64]
    left_out: NDArray[np.float64] | None

    def chosen(self, options: AnalysisOptions) -> NDArray[np.float64]:
        """The one that the options ask for."""
        if self.left_out is None or options.training_density == "in_sample":
            return self.in_sample
        return self.left_out


def training_log_density(models: ClassModels, batch: fd.RaggedBatch, options: AnalysisOptions) -> TrainingLogDensity:
    """Log-density of the examples of the batch, to which the models were fitted, in the caller's order."""
    if not isinstance(models, fd.DirichletProcessMixtures):
        return TrainingLogDensity(_array(models.score_samples(batch)), None)
    definition = {"weighting": options.weighting, "average": options.average}
    return TrainingLogDensity(
        _array(models.score_samples(batch, **definition)), _array(models.leave_one_out(**definition))
    )


def log_prob_of_classes(models: ClassModels, points: Tensor, options: AnalysisOptions) -> Tensor:
    """Log-density of points [n, D] under every class, [n, M]."""
    if isinstance(models, fd.DirichletProcessMixtures):
        return models.log_prob(points, options.weighting, options.average)
    return models.log_prob(points)


def relative_entropy_of_classes(
    models: ClassModels, batch: fd.RaggedBatch, options: AnalysisOptions, generator: torch.Generator
) -> fd.MonteCarloEstimate:
    """Relative entropy of each class, [M]: of its density, or the mean of those of the draws, of as many draws in all.

    See :func:`fastdens.analysis.relative_entropy`.
    """
    if isinstance(models, fd.DirichletProcessMixtures) and options.relative_entropy == "draws":
        n = _share_of_draws(options.entropy_draws, models)
        draws = models.draw_densities(options.weighting)
        return mean_over_draws(relative_entropy(density, batch, n, generator) for density in draws)
    return relative_entropy(_density(models, options), batch, options.entropy_draws, generator)


def divergence_of_classes(
    models: ClassModels, options: AnalysisOptions, generator: torch.Generator
) -> fd.MonteCarloEstimate:
    """KL of each pair of classes, [M, M]: of their densities, or the mean of those of the draws.

    See :func:`fastdens.analysis.kl_matrix`.
    """
    if isinstance(models, fd.DirichletProcessMixtures) and options.pair_divergence == "draws":
        n = _share_of_draws(options.divergence_draws, models)
        draws = models.draw_densities(options.weighting)
        return mean_over_draws(kl_matrix(density, n, generator) for density in draws)
    return kl_matrix(_density(models, options), options.divergence_draws, generator)


def f1_of_draws(
    models: ClassModels, points: Tensor, labels: NDArray[np.int64], options: AnalysisOptions
) -> NDArray[np.float64]:
    """Weighted F1 of points [n, D] classified by the densities of each kept draw alone, [draws]; empty without."""
    if not isinstance(models, fd.DirichletProcessMixtures):
        return np.zeros(0)
    draws = models.draw_densities(options.weighting)
    return np.array([generative_classification(density.log_prob(points), labels).f1 for density in draws])


def _density(models: ClassModels, options: AnalysisOptions) -> fd.StudentTMixtureDensity | fd.GaussianMixtureDensity:
    return models.density(options.weighting) if isinstance(models, fd.DirichletProcessMixtures) else models.density()


def _share_of_draws(n_samples: int, models: fd.DirichletProcessMixtures) -> int:
    """Samples of each kept draw, of so many for all; a standard error needs two."""
    n_chains, n_draws = models.n_components_.shape[1:]
    return max(2, n_samples // (n_chains * n_draws))


def _array(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.double().cpu().numpy()
    return array
