"""The two definitions of the density of a training example: in sample and left out of its own cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis import class_log_density, roc_auc
from fastdens.kernels.optional import require
from fastdens.pipeline.results import Analysis, LayerAnalysis
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section, known
from fastdens.report.sections.flipped_labels import flipped_examples, rank_of_flipped


def applies(analysis: Analysis) -> bool:
    """Whether both densities were computed."""
    return all(layer.left_out is not None for layer in analysis.layers)


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """At each layer, what an example gains in sample, the agreement of class means, and what finds flipped labels."""
    labels, flipped = analysis.examples.labels, flipped_examples(analysis)
    for layer in analysis.layers:
        of_layer = section_scope("definitions", layer.name)
        in_sample, left_out = _densities(layer)
        gain = in_sample - left_out
        error = gain.std(ddof=1) / math.sqrt(len(gain))
        yield of_layer("gain", "mean log-density in sample less that left out", gain.mean(), standard_error=error)
        means = (class_log_density(own, labels).mean for own in (in_sample, left_out))
        yield of_layer("rank_correlation", "rank correlation of class means by both definitions", _spearman(*means))
        if flipped.any() and not flipped.all():
            yield of_layer("flipped_auc_in_sample", "flipped AUC, in sample", roc_auc(-in_sample, flipped))
            yield of_layer("flipped_auc_left_out", "flipped AUC, left out", roc_auc(-left_out, flipped))


def _densities(layer: LayerAnalysis) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-density of the training examples in sample and left out."""
    return known(layer.in_sample), known(layer.left_out)


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Spearman's correlation, NaN for fewer than three values."""
    if len(x) < 3:
        return math.nan
    stats = require("scipy.stats", "write_report", "analysis")
    return float(stats.spearmanr(x, y)[0])


def context(analysis: Analysis) -> Mapping[str, object]:
    """How each definition ranks flipped examples at the last layer, if there are any."""
    flipped = flipped_examples(analysis)
    if not 0 < flipped.sum() < len(flipped):
        return {"ranked": None}
    in_sample, left_out = (rank_of_flipped(own, flipped) for own in _densities(analysis.layers[-1]))
    return {"ranked": {"in_sample": in_sample, "left_out": left_out}}


SECTION = Section("definitions", "Training examples in sample and left out", applies, metrics, context=context)
