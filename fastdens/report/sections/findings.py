"""What was found, in at most eight sentences, and what could not be said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastdens.analysis import GenerativeClassification
from fastdens.pipeline.results import Analysis, LayerAnalysis, RobustnessAnalysis
from fastdens.report.estimates import REACH, Estimate, mean_of
from fastdens.report.metrics import Metric, section_scope
from fastdens.report.section import Section
from fastdens.report.sections import flipped_labels, long_tail

ARISEN = 0.9
"""The label has arisen at the first layer whose F1 is this share of that at the last layer."""

_TESTED = {"least": "typical examples", "most": "the most memorized ones"}


class Label(NamedTuple):
    """Where the label of some examples arises: what they are, the parts of the identifiers of their F1, and the layer.

    The layer is None where the densities of the last one classify them no better than chance.
    """

    words: str
    name: str
    layer: str | None
    f1: tuple[str, ...]


@dataclass(frozen=True)
class Groups:
    """Names of the layers with two groups of classes and of those with one, and the layer of the smallest p-value.

    The latter is None where no layer has a p-value.
    """

    two: tuple[str, ...]
    one: tuple[str, ...]
    nearest: str | None


def metrics(analysis: Analysis) -> Iterator[Metric]:
    """Sizes of the sparse groups, positions at which labels arise, and the difference of certified radii."""
    for layer in analysis.layers:
        of_layer, modes = section_scope("findings", layer.name), layer.modes
        if modes.n_groups == 2:
            yield of_layer("n_sparse", "classes below the line", int((modes.group == 0).sum()))
    for label in _labels(analysis):
        at = math.nan if label.layer is None else analysis.layer_names.index(label.layer) + 1
        of_subset = section_scope("findings").of_group("subset", label.name, label.words)
        yield of_subset("label_layer", "number of the layer at which the label arises", at)
    if (robustness := analysis.robustness) is not None and robustness.n_bins > 1:
        value, error = _radius_difference(robustness)
        low, high = value - REACH * error, value + REACH * error
        quantity = "mean certified radius, densest bin less least dense"
        yield section_scope("findings", robustness.layer)("radius_difference", quantity, value, low=low, high=high)


def _groups(layers: Sequence[LayerAnalysis]) -> Groups:
    tested = [layer for layer in layers if not math.isnan(layer.modes.pvalue)]
    return Groups(
        tuple(layer.name for layer in layers if layer.modes.n_groups == 2),
        tuple(layer.name for layer in layers if layer.modes.n_groups == 1),
        min(tested, key=lambda layer: layer.modes.pvalue).name if tested else None,
    )


def _labels(analysis: Analysis) -> list[Label]:
    """Where, of several layers, the label arises for typical and memorized examples or, without scores, test ones."""
    n_classes, names = len(analysis.examples.class_names), analysis.layer_names
    if len(names) == 1:
        return []
    if analysis.memorization is not None and (of_subsets := analysis.memorization.subsets.classification):
        return [
            Label(words, name, _layer_of_label(names, of_subsets[name], n_classes), ("memorization", "subset", name))
            for name, words in _TESTED.items()
        ]
    held_out = [layer.held_out for layer in analysis.layers if layer.held_out is not None]
    if not held_out:
        return []
    return [Label("test examples", "test", _layer_of_label(names, held_out, n_classes), ("label",))]


def _layer_of_label(
    names: Sequence[str], classification: Sequence[GenerativeClassification], n_classes: int
) -> str | None:
    """The first layer whose F1 is nearly that at the last, None where the accuracy there may be by chance."""
    final = classification[-1]
    if final.accuracy - REACH * final.accuracy_standard_error <= 1 / n_classes:
        return None
    return next(name for name, own in zip(names, classification, strict=True) if own.f1 >= ARISEN * final.f1)


def _radius_difference(robustness: RobustnessAnalysis) -> Estimate:
    """Mean certified radius of the densest bin less that of the least dense, of different examples."""
    least, most = (mean_of(robustness.radius[robustness.bin == b]) for b in (0, robustness.n_bins - 1))
    return Estimate(most.value - least.value, math.hypot(most.standard_error, least.standard_error))


def _layer_of_seeds(analysis: Analysis) -> str | None:
    """The last layer at which networks of different seeds have groups to compare, None where there is none."""
    if analysis.seed_agreement is None:
        return None
    of_layers = zip(analysis.layer_names, analysis.seed_agreement, strict=True)
    comparable = [name for name, agreement in of_layers if np.isfinite(agreement).any()]
    return comparable[-1] if comparable else None


def _predictor(analysis: Analysis) -> dict[str, object] | None:
    """What predicts memorization best at the last layer, and whether its correlation is seen to differ from zero."""
    if analysis.memorization is None:
        return None
    comparison = analysis.memorization.predictors[analysis.layer_names[-1]]
    best = comparison.names.index(comparison.best)
    low, high = comparison.rho.low[best], comparison.rho.high[best]
    return {"comparison": comparison, "correlates": bool(low > 0 or high < 0)}


def _other_definition(analysis: Analysis) -> dict[str, str] | None:
    """The other density of training examples, and its rank of flipped labels at the last layer; None if it agrees."""
    layer, flipped = analysis.layers[-1], flipped_labels.flipped_examples(analysis)
    if layer.in_sample is None or layer.left_out is None or not flipped.any():
        return None
    if analysis.options.training_density == "in_sample":
        name, words, other = "left_out", "left out", layer.left_out
    else:
        name, words, other = "in_sample", "in sample", layer.in_sample
    rank = flipped_labels.rank_of_flipped(other, flipped)
    agrees = rank == flipped_labels.rank_of_flipped(layer.log_density, flipped)
    return None if agrees else {"name": name, "words": words, "rank": rank}


def context(analysis: Analysis) -> Mapping[str, object]:
    """The facts that the sentences choose their words by."""
    examples, robustness, flipped = analysis.examples, analysis.robustness, flipped_labels.flipped_examples(analysis)
    sampled = [layer.name for layer in analysis.layers if layer.chains is not None]
    return {
        "groups": _groups(analysis.layers),
        "known_tail": long_tail.applies(analysis),
        "flips": flipped_labels.rank_of_flipped(analysis.layers[-1].log_density, flipped),
        "known_flips": flipped_labels.applies(analysis),
        "labels": _labels(analysis),
        "of_memorized": analysis.memorization is not None and bool(analysis.memorization.subsets.classification),
        "other_definition": _other_definition(analysis),
        "predictor": _predictor(analysis),
        "seeds_layer": _layer_of_seeds(analysis),
        "sampled": sampled,
        "all_agree": all(layer.chains.agree.all() for layer in analysis.layers if layer.chains is not None),
        "one_chain": any(layer.chains.log_joint.shape[1] == 1 for layer in analysis.layers if layer.chains is not None),
        "bins": None if robustness is None or robustness.n_bins == 1 else robustness,
        "trained_here": analysis.provenance.epochs is not None,
        "fits_labels": examples.train_predicted is not None,
    }


SECTION = Section("findings", "What was found", metrics=metrics, context=context)
