"""Memorization and density: their correlation, and the effect of memorized examples on class densities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdens.analysis import (
    GenerativeClassification,
    Subsets,
    compare_predictors,
    correlate,
    generative_classification,
    global_subsets,
    memorization_subsets,
    roc_auc,
    threshold_subsets,
)
from fastdens.pipeline.checkpoint import NOTHING_KEPT, Checkpoint
from fastdens.pipeline.data import AnalysisData
from fastdens.pipeline.definitions import divergence_of_classes, f1_of_draws, log_prob_of_classes
from fastdens.pipeline.densities import ClassModels
from fastdens.pipeline.layers import FEWEST_EXAMPLES, estimates_of, fit_classes
from fastdens.pipeline.options import AnalysisOptions
from fastdens.pipeline.results import Estimates, LayerAnalysis, MemorizationAnalysis, Scores, SubsetComparison

# Shares of the smallest class: three subsets are held out together, and each of three is fitted by itself.
_HELD_OUT_SHARE, _FITTED_SHARE = 8, 4

T = TypeVar("T")


def analyze_memorization(
    data: AnalysisData,
    layers: Sequence[LayerAnalysis],
    points: Mapping[str, Tensor],
    scores: Scores,
    options: AnalysisOptions,
    *,
    progress: bool = True,
    checkpoint: Checkpoint = NOTHING_KEPT,
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
    checkpoint : Checkpoint, optional
        Of this analysis: a finished layer is a part.

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
        compare_subsets(data, points, scores.values, options, progress=progress, checkpoint=checkpoint),
        roc_auc(scores.values, data.examples.flipped),
    )


def compare_subsets(
    data: AnalysisData,
    points: Mapping[str, Tensor],
    scores: NDArray[np.float64],
    options: AnalysisOptions,
    *,
    progress: bool = True,
    checkpoint: Checkpoint = NOTHING_KEPT,
) -> SubsetComparison:
    """Compare the most memorized, the least memorized and random examples, layer by layer.

    Densities fitted without any of these examples classify them, and densities fitted on each subset are compared.

    Parameters
    ----------
    data, points, options, progress, checkpoint
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
    held_out, fitted = subset_sizes(_smallest_class(scores, labels), options)
    left_out = _label_subsets(scores, labels, held_out, options)
    chosen = _divergence_subsets(scores, labels, fitted, options)
    layers = [
        checkpoint.part(
            f"layer-{position}",
            _LayerSubsets,
            partial(_compare_at_layer, data, name, own, left_out, chosen, fitted, options, progress),
        )
        for position, (name, own) in enumerate(points.items())
    ]
    label_scores = {}
    if left_out is not None and options.label_subsets == "global":
        label_scores = {"most": float(scores[left_out.most].min()), "least": float(scores[left_out.least].max())}
    return SubsetComparison(
        held_out,
        fitted,
        _by_subset([layer.classification for layer in layers]),
        _by_subset([layer.divergence for layer in layers]),
        {name: len(rows) // fitted for name, rows in chosen._asdict().items()},
        label_scores,
        _by_subset([layer.f1_of_draws for layer in layers]),
    )


@dataclass(frozen=True)
class _LayerSubsets:
    """What :class:`SubsetComparison` has of one layer, by subset."""

    classification: dict[str, GenerativeClassification]
    divergence: dict[str, Estimates]
    f1_of_draws: dict[str, NDArray[np.float64]]


def _by_subset(of_layers: Sequence[Mapping[str, T]]) -> dict[str, tuple[T, ...]]:
    """By subset, one a layer; every layer has the same subsets."""
    return {name: tuple(layer[name] for layer in of_layers) for name in of_layers[0]}


def _compare_at_layer(
    data: AnalysisData,
    layer: str,
    points: Tensor,
    left_out: Subsets | None,
    chosen: Subsets,
    fitted: int,
    options: AnalysisOptions,
    progress: bool,
    checkpoint: Checkpoint,
) -> _LayerSubsets:
    """Classify the subsets that are left out, and compare the classes of those chosen to be fitted."""
    labels, class_names = data.examples.labels, np.array(data.examples.class_names)

    def fit(name: str, rows: NDArray[np.int64]) -> ClassModels:
        own = points[torch.from_numpy(rows).to(points.device)]
        present, codes = np.unique(labels[rows], return_inverse=True)
        names, file = tuple(class_names[present].tolist()), checkpoint.file(name)
        return fit_classes(own, codes, names, layer, options, progress=progress, checkpoint=file)[0].models

    found = _LayerSubsets({}, {}, {})
    if left_out is not None:
        models = fit("others", _others(left_out, len(labels)))
        for name, rows in left_out._asdict().items():
            log_prob = log_prob_of_classes(models, points[rows], options)
            found.classification[name] = generative_classification(log_prob, labels[rows])
            if options.label_subsets == "global" and options.density == "dp":
                found.f1_of_draws[name] = f1_of_draws(models, points[rows], labels[rows], options)
    # The subsets draw from one generator, one after the other.
    generator = torch.Generator(points.device).manual_seed(options.seed)
    for name, rows in chosen._asdict().items():
        if len(rows) > fitted:
            found.divergence[name] = estimates_of(divergence_of_classes(fit(name, rows), options, generator))
    return found


def subset_sizes(smallest: int, options: AnalysisOptions) -> tuple[int, int]:
    """Examples in a held-out subset, and of each class in a fitted one, by the size of the smallest class.

    Those of a held-out subset are of each class, or of all classes if ``label_subsets`` is "global".
    """
    held_out = options.label_examples if options.label_subsets == "global" else max(1, smallest // _HELD_OUT_SHARE)
    fitted = options.kl_examples if options.kl_subsets == "threshold" else max(2, smallest // _FITTED_SHARE)
    return held_out, fitted


def _label_subsets(
    scores: NDArray[np.float64], labels: NDArray[np.int64], size: int, options: AnalysisOptions
) -> Subsets | None:
    """The subsets whose labels are predicted; None if the others would be too few."""
    if options.label_subsets == "class":
        return memorization_subsets(scores, labels, size, random_state=options.seed)
    if np.isfinite(scores).sum() < 3 * size:
        return None
    subsets = global_subsets(scores, size, random_state=options.seed)
    return subsets if _fewest_others(subsets, labels) >= FEWEST_EXAMPLES else None


def _divergence_subsets(
    scores: NDArray[np.float64], labels: NDArray[np.int64], size: int, options: AnalysisOptions
) -> Subsets:
    """The subsets that are fitted."""
    if options.kl_subsets == "quarter":
        return memorization_subsets(scores, labels, size, random_state=options.seed)
    low, high = options.kl_low, options.kl_high
    return threshold_subsets(scores, labels, size, low=low, high=high, random_state=options.seed)


def _smallest_class(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> int:
    """Examples with a score in the class that has the fewest."""
    return int(np.bincount(labels[np.isfinite(scores)], minlength=int(labels.max()) + 1).min())


def _others(subsets: Subsets, n_examples: int) -> NDArray[np.int64]:
    """The examples in none of the subsets."""
    return np.setdiff1d(np.arange(n_examples), np.concatenate(subsets))


def _fewest_others(subsets: Subsets, labels: NDArray[np.int64]) -> int:
    """Examples in none of the subsets, in the class that has the fewest."""
    others = labels[_others(subsets, len(labels))]
    return int(np.bincount(others, minlength=int(labels.max()) + 1).min())
