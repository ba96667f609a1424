"""The analysis, from data to results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastdens.analysis import split_agreement
from fastdens.pipeline.constant import without_constant_classes
from fastdens.pipeline.data import AnalysisData
from fastdens.pipeline.layers import (
    analyze_layer,
    check_class_sizes,
    fit_layer,
    projected_dimensions,
)
from fastdens.pipeline.memorization import analyze_memorization
from fastdens.pipeline.options import AnalysisOptions, OptionError, resolve_device
from fastdens.pipeline.pictures import example_pictures
from fastdens.pipeline.results import Analysis, LayerAnalysis, RobustnessAnalysis, Scores
from fastdens.progress import Stages


def analyze(
    data: AnalysisData,
    options: AnalysisOptions | None = None,
    progress: bool = True,
    *,
    on_layer: Callable[[LayerAnalysis], object] | None = None,
    stages: Stages | None = None,
) -> Analysis:
    """Fit a density to every class at every layer, and compare them.

    Parameters
    ----------
    data : AnalysisData
    options : AnalysisOptions, optional
        By default the paper's settings.
    progress : bool
        Show progress bars on stderr (needs rich).
    on_layer : callable, optional
        Called with the analysis of each layer when it is done, such as
        ``lambda layer: print(describe_layer(layer))``.
    stages : Stages, optional
        Tells which stage begins: those of :func:`fastdens.pipeline.plan.plan_analysis`.

    Returns
    -------
    Analysis

    Raises
    ------
    OptionError
        If options need images that the data lack, or do not fit the layers.
    ValueError
        If a class has too few examples, or an estimator cannot fit one.
    ImportError
        If scipy, scikit-learn or diptest is missing, or rich is and ``progress`` is True.
    """
    options = options or AnalysisOptions()
    options = replace(options, device=resolve_device(options.device))
    stages = stages or Stages(())
    check_options(data, options)
    check_class_sizes(data, options)
    n_dimensions = projected_dimensions(data, options)
    data = without_constant_classes(data, n_dimensions)
    layers, points = [], {}
    for name, features in data.train.items():
        with stages.stage(f"layer {name}"):
            fitted = fit_layer(data, features, name, n_dimensions[name], options, progress=progress)
            points[name] = fitted.points
            layers.append(analyze_layer(data, fitted, options))
        if on_layer is not None:
            on_layer(layers[-1])
    with stages.stage("memorization networks"):
        scores = _scores(data, options, progress=progress)
    memorization = None
    if scores is not None:
        with stages.stage("memorization"):
            memorization = analyze_memorization(data, layers, points, scores, options, progress=progress)
    with stages.stage("seeds"):
        seed_agreement = _seed_agreement(data, layers, options, progress=progress)
    return Analysis(
        options=options,
        provenance=data.provenance,
        examples=data.examples,
        layers=tuple(layers),
        layer_agreement=split_agreement([layer.modes.group for layer in layers]),
        seed_agreement=seed_agreement,
        memorization=memorization,
        robustness=_robustness(data, layers[-1], options, stages, progress=progress),
        pictures=example_pictures(data, layers[-1].log_density, None if scores is None else scores.values),
    )


def check_options(data: AnalysisData, options: AnalysisOptions) -> None:
    """Refuse options that need images where there are none, or that the data make needless.

    Raises
    ------
    OptionError
    """
    for name in ("memorization_networks", "bins"):
        if data.experiment is None and getattr(options, name):
            raise OptionError(
                f"{name} asks for networks to be trained, but the data have no images to train them on: leave it out.",
                name,
            )
    if data.scores is not None and options.memorization_networks:
        raise OptionError(
            "the data have memorization scores and memorization_networks would estimate them: leave one of the two "
            "out.",
            "memorization_networks",
        )


def _scores(data: AnalysisData, options: AnalysisOptions, *, progress: bool) -> Scores | None:
    """The scores that came with the data, or that networks trained on subsets of the images estimate."""
    experiment = data.experiment
    if experiment is None or not options.memorization_networks:
        return data.scores
    estimated = experiment.estimate_scores(
        options.memorization_networks,
        options.memorization_share,
        options,
        epochs=options.memorization_epochs,
        progress=progress,
    )
    return Scores(estimated.score, estimated.standard_error, options.memorization_networks)


def _seed_agreement(
    data: AnalysisData, layers: Sequence[LayerAnalysis], options: AnalysisOptions, *, progress: bool
) -> NDArray[np.float64] | None:
    """Agreement of the groups of networks of other seeds at each layer, None where there is one network."""
    if not data.other_networks:
        return None
    agreement = []
    for layer in layers:
        groups = [layer.modes.group]
        for features in data.other_networks:
            fitted = fit_layer(data, features[layer.name], layer.name, layer.n_dimensions, options, progress=progress)
            groups.append(fitted.modes.group)
        agreement.append(split_agreement(groups))
    return np.stack(agreement)


def _robustness(
    data: AnalysisData, layer: LayerAnalysis, options: AnalysisOptions, stages: Stages, *, progress: bool
) -> RobustnessAnalysis | None:
    if data.experiment is None or not options.bins:
        return None
    # Activations alone need no torchvision.
    from fastdens.pipeline.robustness import analyze_robustness

    return analyze_robustness(data.experiment, layer, options, progress=progress, stages=stages)
