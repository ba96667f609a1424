"""One-line summaries that the command prints as the analysis proceeds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis import MemorizationScores, roc_auc
from fastdens.pipeline.data import AnalysisData
from fastdens.pipeline.results import LayerAnalysis

# Feldman & Zhang call an example memorized from here on.
_MEMORIZED = 0.25


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
            f"The mean score is {score.mean():.3f}, and {(score > _MEMORIZED).mean():.1%} have one over {_MEMORIZED}; "
            f"the mean standard error of a score is {scores.standard_error[known].mean():.3f}."
        )
        auc = roc_auc(scores.score, flipped)
        if not math.isnan(auc):
            n_flipped = int(flipped[known].sum())
            sentences.append(f"The score finds the {n_flipped} flipped labels among them with an AUC of {auc:.3f}.")
    return " ".join(sentences)
