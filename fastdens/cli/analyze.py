"""The analysis from a network, or from activations, to the report."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis import read_memorization_scores, split_agreement
from fastdens.cli.layer_analysis import (
    LayerAnalysis,
    analyze_layer,
    check_class_sizes,
    groups_of_another_network,
    projected_dimensions,
)
from fastdens.cli.memorization_analysis import MemorizationAnalysis, Scores, analyze_memorization
from fastdens.cli.options import AnalyzeOptions
from fastdens.cli.subject import Subject, load_subject

if TYPE_CHECKING:
    from fastdens.cli.robustness import RobustnessAnalysis


class Analysis(NamedTuple):
    """Everything that the report shows.

    ``layer_agreement`` [L, L] is the adjusted Rand index of the groups that two layers split the classes into;
    ``seed_agreement`` [L, S, S] that of two networks trained from different seeds, None where there is one network;
    ``memorization`` and ``robustness`` are None where they were not asked for.
    """

    options: AnalyzeOptions
    subject: Subject
    layers: list[LayerAnalysis]
    layer_agreement: NDArray[np.float64]
    seed_agreement: NDArray[np.float64] | None
    memorization: MemorizationAnalysis | None
    robustness: RobustnessAnalysis | None

    def layer(self, name: str) -> LayerAnalysis:
        """What was found at the layer of that name."""
        return next(layer for layer in self.layers if layer.layer == name)


def analyze(options: AnalyzeOptions) -> Analysis:
    """Run the analysis and write the report.

    Networks that the folder of runs has already are not trained again, so that an analysis that was stopped goes on.

    Raises
    ------
    FileExistsError
        If there is a report in the output folder and it may not be replaced; this is found out before training.
    ValueError, FileNotFoundError
        If an option is wrong, or data or scores are missing or do not fit.
    """
    from fastdens.cli.report import check_output, write_report

    options = options.with_defaults()
    check_output(options.output, options.overwrite)
    given = read_memorization_scores(options.memorization) if options.memorization else None
    subject = load_subject(options)
    if given is not None and options.memorization is not None:
        # Read again beside the labels: a file of other examples is told before anything is fitted.
        given = read_memorization_scores(options.memorization, len(subject.labels), subject.labels.numpy())
    check_class_sizes(subject, options)
    _say(_about(subject, options))
    layers = []
    for layer, n_features in zip(subject.train.layers, projected_dimensions(subject, options), strict=True):
        layers.append(analyze_layer(subject, layer, n_features, options))
        _say(_about_layer(layers[-1]))
    scores = None if given is None else Scores(given.scores, None, 0)
    if options.memorization_networks:
        scores = _estimated_scores(subject, options)
    memorization = None if scores is None else analyze_memorization(subject, layers, scores, options)
    robustness = _robustness(subject, layers[-1], options) if options.bins else None
    analysis = Analysis(
        options,
        subject,
        layers,
        split_agreement([layer.modes.group for layer in layers]),
        _seed_agreement(subject, layers, options),
        memorization,
        robustness,
    )
    _say(f"Report: {write_report(analysis)}")
    return analysis


def _robustness(subject: Subject, layer: LayerAnalysis, options: AnalyzeOptions) -> RobustnessAnalysis:
    from fastdens.cli.robustness import analyze_robustness

    return analyze_robustness(subject, layer, options)


def _estimated_scores(subject: Subject, options: AnalyzeOptions) -> Scores:
    from fastdens.cli.memorization import estimate_scores
    from fastdens.cli.network_subject import recipe_of

    assert subject.images is not None and options.runs is not None
    assert options.memorization_networks is not None and options.memorization_share is not None
    estimated = estimate_scores(
        subject.images,
        subject.labels,
        recipe_of(options, epochs=options.memorization_epochs or options.epochs),
        folder=options.runs,
        n_networks=options.memorization_networks,
        share=options.memorization_share,
        seed=options.seed,
        processes=options.processes or 1,
        device=options.device,
    )
    return Scores(estimated.score, estimated.standard_error, options.memorization_networks)


def _seed_agreement(
    subject: Subject, layers: list[LayerAnalysis], options: AnalyzeOptions
) -> NDArray[np.float64] | None:
    if not subject.others:
        return None
    groups = [np.stack([layer.modes.group for layer in layers])]
    groups += [groups_of_another_network(subject, network, layers, options) for network in subject.others]
    return np.stack([split_agreement(list(of_layer)) for of_layer in np.stack(groups, 1)])


def _say(text: str) -> None:
    print(text, file=sys.stdout, flush=True)


def _about(subject: Subject, options: AnalyzeOptions) -> str:
    flips = "" if subject.flipped is None else f", {int(subject.flipped.sum())} of them with a flipped label"
    tests = "" if subject.test_labels is None else f", {len(subject.test_labels)} test examples"
    accuracy = ""
    if subject.test_accuracy is not None:
        accuracy = f"; the network's accuracy on these is {subject.test_accuracy:.2%}"
    return (
        f"{options.subject}: {len(subject.labels)} training examples{flips}{tests}, {len(subject.class_names)} "
        f"classes{accuracy}"
    )


def _about_layer(layer: LayerAnalysis) -> str:
    counts, chains = layer.n_components, layer.chains
    sampled = (
        ""
        if chains is None
        else f" on average ({counts.min():.3g} to {counts.max():.3g} a class), chains of {chains.n_agreeing} of "
        f"{len(counts)} classes agree"
    )
    groups = "one group" if layer.modes.n_groups == 1 else f"two groups, line at {layer.modes.line:.4g}"
    held_out = "" if layer.held_out is None else f", held-out accuracy by density {layer.held_out.accuracy:.3f}"
    flipped = "" if np.isnan(layer.flipped_auc) else f", flipped labels found with AUC {layer.flipped_auc:.3f}"
    return f"{layer.layer}: D = {layer.n_features}, K = {counts.mean():.3g}{sampled}, {groups}{held_out}{flipped}"
