"""Summaries that the command prints: in words, a line each, as the analysis proceeds; and in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis import MEMORIZED, MemorizationScores, ScoreSummary, roc_auc
from fastdens.pipeline.data import AnalysisData
from fastdens.pipeline.options import ScoreThresholds
from fastdens.pipeline.results import LayerAnalysis

# Classes that are named at either end of an order.
_NAMED = 5


def describe_data(data: AnalysisData) -> str:
    """Summarize the data: numbers of examples and classes, and the accuracy of the network."""
    examples = data.examples
    text = f"{data.provenance.name}: {len(examples.labels)} training examples"
    if examples.flipped is not None:
        text += f", {int(examples.flipped.sum())} of them with a flipped label"
    if examples.test_labels is not None:
        text += f", {len(examples.test_labels)} test examples"
    text += f", {len(examples.class_names)} classes"
    if examples.test_accuracy is not None:
        text += f"; the network's accuracy on these is {examples.test_accuracy:.2%}"
    return text


def describe_layer(layer: LayerAnalysis) -> str:
    """Summarize the results at a layer."""
    counts, chains = layer.n_components, layer.chains
    text = f"{layer.name}: D = {layer.n_dimensions}, K = {counts.mean():.3g}"
    if chains is not None:
        text += (
            f" on average ({counts.min():.3g} to {counts.max():.3g} a class), chains of {chains.n_agreeing} of "
            f"{len(counts)} classes agree"
        )
    text += ", one group" if layer.modes.n_groups == 1 else f", two groups, line at {layer.modes.line:.4g}"
    if layer.held_out is not None:
        text += f", held-out accuracy by density {layer.held_out.accuracy:.3f}"
    if not math.isnan(layer.flipped_auc):
        text += f", flipped labels found with AUC {layer.flipped_auc:.3f}"
    return text


def describe_scores(scores: MemorizationScores, flipped: NDArray[np.bool_], n_networks: int, share: float) -> str:
    """Summarize memorization scores: how many there are, how large they are, and how well they find flipped labels.

    Parameters
    ----------
    scores : MemorizationScores
    flipped : ndarray
        bool [N], which labels were flipped.
    n_networks, share
        Networks that were trained, and the share of the examples that each saw.
    """
    known = np.isfinite(scores.score)
    sentences = [
        f"memorization of {len(known)} training examples, by {n_networks} networks that each saw {share:.0%} of them."
    ]
    if not known.all():
        sentences.append(
            f"{int((~known).sum())} examples have no score, as all networks saw them or none did: more --networks give "
            "them one."
        )
    if known.any():
        score = scores.score[known]
        sentences.append(
            f"The mean score is {score.mean():.3f}, and {(score > MEMORIZED).mean():.1%} have one over {MEMORIZED}; "
            f"the mean standard error of a score is {scores.standard_error[known].mean():.3f}."
        )
        auc = roc_auc(scores.score, flipped)
        if not math.isnan(auc):
            n_flipped = int(flipped[known].sum())
            sentences.append(f"The score finds the {n_flipped} flipped labels among them with an AUC of {auc:.3f}.")
    return " ".join(sentences)


def scores_in_numbers(
    scores: MemorizationScores, flipped: NDArray[np.bool_], n_networks: int, share: float
) -> dict[str, Any]:
    """The numbers of :func:`describe_scores`, of the same arguments; NaN where there is none."""
    known = np.isfinite(scores.score)
    score, error = scores.score[known], scores.standard_error[known]
    return {
        "networks": n_networks,
        "share": share,
        "examples": len(known),
        "examples_with_a_score": int(known.sum()),
        "mean_score": float(score.mean()) if known.any() else math.nan,
        "share_memorized": float((score > MEMORIZED).mean()) if known.any() else math.nan,
        "mean_standard_error": float(error.mean()) if known.any() else math.nan,
        "flipped_labels": int(flipped[known].sum()),
        "auc_of_flipped_labels": roc_auc(scores.score, flipped) if known.any() else math.nan,
    }


def describe_score_summary(
    summary: ScoreSummary, thresholds: ScoreThresholds, class_names: Sequence[str] | None
) -> str:
    """Summarize a file of memorization scores, a line for each number.

    Parameters
    ----------
    summary : ScoreSummary
    thresholds : ScoreThresholds
        Those of the summary.
    class_names : sequence of str or None
        In the order of the classes; None without labels.
    """
    lines = [
        f"examples with a score: {summary.n}",
        f"mean score: {summary.mean:.4f}",
        f"share above {MEMORIZED}: {summary.memorized:.1%}",
        f"scores equal to 1: {summary.n_one}",
        f"scores equal to 0: {summary.n_zero}",
        f"scores below 0: {summary.n_negative}",
    ]
    n = thresholds.label_examples
    if math.isnan(summary.highest_from):
        lines.append(f"the {n} highest and lowest scores: there are not so many examples")
    else:
        lines.append(f"the {n} highest scores: from {summary.highest_from:.4f}")
        lines.append(f"the {n} lowest scores: up to {summary.lowest_to:.4f}")
    if summary.class_mean is None or class_names is None:
        lines.append("classes: the file has no labels, so pass --labels to count them")
        return "\n".join(lines)
    at_least = f"classes with at least {thresholds.kl_examples} examples of a score"
    lines.append(f"{at_least} of at least {thresholds.kl_high:g}: {summary.n_classes_high}")
    lines.append(f"{at_least} of at most {thresholds.kl_low:g}: {summary.n_classes_low}")
    # A class without scores is last.
    order = np.argsort(summary.class_mean, kind="stable")[: int(np.isfinite(summary.class_mean).sum())]
    for words, chosen in (("lowest", order[:_NAMED]), ("highest", order[::-1][:_NAMED])):
        means = ", ".join(f"{class_names[c]} ({summary.class_mean[c]:.3f})" for c in chosen)
        lines.append(f"classes of the {words} mean score: {means}")
    return "\n".join(lines)


def score_summary_in_numbers(
    summary: ScoreSummary, thresholds: ScoreThresholds, class_names: Sequence[str] | None
) -> dict[str, Any]:
    """The numbers of :func:`describe_score_summary`, of the same arguments; NaN or None where there is none."""
    mean_of_classes = None
    if summary.class_mean is not None and class_names is not None:
        mean_of_classes = dict(zip(class_names, summary.class_mean.tolist(), strict=True))
    return {
        "examples_with_a_score": summary.n,
        "mean_score": summary.mean,
        "share_memorized": summary.memorized,
        "scores_equal_to_1": summary.n_one,
        "scores_equal_to_0": summary.n_zero,
        "scores_below_0": summary.n_negative,
        "highest_scores": {"examples": thresholds.label_examples, "from": summary.highest_from},
        "lowest_scores": {"examples": thresholds.label_examples, "up_to": summary.lowest_to},
        "classes_of_high_scores": {
            "examples": thresholds.kl_examples,
            "score": thresholds.kl_high,
            "classes": summary.n_classes_high,
        },
        "classes_of_low_scores": {
            "examples": thresholds.kl_examples,
            "score": thresholds.kl_low,
            "classes": summary.n_classes_low,
        },
        "mean_score_of_class": mean_of_classes,
    }
