"""The analysis, from data to results."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import fastdens as fd
from fastdens.analysis import Modes, split_agreement
from fastdens.pipeline.checkpoint import Checkpoint
from fastdens.pipeline.constant import without_constant_classes
from fastdens.pipeline.data import AnalysisData
from fastdens.pipeline.layers import (
    ProjectedLayer,
    analyze_layer,
    check_class_sizes,
    fit_layer,
    project_layer,
    projected_dimensions,
)
from fastdens.pipeline.memorization import analyze_memorization
from fastdens.pipeline.options import AnalysisOptions, OptionError, resolve_device
from fastdens.pipeline.pictures import example_pictures
from fastdens.pipeline.results import Analysis, LayerAnalysis, MemorizationAnalysis, RobustnessAnalysis, Scores
from fastdens.pipeline.saving import fingerprint_of_tree
from fastdens.progress import Stages

# Options that change no result.
_OF_MACHINE = ("processes",)


def analyze(
    data: AnalysisData,
    options: AnalysisOptions | None = None,
    progress: bool = True,
    *,
    on_layer: Callable[[LayerAnalysis], object] | None = None,
    stages: Stages | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Analysis:
    """Fit a density to every class at every layer, and compare them.

    With a checkpoint, an analysis that was killed goes on, and gives bit for bit what it would have given: finished
    layers, subsets and bins are read, and chains go on from a few sweeps before.

    Parameters
    ----------
    data : AnalysisData
        Activations and what else is known of the examples.
    options : AnalysisOptions, optional
        By default the paper's settings.
    progress : bool
        Show progress bars on stderr (in a terminal, needs rich).
    on_layer : callable, optional
        Called with the analysis of each layer when it is done, such as
        ``lambda layer: print(describe_layer(layer))``.
    stages : Stages, optional
        Is told which stage begins.
    checkpoint : path-like, optional
        Folder for what is finished. Other data or options, ``processes`` apart, have a folder of their own in it. It
        stays at the end: delete it once the result is saved.

    Returns
    -------
    Analysis
        Results at each layer, and on memorization and robustness where the data have what they need.

    Raises
    ------
    OptionError
        If options need images that the data lack, or do not fit the layers.
    ValueError
        If a class has too few examples, an estimator cannot fit one, or a file of the checkpoint is damaged.
    OSError
        If the checkpoint cannot be written.
    ImportError
        If scipy, scikit-learn or diptest is missing, or rich is and ``progress`` is True.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdens.pipeline import Analysis, AnalysisData, AnalysisOptions, analyze
    >>> labels = np.arange(160) % 4
    >>> x = np.random.default_rng(0).normal(size=(160, 4)) + labels[:, None]
    >>> data = AnalysisData.from_activations({"layer4": x}, labels=labels)
    >>> options = AnalysisOptions(density="gmm", components=1, entropy_draws=1000, divergence_draws=1000)
    >>> analysis = analyze(data, options, progress=False)
    >>> analysis.layer("layer4").log_density.shape, analysis.layer("layer4").modes.n_groups
    ((160,), 1)
    >>> analysis.save("my_analysis")
    >>> Analysis.load("my_analysis").layer_names
    ('layer4',)
    """
    options = options or AnalysisOptions()
    options = replace(options, device=resolve_device(options.device))
    stages = stages or Stages(())
    check_options(data, options)
    check_class_sizes(data, options)
    n_dimensions = projected_dimensions(data, options)
    data = without_constant_classes(data, n_dimensions)
    kept = _checkpoint(checkpoint, data, options)
    layers, points = [], {}
    for position, (name, features) in enumerate(data.train.items()):
        with stages.stage(f"layer {name}"):
            own = kept.within(f"layer-{position}")
            projected = _projected(data, features, name, n_dimensions[name], own)
            points[name] = projected.points.to(options.device)
            layers.append(own.part("results", LayerAnalysis, partial(_layer, data, projected, options, progress)))
        if on_layer is not None:
            on_layer(layers[-1])
    with stages.stage("memorization networks"):
        scores = _scores(data, options, kept, progress=progress)
    memorization = None
    if scores is not None:
        with stages.stage("memorization"):
            memorization = kept.part(
                "memorization",
                MemorizationAnalysis,
                lambda parts: analyze_memorization(
                    data, layers, points, scores, options, progress=progress, checkpoint=parts
                ),
            )
    with stages.stage("seeds"):
        seed_agreement = _seed_agreement(data, layers, options, kept.within("seeds"), progress=progress)
    return Analysis(
        options=options,
        provenance=data.provenance,
        examples=data.examples,
        layers=tuple(layers),
        layer_agreement=split_agreement([layer.modes.group for layer in layers]),
        seed_agreement=seed_agreement,
        memorization=memorization,
        robustness=_robustness(data, layers[-1], options, stages, kept, progress=progress),
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


def _checkpoint(folder: str | os.PathLike[str] | None, data: AnalysisData, options: AnalysisOptions) -> Checkpoint:
    """The checkpoint of this analysis; every choice of data and options has a folder of its own."""
    if folder is None:
        return Checkpoint()
    recipe = None if data.experiment is None else data.experiment.recipe
    known = (data.examples, data.train, data.test, data.noise, data.other_networks, data.scores, recipe)
    chosen = {name: value for name, value in options.as_json().items() if name not in _OF_MACHINE}
    identity = {"fastdens": fd.__version__, "options": chosen, "data": fingerprint_of_tree(known)}
    return Checkpoint(Path(folder) / fingerprint_of_tree(identity)[:12], identity)


def _projected(data: AnalysisData, features: Tensor, name: str, n_dimensions: int, kept: Checkpoint) -> ProjectedLayer:
    """The points of a layer are kept: computed by another number of threads they might differ in the last digit."""
    return kept.part("points", ProjectedLayer, lambda _: project_layer(data, features, name, n_dimensions), alone=True)


def _layer(
    data: AnalysisData, projected: ProjectedLayer, options: AnalysisOptions, progress: bool, parts: Checkpoint
) -> LayerAnalysis:
    return analyze_layer(data, fit_layer(data, projected, options, progress=progress, checkpoint=parts), options)


def _scores(data: AnalysisData, options: AnalysisOptions, kept: Checkpoint, *, progress: bool) -> Scores | None:
    """The scores that came with the data, or that networks trained on subsets of the images estimate."""
    experiment = data.experiment
    if experiment is None or not options.memorization_networks:
        return data.scores

    def estimate(_: Checkpoint) -> Scores:
        estimated = experiment.estimate_scores(
            options.memorization_networks,
            options.memorization_share,
            options,
            epochs=options.memorization_epochs,
            progress=progress,
        )
        return Scores(estimated.score, estimated.standard_error, options.memorization_networks)

    return kept.part("scores", Scores, estimate)


def _seed_agreement(
    data: AnalysisData,
    layers: Sequence[LayerAnalysis],
    options: AnalysisOptions,
    kept: Checkpoint,
    *,
    progress: bool,
) -> NDArray[np.float64] | None:
    """Agreement of the groups of networks of other seeds at each layer, None where there is one network."""
    if not data.other_networks:
        return None

    def modes(features: Tensor, layer: LayerAnalysis, parts: Checkpoint) -> Modes:
        projected = _projected(data, features, layer.name, layer.n_dimensions, parts)
        return fit_layer(data, projected, options, progress=progress, checkpoint=parts).modes

    agreement = []
    for position, layer in enumerate(layers):
        groups = [layer.modes.group]
        for network, features in enumerate(data.other_networks, start=1):
            name = f"network-{network}-layer-{position}"
            groups.append(kept.part(name, Modes, partial(modes, features[layer.name], layer)).group)
        agreement.append(split_agreement(groups))
    return np.stack(agreement)


def _robustness(
    data: AnalysisData,
    layer: LayerAnalysis,
    options: AnalysisOptions,
    stages: Stages,
    kept: Checkpoint,
    *,
    progress: bool,
) -> RobustnessAnalysis | None:
    experiment = data.experiment
    if experiment is None or not options.bins:
        return None
    # Activations alone need no torchvision.
    from fastdens.pipeline.robustness import analyze_robustness

    return kept.part(
        "robustness",
        RobustnessAnalysis,
        lambda parts: analyze_robustness(
            experiment, layer, options, progress=progress, stages=stages, checkpoint=parts
        ),
    )
