"""The analysis of one layer: its classes projected, fitted, and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import fastdens as fd
from fastdens.analysis import (
    ClassLogDensity,
    Modes,
    class_log_density,
    find_modes,
    generative_classification,
    mean_pairwise_distance,
    mode_intervals,
    neighbour_distance,
    roc_auc,
    roc_auc_standard_error,
)
from fastdens.mixtures.failures import describe_failures
from fastdens.pipeline.checkpoint import NOTHING_KEPT, Checkpoint
from fastdens.pipeline.constant import Projection, project
from fastdens.pipeline.data import AnalysisData
from fastdens.pipeline.definitions import (
    TrainingLogDensity,
    divergence_of_classes,
    log_prob_of_classes,
    relative_entropy_of_classes,
    training_log_density,
)
from fastdens.pipeline.densities import DENSITIES, Fit
from fastdens.pipeline.options import AnalysisOptions, OptionError
from fastdens.pipeline.results import Estimates, LayerAnalysis, NoiseImages

_SHALLOW_DIMENSIONS, _DEEP_DIMENSIONS = 16, 64
_EXAMPLES_PER_DIMENSION = 8
FEWEST_EXAMPLES = 16
"""Examples that a class needs for a density."""


class ProjectedLayer(NamedTuple):
    """The activations of a layer, projected.

    Attributes
    ----------
    name : str
    projection : Projection
    points : Tensor
        [N, D], the projected training examples.
    """

    name: str
    projection: Projection
    points: Tensor


@dataclass(frozen=True)
class FittedLayer:
    """The classes of a layer, projected and fitted.

    Attributes
    ----------
    name : str
    projection : Projection
    points : Tensor
        [N, D], the projected training examples, on the device of the analysis.
    batch : RaggedBatch
        The points by class.
    fit : Fit
    log_density : TrainingLogDensity
    classes : ClassLogDensity
    modes : Modes
    """

    name: str
    projection: Projection
    points: Tensor
    batch: fd.RaggedBatch
    fit: Fit
    log_density: TrainingLogDensity
    classes: ClassLogDensity
    modes: Modes


def check_class_sizes(data: AnalysisData, options: AnalysisOptions) -> None:
    """Refuse data with a class that is too small for a density.

    Raises
    ------
    ValueError
        If there is one; the message names the smallest class.
    """
    sizes = data.class_sizes
    smallest = int(sizes.argmin())
    needed = max(FEWEST_EXAMPLES, options.neighbours + 1)
    if sizes[smallest] < needed:
        raise ValueError(
            f"class {data.examples.class_names[smallest]!r} has {sizes[smallest]} training examples in "
            f"{data.provenance.name}, but the analysis needs at least {needed} of each class: add examples, or leave "
            "the class out of the data."
        )


def projected_dimensions(data: AnalysisData, options: AnalysisOptions) -> dict[str, int]:
    """Dimensions to project each layer to: the requested ones, or the paper's, limited where classes are small.

    Raises
    ------
    OptionError
        If their number is not that of the layers.
    """
    layers = list(data.train)
    if options.dimensions is not None:
        asked = options.dimensions * len(layers) if len(options.dimensions) == 1 else options.dimensions
        if len(asked) != len(layers):
            raise OptionError(
                f"dimensions has {len(asked)} numbers, but there are {len(layers)} layers, {', '.join(layers)}: pass "
                "one number, or one for each layer.",
                "dimensions",
            )
        return dict(zip(layers, asked, strict=True))
    sizes = data.class_sizes
    most = max(1, int(sizes.min()) // _EXAMPLES_PER_DIMENSION) if options.limit_dimensions else int(sizes.sum())
    return {
        layer: min(
            _SHALLOW_DIMENSIONS if 2 * position < len(layers) else _DEEP_DIMENSIONS, data.train[layer].shape[1], most
        )
        for position, layer in enumerate(layers)
    }


def fit_classes(
    points: Tensor,
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    layer: str,
    options: AnalysisOptions,
    *,
    progress: bool = True,
    checkpoint: Path | None = None,
) -> tuple[Fit, fd.RaggedBatch]:
    """Fit the chosen density to each class of some points of a layer.

    Parameters
    ----------
    points, labels : Tensor and ndarray
        [n, D] and int64 [n].
    class_names : tuple of str
        Of the M classes, named in messages like the layer.
    layer : str
    options : AnalysisOptions
    progress : bool
    checkpoint : Path, optional
        File in which an unfinished fit is kept, and from which it goes on.

    Returns
    -------
    Fit
    RaggedBatch
        The points by class.

    Raises
    ------
    ValueError
        If a class cannot be fitted; the message names it.
    """
    batch = fd.RaggedBatch.from_labels(points, torch.from_numpy(labels), n_classes=len(class_names), layer=layer)
    try:
        return DENSITIES[options.density](batch, options, progress=progress, checkpoint=checkpoint), batch
    except fd.ModelError as error:
        # The estimators advise about their own parameters, which a caller of the analysis does not set.
        problems = {m: reason.split(": ")[0] for m, reason in error.failures.items()}
        text = describe_failures(problems, lambda m: f"class {class_names[m]!r}")
        raise ValueError(f"at {layer} {text}: leave those examples, or the class, out of the data.") from None


def project_layer(data: AnalysisData, features: Tensor, layer: str, n_dimensions: int) -> ProjectedLayer:
    """Project the activations of a layer.

    Parameters
    ----------
    data : AnalysisData
        For the labels.
    features : Tensor
        [N, n_features], the activations of the training examples, by this network or one of another seed.
    layer : str
    n_dimensions : int

    Raises
    ------
    ValueError
        If they cannot be projected; the message names the layer.
    """
    try:
        projection, points = project(features, data.examples.labels, data.examples.class_names, layer, n_dimensions)
    except ValueError as error:
        raise ValueError(f"layer {layer!r} cannot be projected: {error}") from None
    return ProjectedLayer(layer, projection, points)


def fit_layer(
    data: AnalysisData,
    projected: ProjectedLayer,
    options: AnalysisOptions,
    *,
    progress: bool,
    checkpoint: Checkpoint = NOTHING_KEPT,
) -> FittedLayer:
    """Fit the classes of a layer and find their modes.

    Parameters
    ----------
    data : AnalysisData
        For the labels.
    projected : ProjectedLayer
    options : AnalysisOptions
    progress : bool
    checkpoint : Checkpoint, optional
        Of the layer.

    Returns
    -------
    FittedLayer
    """
    labels, class_names = data.examples.labels, data.examples.class_names
    layer, projection, points = projected
    points = points.to(options.device)
    fit, batch = fit_classes(
        points, labels, class_names, layer, options, progress=progress, checkpoint=checkpoint.file("fit")
    )
    log_density = training_log_density(fit.models, batch, options)
    classes = class_log_density(log_density.chosen(options), labels)
    modes = find_modes(classes.mean, random_state=options.seed)
    return FittedLayer(layer, projection, points, batch, fit, log_density, classes, modes)


def analyze_layer(data: AnalysisData, layer: FittedLayer, options: AnalysisOptions) -> LayerAnalysis:
    """Compute the results at a layer from its fitted classes."""
    examples, fit, log_density = data.examples, layer.fit, layer.log_density.chosen(options)
    held_out, noise = None, None
    if data.test is not None and examples.test_labels is not None:
        log_prob = _log_prob(layer, data.test[layer.name], "test examples", options)
        held_out = generative_classification(log_prob, examples.test_labels)
        if data.noise is not None:
            noise = _compare_noise(_log_prob(layer, data.noise[layer.name], "images of noise", options), log_prob)

    def generator() -> torch.Generator:
        # One each, so that a quantity does not depend on how another is defined.
        return torch.Generator(layer.points.device).manual_seed(options.seed)

    return LayerAnalysis(
        name=layer.name,
        n_features=data.train[layer.name].shape[1],
        n_dimensions=layer.points.shape[1],
        explained=layer.projection.explained,
        log_density=log_density,
        classes=layer.classes,
        modes=layer.modes,
        intervals=mode_intervals(log_density, examples.labels, random_state=options.seed),
        n_components=fit.n_components,
        chains=fit.chains,
        neighbour_distance=neighbour_distance(layer.points, examples.labels, options.neighbours),
        distance=estimates_of(mean_pairwise_distance(layer.batch)),
        relative_entropy=estimates_of(relative_entropy_of_classes(fit.models, layer.batch, options, generator())),
        divergence=estimates_of(divergence_of_classes(fit.models, options, generator())),
        held_out=held_out,
        flipped_auc=roc_auc(-log_density, examples.flipped),
        long_tailed_auc=roc_auc(-layer.classes.mean, examples.long_tailed),
        n_left_out=layer.projection.n_left_out,
        constant_classes=tuple(
            name
            for name, constant in zip(examples.class_names, layer.projection.constant.tolist(), strict=True)
            if constant
        ),
        noise=noise,
        in_sample=None if layer.log_density.left_out is None else layer.log_density.in_sample,
        left_out=layer.log_density.left_out,
    )


def _log_prob(layer: FittedLayer, features: Tensor, what: str, options: AnalysisOptions) -> Tensor:
    """Log-density [n, M] of other examples under every class."""
    points = layer.projection.transform(features).to(options.device)
    if (bad := ~points.isfinite().all(1)).any():
        raise ValueError(
            f"layer {layer.name!r} of the {what} has NaN or infinity, first in row {int(bad.nonzero()[0])}: remove or "
            "impute those rows."
        )
    return log_prob_of_classes(layer.fit.models, points, options)


def _compare_noise(of_noise: Tensor, of_test: Tensor) -> NoiseImages:
    """Images of noise beside test images, by their log-densities under every class."""
    noise, test = (log_prob.amax(1).double().cpu().numpy() for log_prob in (of_noise, of_test))
    sparse, is_noise = -np.concatenate([noise, test]), np.arange(len(noise) + len(test)) < len(noise)
    return NoiseImages(noise, test, roc_auc(sparse, is_noise), roc_auc_standard_error(sparse, is_noise))


def estimates_of(found: fd.MonteCarloEstimate) -> Estimates:
    """Values and standard errors as arrays in main memory."""
    return Estimates(found.value.cpu().numpy(), found.standard_error.cpu().numpy())
