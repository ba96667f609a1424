"""Memorization: scores, their correlation with density, and the effect of memorized examples on the densities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis import density_bins
from fastdens.analysis.figures import plot_by_bin, plot_correlations, plot_divergence_by_layer, plot_subset_scores
from fastdens.pipeline.results import Analysis, MemorizationAnalysis, Scores
from fastdens.report.figures import literal, single
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section, known
from fastdens.report.sections.divergences import kl_quartiles, of_pairs
from fastdens.report.sections.flipped_labels import flipped_examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_BINS = 10
MEMORIZED = 0.25
"""Feldman & Zhang call an example memorized whose score is above this."""
SUBSETS = {"most": "most memorized", "least": "least memorized", "random": "random"}


def applies(analysis: Analysis) -> bool:
    """Whether there are memorization scores."""
    return analysis.memorization is not None


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """Scores, their correlations with density, subsets of examples, and scores by density."""
    memorization = known(analysis.memorization)
    yield from _score_metrics(memorization, flipped_examples(analysis))
    for at, layer_name in enumerate(analysis.layer_names):
        yield from _correlation_metrics(memorization, at, layer_name)
    yield from _subset_metrics(analysis, memorization)
    for b, (value, error) in enumerate(zip(*_scores_by_bin(analysis, memorization.scores), strict=True), start=1):
        of_bin = section_scope("memorization", analysis.layer_names[-1]).of_group("bin", str(b), f"bin {b}")
        yield of_bin("score", "mean memorization score of a bin", value, standard_error=error)


def _score_metrics(memorization: MemorizationAnalysis, flipped: NDArray[np.bool_]) -> Iterator[Metric]:
    of_analysis, scores = section_scope("memorization"), memorization.scores
    finite = np.isfinite(scores.values)
    known = scores.values[finite]
    yield of_analysis("n_networks", "networks trained for memorization", scores.n_networks)
    yield of_analysis("n_scores", "examples with a memorization score", len(known))
    mean, error = _mean(known)
    yield of_analysis("score", "mean memorization score", mean, standard_error=error)
    yield of_analysis("memorized", "share of scores over a quarter", (known > MEMORIZED).mean())
    if scores.standard_error is not None:
        mean_error = float(np.nanmean(scores.standard_error))
        yield of_analysis("score_standard_error", "mean standard error of a score", mean_error)
    if not math.isnan(memorization.flipped_auc):
        yield of_analysis("flipped_auc", "flipped AUC of memorization", memorization.flipped_auc)
        for kind, rows in (("flipped", flipped), ("kept", ~flipped)):
            mean, error = _mean(scores.values[rows & finite])
            yield of_analysis(f"score_{kind}", f"mean score, label {kind}", mean, standard_error=error)


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    """The mean and its standard error, NaN of a single value."""
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)


def _correlation_metrics(memorization: MemorizationAnalysis, at: int, layer_name: str) -> Iterator[Metric]:
    of_layer, correlations = section_scope("memorization", layer_name), memorization.correlations
    spearman, kendall, within = correlations.spearman, correlations.kendall, correlations.spearman_within
    low, high = spearman.low[at], spearman.high[at]
    yield of_layer("spearman", "Spearman correlation of memorization", spearman.value[at], low=low, high=high)
    yield of_layer("spearman_pvalue", "corrected p-value of Spearman", spearman.pvalue_corrected[at])
    low, high = kendall.low[at], kendall.high[at]
    yield of_layer("kendall", "Kendall correlation of memorization", kendall.value[at], low=low, high=high)
    low, high = within.low[at], within.high[at]
    yield of_layer("spearman_within", "Spearman correlation within classes", within.value[at], low=low, high=high)
    comparison = memorization.predictors[layer_name]
    rho, lead = comparison.rho, comparison.lead
    for k, name in enumerate(comparison.names):
        of_predictor = of_layer.of_group("predictor", name, name)
        low, high = rho.low[k], rho.high[k]
        yield of_predictor("spearman", "Spearman correlation of a predictor", rho.value[k], low=low, high=high)
        yield of_predictor("best_share", "share of resamples in which it predicts best", comparison.win_share[k])
    yield of_layer("lead", "lead of the best predictor", lead.value, low=lead.low, high=lead.high)


def _subset_metrics(analysis: Analysis, memorization: MemorizationAnalysis) -> Iterator[Metric]:
    of_analysis, subsets = section_scope("memorization"), memorization.subsets
    yield of_analysis("n_held_out", "examples of a class held out in a subset", subsets.held_out)
    yield of_analysis("n_fitted", "examples of a class fitted in a subset", subsets.fitted)
    for subset, words in SUBSETS.items():
        for at, layer_name in enumerate(analysis.layer_names):
            of_subset = section_scope("memorization", layer_name).of_group("subset", subset, words)
            result = subsets.classification[subset][at]
            error = result.accuracy_standard_error
            yield of_subset("f1", "subset F1", result.f1)
            yield of_subset("accuracy", "subset accuracy", result.accuracy, standard_error=error)
            yield from kl_quartiles(of_subset, subsets.divergence[subset][at].value, "subset ")


def _scores_by_bin(analysis: Analysis, scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean score and its standard error in each bin of the last layer's log-density, from the least dense."""
    known = np.isfinite(scores.values)
    density = analysis.layers[-1].log_density[known]
    n_bins = min(N_BINS, len(density))
    bins = density_bins(density, n_bins)
    mean, error = zip(*(_mean(scores.values[known][bins == b]) for b in range(n_bins)), strict=True)
    return np.array(mean), np.array(error)


