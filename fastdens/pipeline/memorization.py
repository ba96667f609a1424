"""Memorization and density: their correlation, and the effect of memorized examples on class densities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import fastdens as fd
from fastdens.analysis import (
    GenerativeClassification,
    Subsets,
    compare_predictors,
    correlate,
    generative_classification,
    kl_matrix,
    memorization_subsets,
    roc_auc,
)
from fastdens.pipeline.data import AnalysisData
from fastdens.pipeline.layers import estimates_of, fit_classes
from fastdens.pipeline.options import AnalysisOptions
from fastdens.pipeline.results import Estimates, LayerAnalysis, MemorizationAnalysis, Scores, SubsetComparison

# Shares of the smallest class: three subsets are held out together, and each of three is fitted by itself.
_HELD_OUT_SHARE, _FITTED_SHARE = 8, 4


def analyze_memorization(
    data: AnalysisData,
    layers: Sequence[LayerAnalysis],
    points: Mapping[str, Tensor],
    scores: Scores,
    options: AnalysisOptions,
    *,
    progress: bool = True,
) -> MemorizationAnalysis:
    """Relate memorization scores to the densities of the same examples at each layer.

    Parameters
    ----------
    data : AnalysisData
    layers : sequence of LayerAnalysis
    points : mapping of str to Tensor
        [N, D] by layer, the projected training examples.
    scores : Scores
    options : AnalysisOptions
    progress : bool

    Returns
    -------
    MemorizationAnalysis
    """
    labels = data.examples.labels
    densities = {layer.name: layer.log_density for layer in layers}
    predictors = {
        layer.name: compare_predictors(
            scores.values,
            {
                "log-density": layer.log_density,
                "relative entropy": layer.relative_entropy.value[labels],
                "neighbour distance": layer.neighbour_distance,
            },
            labels,
            random_state=options.seed,
        )
        for layer in layers
    }
    return MemorizationAnalysis(
        scores,
        correlate(scores.values, densities, labels, random_state=options.seed),
        predictors,
        compare_subsets(data, points, scores.values, options, progress=progress),
        roc_auc(scores.values, data.examples.flipped),
    )


def compare_subsets(
    data: AnalysisData,
    points: Mapping[str, Tensor],
    scores: NDArray[np.float64],
    options: AnalysisOptions,
    *,
    progress: bool = True,
) -> SubsetComparison:
    """Compare the most memorized, the least memorized and random examples of each class, layer by layer.

    Densities fitted without any of these examples classify them, and densities fitted on each subset are compared.

    Parameters
    ----------
    data, points, options, progress
        As of :func:`analyze_memorization`.
    scores : ndarray
        float64 [N]; examples without a score are in no subset.

    Returns
    -------
    SubsetComparison
    """
    labels = data.examples.labels
    if options.density == "dp":
        # The analysis of whole classes says whether chains agree; one is enough here.
        options = replace(options, chains=1)

    def fit(layer: str, rows: NDArray[np.int64]) -> fd.DirichletProcessMixtures | fd.GaussianMixtures:
        own = points[layer][torch.from_numpy(rows).to(points[layer].device)]
        return fit_classes(own, labels[rows], data, layer, options, progress=progress)[0].models

    smallest = int(np.bincount(labels[np.isfinite(scores)], minlength=len(data.examples.class_names)).min())
    held_out, fitted = subset_sizes(smallest)
    left_out = memorization_subsets(scores, labels, held_out, random_state=options.seed)
    chosen = memorization_subsets(scores, labels, fitted, random_state=options.seed)
    kept = np.setdiff1d(np.arange(len(labels)), np.concatenate(left_out))
    classification: dict[str, list[GenerativeClassification]] = {name: [] for name in Subsets._fields}
    divergence: dict[str, list[Estimates]] = {name: [] for name in Subsets._fields}
    for layer, own in points.items():
        models = fit(layer, kept)
        for name, rows in left_out._asdict().items():
            classification[name].append(generative_classification(models.log_prob(own[rows]), labels[rows]))
        # The subsets draw from one generator, one after the other.
        generator = torch.Generator(own.device).manual_seed(options.seed)
        for name, rows in chosen._asdict().items():
            density = fit(layer, rows).density()
            divergence[name].append(estimates_of(kl_matrix(density, options.divergence_draws, generator)))
    return SubsetComparison(
        held_out,
        fitted,
        {name: tuple(found) for name, found in classification.items()},
        {name: tuple(found) for name, found in divergence.items()},
    )


def subset_sizes(smallest: int) -> tuple[int, int]:
    """Examples of each class in a held-out and in a fitted subset, by the number of the smallest class."""
    return max(1, smallest // _HELD_OUT_SHARE), max(2, smallest // _FITTED_SHARE)
