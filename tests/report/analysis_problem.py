"""A random analysis for the tests of the report: every part is there unless it is left out, and nothing was fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastdens.analysis import (
    Coefficient,
    Correlations,
    GenerativeClassification,
    Interval,
    ModeIntervals,
    Modes,
    PredictorComparison,
    class_log_density,
    density_bins,
    roc_auc,
)
from fastdens.pipeline import ExamplePictures, Examples, results
from fastdens.pipeline.options import AnalysisOptions

LAYERS = ("layer1", "layer2")
CLASSES = ("0", "1", "2", "3", "4")
N_BINS = 2
N_SEEDS = 3


def analysis_problem(
    rng: np.random.Generator,
    *,
    class_names: Sequence[str] = CLASSES,
    layer_names: Sequence[str] = LAYERS,
    density: str = "dp",
    without: Sequence[str] = (),
    published: bool = False,
) -> results.Analysis:
    """An analysis of 40 training examples a class, without some of its parts.

    ``without`` names attributes of `Analysis` and of `Examples`; "flipped" keeps the labels as they are, and "network"
    leaves out what only a network tells. ``published`` is the protocol.
    """
    n_classes = len(class_names)
    true_labels = rng.permutation(np.repeat(np.arange(n_classes), 40))
    flipped = rng.random(len(true_labels)) < (0 if "flipped" in without else 0.2)
    labels = np.where(flipped, (true_labels + 1) % n_classes, true_labels)
    test_labels = rng.permutation(np.repeat(np.arange(n_classes), 10))
    examples = Examples(
        tuple(class_names),
        labels,
        test_labels,
        true_labels,
        flipped,
        np.arange(n_classes) < max(1, n_classes // 3),
        np.where(rng.random(len(labels)) < 0.9, labels, true_labels),
        np.where(rng.random(len(test_labels)) < 0.8, test_labels, 0),
    )
    sampling = {"sweeps": 80, "chains": 2} if density == "dp" else {}
    protocol = "published" if published else "exact"
    options = AnalysisOptions.of_protocol(protocol, density=density, bins=N_BINS, **sampling)
    provenance = results.Provenance("digits", network="resnet18", width=16, epochs=3, settings={"dataset": "digits"})
    if "network" in without:
        provenance = results.Provenance("digits", activations="folder/train")
        nothing = dict.fromkeys(("true_labels", "flipped", "long_tailed", "train_predicted", "test_predicted"))
        examples = replace(examples, **nothing)
    examples = replace(examples, **{part: None for part in without if part in vars(examples) and part != "flipped"})
    layers = tuple(layer_problem(rng, name, examples, density, at) for at, name in enumerate(layer_names))
    memorization = memorization_problem(rng, examples, layers)
    analysis = results.Analysis(
        options,
        provenance,
        examples,
        layers,
        agreement_problem(rng, [layer.modes.n_groups for layer in layers]),
        np.stack([agreement_problem(rng, [layer.modes.n_groups] * N_SEEDS) for layer in layers]),
        published_subsets(rng, memorization) if published else memorization,
        robustness_problem(rng, examples, layers[-1]),
        pictures_problem(rng, len(examples.labels)),
    )
    left_out = set(without) | ({"seed_agreement", "robustness", "pictures"} if "network" in without else set())
    return replace(analysis, **dict.fromkeys(left_out & vars(analysis).keys()))


def agreement_problem(rng: np.random.Generator, n_groups: Sequence[int]) -> np.ndarray:
    """Indices of agreement of splits into one group or two, [n, n]."""
    n, one = len(n_groups), np.array(n_groups) == 1
    root = rng.uniform(size=(n, n))
    agreement = np.where(np.eye(n, dtype=bool), 1, (root + root.T) / 2)
    agreement[one != one[:, None]] = 0
    return np.where(one & one[:, None], np.nan, agreement)


def pictures_problem(rng: np.random.Generator, n_examples: int) -> ExamplePictures:
    """Pictures of noise, of two in three examples, in three channels."""
    examples = np.sort(rng.permutation(n_examples)[: 2 * n_examples // 3])
    return ExamplePictures(examples, rng.integers(256, size=(len(examples), 3, 6, 5), dtype=np.uint8))


def estimates(rng: np.random.Generator, *shape: int) -> results.Estimates:
    return results.Estimates(rng.gamma(4, size=shape), 0.1 * rng.gamma(4, size=shape))


def interval(value: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return value, value - 0.2, value + 0.2


def classification(rng: np.random.Generator, labels: np.ndarray) -> GenerativeClassification:
    return GenerativeClassification(*rng.uniform(size=4), labels, *(0.1 * rng.uniform(size=2)))


def layer_problem(
    rng: np.random.Generator, name: str, examples: Examples, density: str, at: int
) -> results.LayerAnalysis:
    """A layer whose classes are one group if ``at`` is even, and two if it is odd."""
    labels, n_classes = examples.labels, len(examples.class_names)
    group = np.arange(n_classes) % 2 * (at % 2)
    log_density = 5 * group[labels] + rng.normal(size=len(labels)) - 2
    if examples.flipped is not None:
        log_density -= examples.flipped
    classes = class_log_density(log_density, labels)
    line = 0.5 if at % 2 else np.nan
    chains = None
    n_components = np.full(n_classes, 3.0)
    if density == "dp":
        chains = chains_problem(rng, n_classes)
        n_components = chains.n_components.mean((1, 2))
    return results.LayerAnalysis(
        name,
        32,
        4,
        rng.uniform(0.5, 1),
        log_density,
        classes,
        Modes(1 + at % 2, line, group, *rng.uniform(size=3)),
        ModeIntervals(line - 0.1, line + 0.1, *interval(classes.mean)[1:], rng.uniform(size=n_classes), 0.5),
        n_components,
        chains,
        rng.gamma(4, size=len(labels)),
        estimates(rng, n_classes),
        estimates(rng, n_classes),
        estimates(rng, n_classes, n_classes),
        None if examples.test_labels is None else classification(rng, examples.test_labels),
        np.nan if examples.flipped is None else roc_auc(-log_density, examples.flipped),
        np.nan if examples.long_tailed is None else roc_auc(-classes.mean, examples.long_tailed),
        in_sample=log_density + rng.gamma(2, size=len(labels)) if density == "dp" else None,
        left_out=log_density if density == "dp" else None,
    )


def chains_problem(rng: np.random.Generator, n_classes: int, n_chains: int = 2) -> results.Chains:
    """Four draws of each chain, of classes that made one round of sweeps or two."""
    rhat, size = 1 + 0.2 * rng.random(n_classes), rng.uniform(1, 8, n_classes)
    rounds = 1 + rng.integers(2, size=n_classes)
    n_sweeps = np.where(rounds == 1, 80, 112)
    accepted = rng.integers(9, size=(2, n_classes, n_chains))
    proposed = accepted + rng.integers(1, 9, size=accepted.shape)
    return results.Chains(
        rng.integers(1, 9, (n_classes, n_chains, 4)).astype(np.int32),
        rng.normal(size=(n_classes, n_chains, 4)),
        n_sweeps[:, None] - 4 * rounds[:, None] * np.arange(3, -1, -1),
        n_sweeps,
        rhat,
        size,
        (rhat <= 1.1) & (size >= 4),
        1.1,
        4.0,
        np.stack([proposed[0], accepted[0], proposed[1], accepted[1]], -1),
    )


def memorization_problem(
    rng: np.random.Generator, examples: Examples, layers: Sequence[results.LayerAnalysis]
) -> results.MemorizationAnalysis:
    n_layers, n_classes = len(layers), len(examples.class_names)
    scores = rng.uniform(-0.2, 1, len(examples.labels))
    scores[rng.permutation(len(scores))[: len(scores) // 10]] = np.nan

    def coefficient() -> Coefficient:
        return Coefficient(*interval(rng.uniform(-0.8, 0.8, n_layers)), *rng.uniform(size=(2, n_layers)))

    def comparison(decided: bool) -> PredictorComparison:
        names = ("log-density", "relative entropy", "neighbour distance")
        lead = Interval(0.3, 0.1 if decided else -0.1, 0.5)
        rho = Interval(*interval(rng.uniform(-0.8, 0.8, 3)))
        return PredictorComparison(names, rho, rng.dirichlet(np.ones(3)), *names[:2], lead, decided, len(scores), 0)

    subsets = ("most", "least", "random")
    return results.MemorizationAnalysis(
        results.Scores(scores, rng.uniform(size=len(scores)), n_networks=6),
        Correlations(
            tuple(layer.name for layer in layers),
            *(coefficient() for _ in range(4)),
            *rng.uniform(-1, 1, (2, n_layers, n_classes)),
            *np.full((2, n_layers), len(scores)),
        ),
        {layer.name: comparison(bool(at % 2)) for at, layer in enumerate(layers)},
        results.SubsetComparison(
            5,
            10,
            {name: tuple(classification(rng, examples.labels) for _ in layers) for name in subsets},
            {name: tuple(estimates(rng, n_classes, n_classes) for _ in layers) for name in subsets},
        ),
        np.nan if examples.flipped is None else roc_auc(scores, examples.flipped),
    )


def published_subsets(
    rng: np.random.Generator, memorization: results.MemorizationAnalysis
) -> results.MemorizationAnalysis:
    """The same with subsets of all classes, and three classes with enough examples to be compared by the others."""
    subsets = memorization.subsets
    n_layers = len(memorization.correlations.layers)
    names = tuple(subsets.classification)
    subsets = replace(
        subsets,
        divergence={name: tuple(estimates(rng, 3, 3) for _ in range(n_layers)) for name in names},
        n_classes=dict.fromkeys(names, 3),
        label_scores={"most": rng.uniform(0.8, 0.9), "least": rng.uniform(0, 0.1)},
        f1_of_draws={name: tuple(rng.uniform(size=(n_layers, 4))) for name in names},
    )
    return replace(memorization, subsets=subsets)


def robustness_problem(
    rng: np.random.Generator, examples: Examples, layer: results.LayerAnalysis
) -> results.RobustnessAnalysis:
    bins = density_bins(layer.log_density, N_BINS, examples.labels)
    tried = np.concatenate([rng.permutation(np.flatnonzero(bins == b))[:12] for b in range(N_BINS)])
    return results.RobustnessAnalysis(
        layer.name,
        bins,
        tried,
        bins[tried],
        layer.modes.group[examples.labels[tried]],
        np.maximum(0, rng.normal(0.5, 0.5, len(tried))),
        rng.random(len(tried)) < 0.5,
        rng.random(len(tried)) < 0.8,
        rng.uniform(size=N_BINS),
    )