def figures(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    """Scores by density, correlations, and the classification and divergence of the subsets."""
    memorization = known(analysis.memorization)
    layer_names = [literal(name) for name in analysis.layer_names]
    figure, axes = single(7, 4)
    mean, error = _scores_by_bin(analysis, memorization.scores)
    plot_by_bin(axes, mean, "mean memorization score", errors=error)
    yield "memorization_by_density", figure

    yield "correlations", _correlations(analysis, memorization)

    subsets = memorization.subsets
    figure, axes = single(8, 4.2)
    f1 = {words: [result.f1 for result in subsets.classification[name]] for name, words in SUBSETS.items()}
    plot_subset_scores(axes, layer_names, f1)
    yield "subset_f1", figure

    if len(analysis.examples.class_names) > 1:
        figure, axes = single(8, 4.2)
        divergence = {
            words: np.stack([of_pairs(kl.value) for kl in subsets.divergence[name]]) for name, words in SUBSETS.items()
        }
        plot_divergence_by_layer(axes, layer_names, divergence)
        yield "subset_divergence", figure


def _correlations(analysis: Analysis, memorization: MemorizationAnalysis) -> Figure:
    rho = [memorization.predictors[name].rho for name in analysis.layer_names]
    parts = [np.stack([getattr(of_layer, part) for of_layer in rho], 1) for part in ("value", "low", "high")]
    names = memorization.predictors[analysis.layer_names[0]].names
    series = {name: (value, low, high) for name, value, low, high in zip(names, *parts, strict=True)}
    # Only the log-density is tested; whether the others differ from zero is told by their intervals.
    significant = {name: (low > 0) | (high < 0) for name, (_, low, high) in series.items()}
    significant["log-density"] = memorization.correlations.spearman.pvalue_corrected < 0.05
    figure, axes = single(8, 4.2)
    plot_correlations(axes, [literal(name) for name in analysis.layer_names], series, significant=significant)
    return figure


def context(analysis: Analysis) -> Mapping[str, object]:
    """Names of the subsets, and the number of the densest bin."""
    n_scores = int(np.isfinite(known(analysis.memorization).scores.values).sum())
    return {"subsets": SUBSETS, "n_bins": min(N_BINS, n_scores)}


SECTION = Section("memorization", applies, metrics, figures, context)
