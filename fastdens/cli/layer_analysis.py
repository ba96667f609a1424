"""What is found at one layer: densities of its classes, their modes, their distances from each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import fastdens as fd
from fastdens.activations import Activations
from fastdens.analysis import (
    ClassLogDensity,
    Estimate,
    GenerativeClassification,
    ModeIntervals,
    Modes,
    class_log_density,
    find_modes,
    generative_classification,
    kl_matrix,
    mean_pairwise_distance,
    mode_intervals,
    neighbour_distance,
    relative_entropy,
)
from fastdens.cli.densities import DENSITIES, Chains, Fit
from fastdens.cli.options import AnalyzeOptions
from fastdens.cli.subject import Subject

_SHALLOW_DIMENSIONS, _DEEP_DIMENSIONS = 16, 64
_EXAMPLES_PER_DIMENSION = 8
_FEWEST_EXAMPLES = 16


class LayerAnalysis(NamedTuple):
    """What was found at one layer, of M classes and N training examples.

    ``points`` [N, D] are the training examples projected; ``explained`` is the share of squares that the projection
    keeps; ``log_density`` [N] that of each example under the class of its given label; ``n_components`` [M] the number
    of components of each class; ``chains`` is None where the density was not sampled; ``held_out`` None without test
    examples. ``relative_entropy`` [M] and ``divergence`` [M, M] (KL, row from column) are Monte Carlo estimates. The
    areas under the curve are those of finding flipped examples and long-tailed classes by low density, NaN where there
    are none.
    """

    layer: str
    n_features: int
    points: Tensor
    explained: float
    n_components: NDArray[np.float64]
    chains: Chains | None
    log_density: NDArray[np.float64]
    classes: ClassLogDensity
    modes: Modes
    intervals: ModeIntervals
    distance: Estimate
    relative_entropy: fd.MonteCarloEstimate
    divergence: fd.MonteCarloEstimate
    neighbour_distance: NDArray[np.float64]
    held_out: GenerativeClassification | None
    flipped_auc: float
    long_tailed_auc: float


def check_class_sizes(subject: Subject, options: AnalyzeOptions) -> None:
    """Raise a ValueError that names the smallest class if it has too few examples for a density."""
    sizes = torch.bincount(subject.labels, minlength=len(subject.class_names))
    smallest = int(sizes.argmin())
    needed = max(_FEWEST_EXAMPLES, options.neighbours + 1)
    if int(sizes[smallest]) < needed:
        raise ValueError(
            f"class {subject.class_names[smallest]!r} has {int(sizes[smallest])} training examples in "
            f"{options.subject}, but the analysis needs at least {needed} of each class: add examples, or leave the "
            "class out of the data."
        )


def projected_dimensions(subject: Subject, options: AnalyzeOptions) -> list[int]:
    """Dimensions to project each layer to: those asked for, else the paper's, less where classes are too small.

    Raises
    ------
    ValueError
        If their number is not that of the layers.
    """
    layers = subject.train.layers
    if options.dimensions is not None:
        given = options.dimensions * len(layers) if len(options.dimensions) == 1 else options.dimensions
        if len(given) != len(layers):
            raise ValueError(
                f"--dimensions has {len(given)} numbers, but there are {len(layers)} layers, {', '.join(layers)}: pass "
                "one number, or one for each layer."
            )
        return given
    smallest = int(torch.bincount(subject.labels, minlength=len(subject.class_names)).min())
    return [
        min(
            _SHALLOW_DIMENSIONS if 2 * at < len(layers) else _DEEP_DIMENSIONS,
            subject.train.features[layer].shape[1],
            max(1, smallest // _EXAMPLES_PER_DIMENSION),
        )
        for at, layer in enumerate(layers)
    ]


def fit_classes(
    subject: Subject,
    layer: str,
    points: Tensor,
    options: AnalyzeOptions,
    rows: NDArray[np.int64] | None = None,
    **changed: Any,
) -> tuple[Fit, fd.RaggedBatch]:
    """The density asked for, fitted to the classes of the training examples, or of some rows of them, and the batch;
    ``changed`` replaces options of the density.
    """
    labels = subject.labels
    if rows is not None:
        at = torch.from_numpy(rows)
        points, labels = points[at.to(points.device)], labels[at]
    batch = fd.RaggedBatch.from_labels(points, labels, n_classes=len(subject.class_names), layer=layer)
    density = DENSITIES[options.density]
    own = {name: getattr(options, name) for name in density.options} | changed
    return density.fit(batch, options.seed, **own), batch


class _Projected(NamedTuple):
    """The classes of a layer of one network, projected and fitted, and what their densities tell of groups."""

    svd: fd.reduction.UncentredSVD
    points: Tensor
    fit: Fit
    batch: fd.RaggedBatch
    classes: ClassLogDensity
    modes: Modes


def _project_and_fit(
    subject: Subject, network: Activations, layer: str, n_features: int, options: AnalyzeOptions
) -> _Projected:
    svd = fd.reduction.UncentredSVD(n_features)
    points = svd.fit_transform(network.features[layer]).to(options.device)
    fit, batch = fit_classes(subject, layer, points, options)
    classes = class_log_density(fit.log_density, subject.labels)
    return _Projected(svd, points, fit, batch, classes, find_modes(classes.mean, random_state=options.seed))


def analyze_layer(subject: Subject, layer: str, n_features: int, options: AnalyzeOptions) -> LayerAnalysis:
    """Project, fit and compare the classes of one layer."""
    svd, points, fit, batch, classes, modes = _project_and_fit(subject, subject.train, layer, n_features, options)
    density = fit.models.density()
    generator = torch.Generator(points.device).manual_seed(options.seed)
    assert options.entropy_draws is not None and options.divergence_draws is not None
    held_out = None
    if subject.test is not None and subject.test_labels is not None:
        test = svd.transform(subject.test.features[layer]).to(options.device)
        held_out = generative_classification(fit.models.log_prob(test), subject.test_labels)
    return LayerAnalysis(
        layer,
        n_features,
        points,
        float(svd.explained_.sum()),
        fit.n_components,
        fit.chains,
        fit.log_density,
        classes,
        modes,
        mode_intervals(fit.log_density, subject.labels, random_state=options.seed),
        mean_pairwise_distance(batch),
        relative_entropy(density, batch, options.entropy_draws, generator),
        kl_matrix(density, options.divergence_draws, generator),
        neighbour_distance(points, subject.labels, options.neighbours),
        held_out,
        auc(-fit.log_density, subject.flipped),
        auc(-classes.mean, subject.long_tailed),
    )


def groups_of_another_network(
    subject: Subject, network: Activations, layers: list[LayerAnalysis], options: AnalyzeOptions
) -> NDArray[np.int64]:
    """Groups of the classes at each layer, [L, M], by the activations of another network."""
    fitted = [_project_and_fit(subject, network, layer.layer, layer.n_features, options) for layer in layers]
    return np.stack([of_layer.modes.group for of_layer in fitted])


def auc(score: NDArray[np.float64], positive: Tensor | None) -> float:
    """Probability that a positive has the larger score, of those whose score is known; NaN where all are alike or
    nothing is known of them.
    """
    from sklearn.metrics import roc_auc_score

    if positive is None:
        return float("nan")
    known = ~np.isnan(score)
    positives = positive.numpy()[known]
    if not 0 < positives.sum() < len(positives):
        return float("nan")
    return float(roc_auc_score(positives, score[known]))
