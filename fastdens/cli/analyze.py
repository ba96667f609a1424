"""The analysis from images to report: train, extract, project, fit, compare."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import fastdens as fd
from fastdens.activations import Activations, extract
from fastdens.analysis import (
    ClassLogDensity,
    GenerativeClassification,
    Modes,
    class_log_density,
    find_modes,
    generative_classification,
)
from fastdens.cli.densities import DENSITIES, Chains, density_options
from fastdens.experiments.images import Images, load_images
from fastdens.experiments.networks import STAGES, small_image_resnet
from fastdens.experiments.training import FlippedLabels, flip_labels, predict, train

_PAPER_DIMENSIONS = (16, 16, 64, 64)
_EXAMPLES_PER_DIMENSION = 8


@dataclass(frozen=True)
class AnalyzeOptions:
    """What ``fastdens analyze --help`` lists, with the same defaults; those of one density only are None until then."""

    dataset: str = "digits"
    data_root: Path = Path("data")
    image_size: int | None = None
    network: str = "resnet18"
    width: int = 16
    epochs: int = 20
    flip: float = 0.1
    dimensions: list[int] | None = None
    density: str = "dp"
    chains: int | None = None
    sweeps: int | None = None
    components: int | None = None
    seed: int = 0
    device: str | None = None
    output: Path = Path("report")
    overwrite: bool = False

    def with_density_options(self) -> AnalyzeOptions:
        """The same with what the density takes by default.

        Raises
        ------
        ValueError
            If there is no such density, or an option of another is given.
        """
        return replace(self, **density_options(self.density, vars(self)))

    def as_json(self) -> dict[str, object]:
        """The options with paths as text."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


class TrainedNetwork(NamedTuple):
    """Labels that the network gives to its training and test images, and its activations for them."""

    train_predicted: Tensor
    test_predicted: Tensor
    train: Activations
    test: Activations


class StageAnalysis(NamedTuple):
    """What was found at one stage.

    ``log_density`` [N] is that of each training example under the class of its given label; ``flipped_auc`` the
    probability that a flipped example is less dense than another, NaN if none was flipped. ``n_components`` [M] is the
    number of components of each class; ``chains`` is None where the density was not sampled.
    """

    layer: str
    n_features: int
    explained: float
    n_components: np.ndarray
    chains: Chains | None
    log_density: np.ndarray
    classes: ClassLogDensity
    modes: Modes
    held_out: GenerativeClassification
    flipped_auc: float


class Analysis(NamedTuple):
    """Everything that the report shows."""

    options: AnalyzeOptions
    images: Images
    given: FlippedLabels
    network: TrainedNetwork
    stages: list[StageAnalysis]


def analyze(options: AnalyzeOptions) -> Analysis:
    """Run the analysis and write the report.

    Raises
    ------
    FileExistsError
        If there is a report in the output folder and it may not be replaced; this is found out before training.
    ValueError, FileNotFoundError
        If an option is wrong or a data set is missing.
    """
    from fastdens.cli.report import check_output, write_report

    options = options.with_density_options()
    check_output(options.output, options.overwrite)
    images = load_images(options.dataset, options.data_root, options.image_size, options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    given = flip_labels(images.train_labels, options.flip, len(images.class_names), generator)
    _say(
        f"{options.dataset}: {len(images.train)} training images, {int(given.flipped.sum())} of them with a flipped "
        f"label, {len(images.test)} test images, {len(images.class_names)} classes"
    )
    network = _train_and_extract(options, images, given, generator)
    accuracy = float((network.test_predicted == images.test_labels).double().mean())
    _say(f"The network's accuracy on the test images: {accuracy:.2%}")
    stages = []
    for stage, layer in enumerate(STAGES):
        stages.append(_analyze_stage(options, images, given, network, stage, layer))
        _say(_summary(stages[-1]))
    analysis = Analysis(options, images, given, network, stages)
    _say(f"Report: {write_report(analysis)}")
    return analysis


def _say(text: str) -> None:
    print(text, file=sys.stdout, flush=True)


def _summary(stage: StageAnalysis) -> str:
    counts, chains = stage.n_components, stage.chains
    sampled = (
        ""
        if chains is None
        else f" on average ({counts.min():.3g} to {counts.max():.3g} a class), chains of {chains.n_agreeing} of "
        f"{len(counts)} classes agree"
    )
    groups = "one group" if stage.modes.n_groups == 1 else f"two groups, line at {stage.modes.line:.4g}"
    return (
        f"{stage.layer}: D = {stage.n_features}, K = {counts.mean():.3g}{sampled}, {groups}, held-out accuracy "
        f"by density {stage.held_out.accuracy:.3f}, flipped labels found with AUC {stage.flipped_auc:.3f}"
    )


def _train_and_extract(
    options: AnalyzeOptions, images: Images, given: FlippedLabels, generator: torch.Generator
) -> TrainedNetwork:
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    model = small_image_resnet(options.network, len(images.class_names), images.train.shape[1], options.width)
    model.to(device)
    train(model, images.train, given.labels, epochs=options.epochs, generator=generator)
    parts = [
        extract(model, DataLoader(TensorDataset(x, y), batch_size=256), STAGES)
        for x, y in ((images.train, given.labels), (images.test, images.test_labels))
    ]
    return TrainedNetwork(predict(model, images.train), predict(model, images.test), *parts)


def _analyze_stage(
    options: AnalyzeOptions,
    images: Images,
    given: FlippedLabels,
    network: TrainedNetwork,
    stage: int,
    layer: str,
) -> StageAnalysis:
    activations = network.train.features[layer]
    n_classes = len(images.class_names)
    smallest = int(torch.bincount(given.labels, minlength=n_classes).min())
    default = min(_PAPER_DIMENSIONS[stage], activations.shape[1], max(1, smallest // _EXAMPLES_PER_DIMENSION))
    svd = fd.reduction.UncentredSVD(options.dimensions[stage] if options.dimensions else default)
    points = svd.fit_transform(activations)
    batch = fd.RaggedBatch.from_labels(points, given.labels, n_classes=n_classes, layer=layer)
    density = DENSITIES[options.density]
    own_options = {name: getattr(options, name) for name in density.options}
    models, log_density, n_components, chains = density.fit(batch, options.seed, **own_options)
    classes = class_log_density(log_density, given.labels)
    return StageAnalysis(
        layer,
        svd.n_components,
        float(svd.explained_.sum()),
        n_components,
        chains,
        log_density,
        classes,
        find_modes(classes.mean),
        generative_classification(models.log_prob(svd.transform(network.test.features[layer])), images.test_labels),
        _auc(-log_density, given.flipped),
    )


def _auc(score: np.ndarray, positive: Tensor) -> float:
    from sklearn.metrics import roc_auc_score

    if not 0 < int(positive.sum()) < len(positive):
        return float("nan")
    return float(roc_auc_score(positive.numpy(), score))
