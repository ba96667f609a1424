"""Robustness by density: a network trained without a density bin is certified and attacked on that bin."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastdens.analysis import PGDAccuracy, certify, density_bins, pgd_accuracy
from fastdens.io.state_file import fingerprint
from fastdens.pipeline.checkpoint import NOTHING_KEPT, Checkpoint
from fastdens.pipeline.experiment import Experiment
from fastdens.pipeline.options import AnalysisOptions
from fastdens.pipeline.results import LayerAnalysis, RobustnessAnalysis
from fastdens.process_group import current_group
from fastdens.progress import Stages
from fastdens.training.datasets import Images
from fastdens.training.runs import TrainingRun, left_out_runs, load_run, train_runs


class NormalizedClassifier(nn.Module):
    """A classifier of images with values from 0 to 1, which it standardizes for the network that it wraps.

    Parameters
    ----------
    network : nn.Module
        Takes standardized images.
    mean, std : Tensor
        [1, channels, 1, 1], what the images are standardized by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images [B, channels, height, width]."""
        scores: Tensor = self.network((x - self.mean) / self.std)
        return scores


def analyze_robustness(
    experiment: Experiment,
    layer: LayerAnalysis,
    options: AnalysisOptions,
    *,
    progress: bool = True,
    stages: Stages | None = None,
    checkpoint: Checkpoint = NOTHING_KEPT,
) -> RobustnessAnalysis:
    """Train a network without each density bin, certify and attack examples of that bin with it.

    Bins are cut within each class, so that no class loses more examples to a bin than another, or among all examples if
    the options say so. Flipped examples are not tried: a robust network does not give them their label.

    Parameters
    ----------
    experiment : Experiment
    layer : LayerAnalysis
        The layer whose log-density defines the bins.
    options : AnalysisOptions
    progress : bool
    stages : Stages, optional
        As of :func:`fastdens.pipeline.analyze`.
    checkpoint : Checkpoint, optional
        Of this analysis: a finished bin is a part.

    Returns
    -------
    RobustnessAnalysis
    """
    stages = stages or Stages(())
    images, labels = _in_units_of_sigma(experiment.images, options), experiment.labels.numpy()
    bins = density_bins(layer.log_density, options.bins, labels if options.bin_ranks == "class" else None)
    runs = left_out_runs(bins, options.bins, options.seed)
    recipe = replace(experiment.recipe, epochs=options.bin_epochs or experiment.recipe.epochs, noise=options.sigma)
    # Other densities make other bins: each choice of bins has a folder of its own, and each unit of the noise.
    unit = "" if options.sigma_units == "pixels" else f"-{options.sigma_units}"
    folder = experiment.runs / f"bins-{fingerprint([torch.from_numpy(bins)])[:12]}{unit}"
    with stages.stage("bin networks"):
        train_runs(
            folder,
            images,
            experiment.labels,
            runs,
            recipe,
            processes=options.processes,
            device=options.device,
            progress=progress,
        )
    chosen = _examples_of_bins(bins, labels, experiment.flipped.numpy(), options)
    with stages.stage("bins"):
        tried = [
            checkpoint.part(
                run.name, _TriedBin, partial(_try_bin, experiment, images, folder, run, rows, options, progress)
            )
            for run, rows in zip(runs, chosen, strict=True)
        ]
    examples = np.concatenate(chosen)
    return RobustnessAnalysis(
        layer=layer.name,
        bins=bins,
        examples=examples,
        bin=bins[examples],
        group=layer.modes.group[labels[examples]],
        radius=np.concatenate([own.radius for own in tried]),
        robust=np.concatenate([own.robust for own in tried]),
        clean=np.concatenate([own.clean for own in tried]),
        accuracy=np.array([own.accuracy for own in tried]),
    )


class _TriedBin(NamedTuple):
    """What :class:`RobustnessAnalysis` has of the examples of one bin, and the accuracy of its network."""

    radius: NDArray[np.float64]
    robust: NDArray[np.bool_]
    clean: NDArray[np.bool_]
    accuracy: float


def _try_bin(
    experiment: Experiment,
    images: Images,
    folder: Path,
    run: TrainingRun,
    rows: NDArray[np.int64],
    options: AnalysisOptions,
    progress: bool,
    _parts: Checkpoint,
) -> _TriedBin:
    """Certify and attack some examples with the network that was trained without their bin."""
    allow_code = experiment.recipe.allow_code
    result = load_run(folder, run.name, images, device=options.device, allow_code=allow_code)
    checkpoint = folder / f"certificates-{run.name}.safetensors"
    own = experiment.labels[rows]
    # Ranks of a job share the work on one file.
    with current_group().together():
        radius = _radii(result.model, images, own, rows, checkpoint, options, progress=progress)
    attack = _attack(result.model, experiment.images, own, rows, options)
    accuracy = float((result.test_predicted == images.test_labels).double().mean())
    return _TriedBin(radius, attack.robust, attack.clean, accuracy)


def _in_units_of_sigma(images: Images, options: AnalysisOptions) -> Images:
    """The images with the mean and the deviation that take them to the units of sigma: standardized ones stay."""
    if options.sigma_units == "pixels":
        return images
    return images._replace(mean=torch.zeros_like(images.mean), std=torch.ones_like(images.std))


def _examples_of_bins(
    bins: NDArray[np.int64], labels: NDArray[np.int64], flipped: NDArray[np.bool_], options: AnalysisOptions
) -> list[NDArray[np.int64]]:
    """Training examples of each bin to certify, spread over the classes as evenly as the bin allows."""
    generator = np.random.default_rng(options.seed)
    most = None if options.certified_examples == "all" else options.certified_examples
    chosen = []
    for b in range(options.bins):
        rows = generator.permutation(np.flatnonzero((bins == b) & ~flipped))
        # The first of each class, in random order of classes, then the second of each, ...
        rank = np.zeros(len(rows), np.int64)
        for c in np.unique(labels[rows]):
            own = labels[rows] == c
            rank[own] = np.arange(own.sum())
        chosen.append(rows[np.argsort(rank, kind="stable")][:most])
    return chosen


def _radii(
    network: nn.Module,
    images: Images,
    labels: Tensor,
    rows: NDArray[np.int64],
    checkpoint: Path,
    options: AnalysisOptions,
    *,
    progress: bool,
) -> NDArray[np.float64]:
    """Certified radius of some training examples in the units of the images, 0 where the smoothed network errs."""
    certificates = certify(
        NormalizedClassifier(network, images.mean, images.std).to(options.device),
        images.train[rows] * images.std + images.mean,
        options.sigma,
        labels=labels,
        n=options.certificate_draws,
        random_state=options.seed,
        checkpoint=checkpoint,
        device=options.device,
        progress=progress,
    )
    return np.where(certificates.predicted == labels.numpy(), certificates.radius, 0.0)


def _attack(
    network: nn.Module, images: Images, labels: Tensor, rows: NDArray[np.int64], options: AnalysisOptions
) -> PGDAccuracy:
    """The attack on some training examples, within a distance in pixels."""
    return pgd_accuracy(
        NormalizedClassifier(network, images.mean, images.std).to(options.device),
        images.train[rows] * images.std + images.mean,
        labels,
        options.epsilon,
        bounds=(0.0, 1.0),
        random_state=options.seed,
        device=options.device,
    )
