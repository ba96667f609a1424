"""How memorization goes with density, and what memorized examples do to the class densities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis import density_bins
from fastdens.cli.page import Number, Numbers, Section, by_layer_html, figure_html, single, table_html
from fastdens.cli.sections.divergences import of_pairs, quartiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastdens.cli.analyze import Analysis
    from fastdens.cli.memorization_analysis import MemorizationAnalysis

N_BINS = 10
_SUBSETS = {"most": "most memorized", "least": "least memorized", "random": "random"}


def _of(analysis: Analysis) -> MemorizationAnalysis:
    assert analysis.memorization is not None
    return analysis.memorization


def _by_bin(analysis: Analysis) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean score and its standard error in each bin of the last layer's log-density, from the least dense."""
    scores = _of(analysis).scores.values
    known = np.isfinite(scores)
    density = analysis.layers[-1].log_density[known]
    n_bins = min(N_BINS, len(density))
    bins = density_bins(density, n_bins)
    parts = [scores[known][bins == b] for b in range(n_bins)]
    error = [part.std(ddof=1) / math.sqrt(len(part)) if len(part) > 1 else math.nan for part in parts]
    return np.array([part.mean() for part in parts]), np.array(error)


def _numbers(analysis: Analysis) -> Iterable[Number]:
    memorization = _of(analysis)
    scores, layers = memorization.scores, [layer.layer for layer in analysis.layers]
    known = scores.values[np.isfinite(scores.values)]
    yield Number("networks trained for memorization", scores.n_networks)
    yield Number("examples with a memorization score", len(known))
    yield Number("mean memorization score", known.mean(), standard_error=known.std(ddof=1) / math.sqrt(len(known)))
    yield Number("share of scores over a quarter", (known > 0.25).mean())
    if scores.standard_error is not None:
        yield Number("mean standard error of a score", float(np.nanmean(scores.standard_error)))
    if not math.isnan(memorization.flipped_auc):
        yield Number("flipped AUC of memorization", memorization.flipped_auc)
    correlations = memorization.correlations
    for at, layer in enumerate(layers):
        yield Number(
            "Spearman correlation of memorization",
            correlations.spearman[at],
            layer,
            low=correlations.spearman_low[at],
            high=correlations.spearman_high[at],
        )
        yield Number("corrected p-value of Spearman", correlations.spearman_pvalue_corrected[at], layer)
        yield Number(
            "Kendall correlation of memorization",
            correlations.kendall[at],
            layer,
            low=correlations.kendall_low[at],
            high=correlations.kendall_high[at],
        )
        yield Number(
            "Spearman correlation within classes",
            correlations.spearman_within[at],
            layer,
            low=correlations.spearman_within_low[at],
            high=correlations.spearman_within_high[at],
        )
        comparison = memorization.predictors[layer]
        for name, strength in zip(comparison.names, comparison.rho, strict=True):
            k = comparison.names.index(name)
            yield Number(
                "Spearman correlation of a predictor",
                strength,
                layer,
                group=name,
                low=comparison.low[k],
                high=comparison.high[k],
            )
            yield Number("share of resamples in which it predicts best", comparison.win_share[k], layer, group=name)
        yield Number(
            "lead of the best predictor", comparison.lead, layer, low=comparison.lead_low, high=comparison.lead_high
        )
    subsets = memorization.subsets
    yield Number("examples of a class held out in a subset", subsets.held_out)
    yield Number("examples of a class fitted in a subset", subsets.fitted)
    for name, words in _SUBSETS.items():
        for at, layer in enumerate(layers):
            result = subsets.classification[name][at]
            yield Number("subset F1", result.f1, layer, group=words)
            yield Number(
                "subset accuracy", result.accuracy, layer, group=words, standard_error=result.accuracy_standard_error
            )
            if len(analysis.subject.class_names) > 1:
                pairs = of_pairs(subsets.divergence[name][at].value.cpu().numpy())
                yield from quartiles("subset ", pairs, layer, group=words)
    for b, (value, error) in enumerate(zip(*_by_bin(analysis), strict=True)):
        yield Number("mean memorization score of a bin", value, layers[-1], group=f"bin {b + 1}", standard_error=error)


