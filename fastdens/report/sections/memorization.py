"""Memorization: scores, their correlation with density, and the effect of memorized examples on the densities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis import MEMORIZED, density_bins
from fastdens.analysis.figures import plot_by_bin, plot_correlations, plot_divergence_by_layer, plot_subset_scores
from fastdens.pipeline.results import Analysis, MemorizationAnalysis, Scores, SubsetComparison
from fastdens.report.estimates import mean_of, share_of
from fastdens.report.figures import literal, single
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section, known
from fastdens.report.sections.divergences import kl_over_pairs, mean_of_pairs, of_pairs
from fastdens.report.sections.flipped_labels import flipped_examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_BINS = 10
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
    mean, error = mean_of(known)
    yield of_analysis("n_networks", "networks trained for memorization", scores.n_networks)
    yield of_analysis("n_scores", "examples with a memorization score", len(known))
    yield of_analysis("score", "mean memorization score", mean, standard_error=error)
    share, error = share_of(known > MEMORIZED)
    yield of_analysis("memorized", "share of scores over a quarter", share, standard_error=error)
    if scores.standard_error is not None:
        mean_error = float(np.nanmean(scores.standard_error))
        yield of_analysis("score_standard_error", "mean standard error of a score", mean_error)
    if not math.isnan(memorization.flipped_auc):
        yield of_analysis("flipped_auc", "flipped AUC of memorization", memorization.flipped_auc)
        for kind, rows in (("flipped", flipped), ("kept", ~flipped)):
            mean, error = mean_of(scores.values[rows & finite])
            yield of_analysis(f"score_{kind}", f"mean score, label {kind}", mean, standard_error=error)


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
    whose = "of all classes" if analysis.options.label_subsets == "global" else "of a class"
    yield of_analysis("n_held_out", f"examples {whose} held out in a subset", subsets.held_out)
    yield of_analysis("n_fitted", "examples of a class fitted in a subset", subsets.fitted)
    if analysis.options.kl_subsets == "threshold":
        yield of_analysis("kl_high", "lowest score of the most memorized examples fitted", analysis.options.kl_high)
        yield of_analysis("kl_low", "highest score of the least memorized examples fitted", analysis.options.kl_low)
    for subset, words in SUBSETS.items():
        of_subset = of_analysis.of_group("subset", subset, words)
        if subset in subsets.label_scores:
            quantity = "lowest score" if subset == "most" else "highest score"
            yield of_subset("threshold", f"{quantity} of a subset", subsets.label_scores[subset])
        if subset in subsets.n_classes:
            yield of_subset("n_classes", "classes with enough examples to be fitted", subsets.n_classes[subset])
        for at, layer_name in enumerate(analysis.layer_names):
            yield from _metrics_of_subset(analysis, subsets, subset, at, layer_name)


def _metrics_of_subset(
    analysis: Analysis, subsets: SubsetComparison, subset: str, at: int, layer_name: str
) -> Iterator[Metric]:
    """How the examples of a subset are classified at a layer, and how far apart the classes are by them."""
    of_subset = section_scope("memorization", layer_name).of_group("subset", subset, SUBSETS[subset])
    if subset in subsets.classification:
        result = subsets.classification[subset][at]
        if subset in subsets.f1_of_draws:
            f1 = subsets.f1_of_draws[subset][at]
            yield of_subset("f1", "subset F1, mean over draws", f1.mean())
            yield of_subset("f1_std", "standard deviation of the subset F1 over draws", f1.std(ddof=1))
        else:
            yield of_subset("f1", "subset F1", result.f1, standard_error=result.f1_standard_error)
        error = result.accuracy_standard_error
        yield of_subset("accuracy", "subset accuracy", result.accuracy, standard_error=error)
    if subset in subsets.divergence:
        yield from kl_over_pairs(of_subset, subsets.divergence[subset][at].value, "subset ")
    elif len(analysis.examples.class_names) > 1:
        yield from kl_over_pairs(of_subset, np.full((2, 2), math.nan), "subset ")


def _scores_by_bin(analysis: Analysis, scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean score and its standard error in each bin of the last layer's log-density, from the least dense."""
    known = np.isfinite(scores.values)
    density = analysis.layers[-1].log_density[known]
    n_bins = min(N_BINS, len(density))
    bins = density_bins(density, n_bins)
    mean, error = np.array([mean_of(scores.values[known][bins == b]) for b in range(n_bins)]).T
    return mean, error


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
    if subsets.classification:
        figure, axes = single(8, 4.2)
        if subsets.f1_of_draws:
            of_draws = {words: np.stack(subsets.f1_of_draws[name]) for name, words in SUBSETS.items()}
            f1 = {words: own.mean(1) for words, own in of_draws.items()}
            spread = {words: own.std(1, ddof=1) for words, own in of_draws.items()}
            plot_subset_scores(axes, layer_names, f1, spread, bars="± 1 SD over draws")
        else:
            results = {words: subsets.classification[name] for name, words in SUBSETS.items()}
            f1 = {words: np.array([one.f1 for one in own]) for words, own in results.items()}
            errors = {words: np.array([one.f1_standard_error for one in own]) for words, own in results.items()}
            plot_subset_scores(axes, layer_names, f1, errors)
        yield "subset_f1", figure

    compared = _compared_subsets(analysis)
    if compared:
        figure, axes = single(8, 4.2)
        divergence: dict[str, Any] = {}
        for name, words in compared.items():
            values = np.stack([of_pairs(kl.value) for kl in subsets.divergence[name]])
            divergence[words] = values
            if mean_of_pairs(analysis):
                mean, std = values.mean(1), values.std(1, ddof=1)
                divergence[words] = (mean, mean - std, mean + std)
        bars = "± 1 SD over pairs" if mean_of_pairs(analysis) else "from lower to upper quartile"
        plot_divergence_by_layer(axes, layer_names, divergence, bars=bars)
        yield "subset_divergence", figure


def _compared_subsets(analysis: Analysis) -> dict[str, str]:
    """The subsets by which classes were compared."""
    if len(analysis.examples.class_names) < 2:
        return {}
    return {name: words for name, words in SUBSETS.items() if name in known(analysis.memorization).subsets.divergence}


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
    return {
        "subsets": SUBSETS,
        "compared": _compared_subsets(analysis),
        "mean_of_pairs": mean_of_pairs(analysis),
        "n_scores": n_scores,
        "n_bins": min(N_BINS, n_scores),
    }


SECTION = Section("memorization", "Memorization", applies, metrics, figures, context)
