"""How memorization of examples goes with their density, and what memorized examples do to the class densities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import fastdens as fd
from fastdens.analysis import (
    Correlations,
    GenerativeClassification,
    PredictorComparison,
    Subsets,
    compare_predictors,
    correlate,
    generative_classification,
    kl_matrix,
    memorization_subsets,
)
from fastdens.cli.layer_analysis import LayerAnalysis, auc, fit_classes
from fastdens.cli.options import AnalyzeOptions
from fastdens.cli.subject import Subject

# Shares of the smallest class: three subsets are held out together, and each of three is fitted by itself.
_HELD_OUT_SHARE, _FITTED_SHARE = 8, 4


class Scores(NamedTuple):
    """Memorization score of each training example, [N], its standard error (None if a file had none), and the networks
    that it was estimated from (0 if it was read).
    """

    values: NDArray[np.float64]
    standard_error: NDArray[np.float64] | None
    n_networks: int


class SubsetComparison(NamedTuple):
    """The most memorized, least memorized and random examples of each class.

    By subset and layer: examples of the subset classified by densities fitted without any of the subsets, ``held_out``
    of them a class; and KL(row || column), [M, M], between densities fitted on ``fitted`` examples of each class.
    """

    held_out: int
    fitted: int
    classification: dict[str, list[GenerativeClassification]]
    divergence: dict[str, list[fd.MonteCarloEstimate]]


class MemorizationAnalysis(NamedTuple):
    """``predictors`` compares log-density, relative entropy and neighbour distance at each layer; ``flipped_auc`` is
    that of finding flipped labels by a high score, NaN where none are known.
    """

    scores: Scores
    correlations: Correlations
    predictors: dict[str, PredictorComparison]
    subsets: SubsetComparison
    flipped_auc: float


def analyze_memorization(
    subject: Subject, layers: list[LayerAnalysis], scores: Scores, options: AnalyzeOptions
) -> MemorizationAnalysis:
    """Compare memorization scores with what the layers tell of the same examples."""
    labels = subject.labels.numpy()
    predictors = {}
    for layer in layers:
        predictors[layer.layer] = compare_predictors(
            scores.values,
            {
                "log-density": layer.log_density,
                "relative entropy": layer.relative_entropy.value.cpu().numpy()[labels],
                "neighbour distance": layer.neighbour_distance,
            },
            labels,
            random_state=options.seed,
        )
    return MemorizationAnalysis(
        scores,
        correlate(
            scores.values, {layer.layer: layer.log_density for layer in layers}, labels, random_state=options.seed
        ),
        predictors,
        _compare_subsets(subject, layers, scores.values, options),
        auc(scores.values, subject.flipped),
    )


def _compare_subsets(
    subject: Subject, layers: list[LayerAnalysis], scores: NDArray[np.float64], options: AnalyzeOptions
) -> SubsetComparison:
    labels = subject.labels.numpy()
    smallest = int(np.bincount(labels[np.isfinite(scores)], minlength=len(subject.class_names)).min())
    held_out, fitted = max(1, smallest // _HELD_OUT_SHARE), max(2, smallest // _FITTED_SHARE)
    left_out = memorization_subsets(scores, labels, held_out, random_state=options.seed)
    chosen = memorization_subsets(scores, labels, fitted, random_state=options.seed)
    classification: dict[str, list[GenerativeClassification]] = {name: [] for name in Subsets._fields}
    divergence: dict[str, list[fd.MonteCarloEstimate]] = {name: [] for name in Subsets._fields}
    kept = np.setdiff1d(np.arange(len(labels)), np.concatenate(left_out))
    for layer in layers:
        points = layer.points
        models = _fit(subject, layer, kept, options)
        for name, rows in left_out._asdict().items():
            classification[name].append(generative_classification(models.log_prob(points[rows]), labels[rows]))
        generator = torch.Generator(points.device).manual_seed(options.seed)
        for name, rows in chosen._asdict().items():
            density = _fit(subject, layer, rows, options).density()
            assert options.divergence_draws is not None
            divergence[name].append(kl_matrix(density, options.divergence_draws, generator))
    return SubsetComparison(held_out, fitted, classification, divergence)


def _fit(
    subject: Subject, layer: LayerAnalysis, rows: NDArray[np.int64], options: AnalyzeOptions
) -> fd.DirichletProcessMixtures | fd.GaussianMixtures:
    # Whether chains agree is told of the whole classes; one is enough here.
    changed = {"chains": 1} if options.density == "dp" else {}
    return fit_classes(subject, layer.layer, layer.points, options, rows, **changed)[0].models