def _correlations(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_correlations

    predictors, layers = _of(analysis).predictors, [layer.layer for layer in analysis.layers]
    names = predictors[layers[0]].names
    figure, axes = single(8, 4.2)

    def of_layers(k: int, part: str) -> NDArray[np.float64]:
        return np.array([getattr(predictors[layer], part)[k] for layer in layers])

    series = {name: (of_layers(k, "rho"), of_layers(k, "low"), of_layers(k, "high")) for k, name in enumerate(names)}
    # Of the three only the log-density is tested; the others are told apart from zero by their intervals.
    apart = {name: (low > 0) | (high < 0) for name, (_, low, high) in series.items()}
    apart["log-density"] = _of(analysis).correlations.spearman_pvalue_corrected < 0.05
    plot_correlations(axes, layers, series, significant=apart)
    return figure


def _by_density(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_by_bin

    figure, axes = single(7, 4)
    mean, error = _by_bin(analysis)
    plot_by_bin(axes, mean, "mean memorization score", errors=error)
    return figure


def _subset_f1(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_subset_scores

    subsets = _of(analysis).subsets
    figure, axes = single(8, 4.2)
    plot_subset_scores(
        axes,
        [layer.layer for layer in analysis.layers],
        {words: [r.f1 for r in subsets.classification[name]] for name, words in _SUBSETS.items()},
    )
    return figure


def _subset_divergence(analysis: Analysis) -> Figure:
    from fastdens.analysis.figures import plot_divergence_by_layer

    subsets = _of(analysis).subsets
    figure, axes = single(8, 4.2)
    plot_divergence_by_layer(
        axes,
        [layer.layer for layer in analysis.layers],
        {
            words: np.stack([of_pairs(kl.value.cpu().numpy()) for kl in subsets.divergence[name]])
            for name, words in _SUBSETS.items()
        },
    )
    return figure


def _html(analysis: Analysis, numbers: Numbers, figures: Mapping[str, bytes]) -> str:
    memorization, n = _of(analysis), numbers.html
    layers = [layer.layer for layer in analysis.layers]
    first, last = layers[0], layers[-1]
    flipped = ""
    if not math.isnan(memorization.flipped_auc):
        flipped = (
            " Flipped labels are found by a high score with an area under the ROC curve of "
            f"{n('flipped AUC of memorization')}."
        )
    best = memorization.predictors[last]
    verdict = (
        f"At {last} the {best.best} predicts memorization best, with a lead of "
        f"{n('lead of the best predictor', last)} over the next"
        + (
            "."
            if best.decided
            else ", which does not exclude zero: the data do not tell which of the three predicts it best."
        )
    )
    most, least = _SUBSETS["most"], _SUBSETS["least"]
    correlation_columns = {
        "Spearman correlation of memorization": ".3f",
        "corrected p-value of Spearman": ".2g",
        "Kendall correlation of memorization": ".3f",
        "Spearman correlation within classes": ".3f",
        "lead of the best predictor": ".3f",
    }
    bins = min(N_BINS, len(memorization.scores.values))
    divergence = ""
    if len(analysis.subject.class_names) > 1:
        divergence = figure_html(
            "subset_divergence",
            figures["subset_divergence"],
            "KL divergence between densities fitted on "
            f"{n('examples of a class fitted in a subset', digits='d')} examples of each class: median over pairs of "
            f"classes, band from the lower to the upper quartile. At {last} the median is "
            f"{n('subset median KL divergence', last, digits='.2f', group=most)} nats for the most and "
            f"{n('subset median KL divergence', last, digits='.2f', group=least)} for the least memorized.",
        )
    return f"""
<h2>Memorization</h2>
<p>{_about_scores(analysis, numbers)}{flipped}</p>
{
        figure_html(
            "memorization_by_density",
            figures["memorization_by_density"],
            f"Mean memorization score of examples in bins of equal size by log-density at {last}, bin 1 the least "
            f"dense: {n('mean memorization score of a bin', last, group='bin 1')} there and "
            f"{n('mean memorization score of a bin', last, group=f'bin {bins}')} in the densest.",
        )
    }
{
        figure_html(
            "correlations",
            figures["correlations"],
            "Spearman's rank correlation of the memorization score with the log-density, the relative entropy of the "
            f"class and the mean distance to the {analysis.options.neighbours} nearest neighbours in the class, with "
            f"95 % bootstrap intervals. {verdict}",
        )
    }
{by_layer_html(numbers, layers, correlation_columns)}
<p>P-values are Holm's, for {len(layers)} layers; the lead is the difference of the absolute correlations of the best
predictor and the next.</p>
{_predictor_table(analysis, numbers)}

<h2>Memorized examples and the class densities</h2>
{
        figure_html(
            "subset_f1",
            figures["subset_f1"],
            f"The {n('examples of a class held out in a subset', digits='d')} most memorized, least memorized and "
            "random examples of each class, classified by densities fitted without them: weighted F1 at each layer. At "
            f"{first} it is {n('subset F1', first, group=most)} for the most and {n('subset F1', first, group=least)} "
            f"for the least memorized, at {last} {n('subset F1', last, group=most)} and "
            f"{n('subset F1', last, group=least)}.",
        )
    }
{divergence}
{_subset_table(analysis, numbers)}"""


def _about_scores(analysis: Analysis, numbers: Numbers) -> str:
    scores, n = _of(analysis).scores, numbers.html
    summary = (
        f"The mean score of {n('examples with a memorization score', digits='d')} examples is "
        f"{n('mean memorization score')}; {n('share of scores over a quarter')} of them exceed a quarter."
    )
    if not scores.n_networks:
        return f"Memorization scores were read from {escape(str(analysis.options.memorization))}. {summary}"
    return (
        f"{n('networks trained for memorization', digits='d')} networks were trained on random subsets of the "
        "examples. The score of an example is the share of those networks right on it that had it less the share of "
        "those that had it not (Feldman &amp; Zhang, 2020); its standard error is on average "
        f"{n('mean standard error of a score')}. {summary}"
    )


def _predictor_table(analysis: Analysis, numbers: Numbers) -> str:
    predictors = _of(analysis).predictors
    quantities = ("Spearman correlation of a predictor", "share of resamples in which it predicts best")
    return table_html(
        ["layer", "predictor", *quantities],
        [
            [escape(layer), escape(name), *(numbers.html(quantity, layer, group=name) for quantity in quantities)]
            for layer, comparison in predictors.items()
            for name in comparison.names
        ],
    )


def _subset_table(analysis: Analysis, numbers: Numbers) -> str:
    quantities = ["subset F1", "subset accuracy"]
    if len(analysis.subject.class_names) > 1:
        quantities += [
            "subset lower quartile of the KL divergence",
            "subset median KL divergence",
            "subset upper quartile of the KL divergence",
        ]
    return table_html(
        ["layer", "subset", *(quantity.removeprefix("subset ") for quantity in quantities)],
        [
            [escape(layer.layer), words, *(numbers.html(quantity, layer.layer, group=words) for quantity in quantities)]
            for layer in analysis.layers
            for words in _SUBSETS.values()
        ],
    )


MEMORIZATION = Section(
    lambda analysis: analysis.memorization is not None,
    _numbers,
    {
        "memorization_by_density": _by_density,
        "correlations": _correlations,
        "subset_f1": _subset_f1,
        "subset_divergence": _subset_divergence,
    },
    _html,
)
