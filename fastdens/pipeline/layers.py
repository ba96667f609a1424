"""The analysis of one layer: its classes projected, fitted, and compared."""

from __future__ import annotations

from dataclasses import dataclass

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
    kl_matrix,
    mean_pairwise_distance,
    mode_intervals,
    neighbour_distance,
    relative_entropy,
    roc_auc,
)
from fastdens.mixtures.failures import describe_failures
from fastdens.pipeline.constant import Projection, project
from fastdens.pipeline.data import AnalysisData
from fastdens.pipeline.densities import DENSITIES, Fit
from fastdens.pipeline.options import AnalysisOptions, OptionError
from fastdens.pipeline.results import Estimates, LayerAnalysis

_SHALLOW_DIMENSIONS, _DEEP_DIMENSIONS = 16, 64
_EXAMPLES_PER_DIMENSION = 8
_FEWEST_EXAMPLES = 16


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
    classes : ClassLogDensity
    modes : Modes
    """

    name: str
    projection: Projection
    points: Tensor
    batch: fd.RaggedBatch
    fit: Fit
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
    needed = max(_FEWEST_EXAMPLES, options.neighbours + 1)
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
    data: AnalysisData,
    layer: str,
    options: AnalysisOptions,
    *,
    progress: bool = True,
) -> tuple[Fit, fd.RaggedBatch]:
    """Fit the chosen density to each class of some points of a layer.

    Parameters
    ----------
    points, labels : Tensor and ndarray
        [n, D] and int64 [n].
    data : AnalysisData
        For the number of classes.
    layer : str
        Named in messages.
    options : AnalysisOptions
    progress : bool

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
    batch = fd.RaggedBatch.from_labels(
        points, torch.from_numpy(labels), n_classes=len(data.examples.class_names), layer=layer
    )
    try:
        return DENSITIES[options.density](batch, options, progress=progress), batch
    except fd.ModelError as error:
        # The estimators advise about their own parameters, which a caller of the analysis does not set.
        problems = {m: reason.split(": ")[0] for m, reason in error.failures.items()}
        text = describe_failures(problems, lambda m: f"class {data.examples.class_names[m]!r}")
        raise ValueError(f"at {layer} {text}: leave those examples, or the class, out of the data.") from None


def fit_layer(
    data: AnalysisData, features: Tensor, layer: str, n_dimensions: int, options: AnalysisOptions, *, progress: bool
) -> FittedLayer:
    """Project the activations of a layer, fit its classes and find their modes.

    Parameters
    ----------
    data : AnalysisData
        For the labels.
    features : Tensor
        [N, n_features], the activations of the training examples, by this network or one of another seed.
    layer : str
    n_dimensions : int
    options : AnalysisOptions
    progress : bool

    Returns
    -------
    FittedLayer
    """
    labels = data.examples.labels
    try:
        projection, points = project(features, labels, data.examples.class_names, layer, n_dimensions)
    except ValueError as error:
        raise ValueError(f"layer {layer!r} cannot be projected: {error}") from None
    points = points.to(options.device)
    fit, batch = fit_classes(points, labels, data, layer, options, progress=progress)
    classes = class_log_density(fit.log_density, labels)
    modes = find_modes(classes.mean, random_state=options.seed)
    return FittedLayer(layer, projection, points, batch, fit, classes, modes)


def analyze_layer(data: AnalysisData, layer: FittedLayer, options: AnalysisOptions) -> LayerAnalysis:
    """Compute the results at a layer from its fitted classes."""
    examples, fit = data.examples, layer.fit
    held_out = None
    if data.test is not None and examples.test_labels is not None:
        test = layer.projection.transform(data.test[layer.name]).to(options.device)
        if (bad := ~test.isfinite().all(1)).any():
            raise ValueError(
                f"layer {layer.name!r} of the test examples has NaN or infinity, first in row "
                f"{int(bad.nonzero()[0])}: remove or impute those rows."
            )
        held_out = generative_classification(fit.models.log_prob(test), examples.test_labels)
    density = fit.models.density()
    generator = torch.Generator(layer.points.device).manual_seed(options.seed)
    return LayerAnalysis(
        name=layer.name,
        n_features=data.train[layer.name].shape[1],
        n_dimensions=layer.points.shape[1],
        explained=layer.projection.explained,
        log_density=fit.log_density,
        classes=layer.classes,
        modes=layer.modes,
        intervals=mode_intervals(fit.log_density, examples.labels, random_state=options.seed),
        n_components=fit.n_components,
        chains=fit.chains,
        neighbour_distance=neighbour_distance(layer.points, examples.labels, options.neighbours),
        distance=estimates_of(mean_pairwise_distance(layer.batch)),
        # Both draw from one generator, in this order.
        relative_entropy=estimates_of(relative_entropy(density, layer.batch, options.entropy_draws, generator)),
        divergence=estimates_of(kl_matrix(density, options.divergence_draws, generator)),
        held_out=held_out,
        flipped_auc=roc_auc(-fit.log_density, examples.flipped),
        long_tailed_auc=roc_auc(-layer.classes.mean, examples.long_tailed),
        n_left_out=layer.projection.n_left_out,
        constant_classes=tuple(
            name
            for name, constant in zip(examples.class_names, layer.projection.constant.tolist(), strict=True)
            if constant
        ),
    )


def estimates_of(found: fd.MonteCarloEstimate) -> Estimates:
    """Values and standard errors as arrays in main memory."""
    return Estimates(found.value.cpu().numpy(), found.standard_error.cpu().numpy())
