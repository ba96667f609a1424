"""Robustness of a network by the density of the examples: bin by bin, with a network trained without the bin."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastdens.analysis import Certificates, PGDAccuracy, certify, density_bins, pgd_accuracy
from fastdens.cli.layer_analysis import LayerAnalysis
from fastdens.cli.network_subject import recipe_of
from fastdens.cli.options import AnalyzeOptions
from fastdens.cli.subject import Subject
from fastdens.io.state_file import fingerprint
from fastdens.training.runs import left_out_runs, load_run, train_runs


class RobustnessAnalysis(NamedTuple):
    """Certificates and attacks of some examples of each density bin, by a network trained without that bin.

    ``layer`` is the one whose log-density the bins are of; ``bins`` int64 [N] those of all training examples, 0 the
    least dense; ``examples`` int64 [E] the training examples tried, ``bin`` and ``group`` (mode of the class) int64
    [E] theirs; ``radius`` float64 [E] is 0 where the smoothed network abstains or errs; ``robust`` and ``clean`` bool
    [E] tell whether the attack failed and whether the network was right before it. ``accuracy`` [B] is that of each
    network on the test images.
    """

    layer: str
    n_bins: int
    bins: NDArray[np.int64]
    examples: NDArray[np.int64]
    bin: NDArray[np.int64]
    group: NDArray[np.int64]
    radius: NDArray[np.float64]
    robust: NDArray[np.bool_]
    clean: NDArray[np.bool_]
    accuracy: NDArray[np.float64]


class InPixels(nn.Module):
    """A network for images of values from 0 to 1, before what :class:`Images` has standardized away."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images [B, channels, height, width]."""
        return self.network((x - self.mean) / self.std)


def analyze_robustness(subject: Subject, layer: LayerAnalysis, options: AnalyzeOptions) -> RobustnessAnalysis:
    """Train a network without each bin, certify and attack examples of that bin with it.

    Bins are cut within each class, so that no class loses more examples to a bin than another. Flipped examples, where
    they are known, are not tried: their label is not what a robust network says.
    """
    images = subject.images
    assert images is not None and subject.given is not None and options.bins is not None
    labels = subject.labels.numpy()
    bins = density_bins(layer.log_density, options.bins, labels)
    runs = left_out_runs(bins, options.bins, options.seed)
    recipe = recipe_of(options, epochs=options.bin_epochs or options.epochs, noise=options.sigma)
    assert options.runs is not None
    # Other densities make other bins: each choice of bins has a folder of its own.
    folder = options.runs / f"bins-{fingerprint([torch.from_numpy(bins)])[:12]}"
    train_runs(folder, images, subject.labels, runs, recipe, processes=options.processes or 1, device=options.device)
    chosen = _examples(bins, labels, subject.given.flipped.numpy(), options)
    parts = []
    for b, rows in enumerate(chosen):
        result = load_run(folder, runs[b].name, images, device=options.device)
        parts.append(
            (
                *_radii_and_attacks(
                    result.model, subject, rows, folder / f"certificates-{runs[b].name}.safetensors", options
                ),
                float((result.test_predicted == images.test_labels).double().mean()),
            )
        )
    examples = np.concatenate(chosen)
    return RobustnessAnalysis(
        layer.layer,
        options.bins,
        bins,
        examples,
        bins[examples],
        layer.modes.group[labels[examples]],
        np.concatenate([radius for radius, _, _ in parts]),
        np.concatenate([attack.robust for _, attack, _ in parts]),
        np.concatenate([attack.clean for _, attack, _ in parts]),
        np.array([accuracy for _, _, accuracy in parts]),
    )


def _examples(
    bins: NDArray[np.int64], labels: NDArray[np.int64], flipped: NDArray[np.bool_], options: AnalyzeOptions
) -> list[NDArray[np.int64]]:
    """Training examples of each bin to try: as many of one class as of another, as far as that goes."""
    generator = np.random.default_rng(options.seed)
    assert options.bins is not None and options.certified_examples is not None
    chosen = []
    for b in range(options.bins):
        rows = generator.permutation(np.flatnonzero((bins == b) & ~flipped))
        # The first of each class, in random order of classes, then the second of each, ...
        turn = np.zeros(len(rows), np.int64)
        for c in np.unique(labels[rows]):
            own = labels[rows] == c
            turn[own] = np.arange(own.sum())
        chosen.append(rows[np.argsort(turn, kind="stable")][: options.certified_examples])
    return chosen


def _radii_and_attacks(
    network: nn.Module, subject: Subject, rows: NDArray[np.int64], checkpoint: Path, options: AnalyzeOptions
) -> tuple[NDArray[np.float64], PGDAccuracy]:
    images = subject.images
    assert images is not None and options.certificate_draws is not None
    model = InPixels(network, images.mean, images.std).to(options.device)
    pixels = images.train[rows] * images.std + images.mean
    labels = subject.labels[rows]
    certificates: Certificates = certify(
        model,
        pixels,
        options.sigma,
        labels=labels,
        n=options.certificate_draws,
        random_state=options.seed,
        checkpoint=checkpoint,
        device=options.device,
    )
    attack = pgd_accuracy(
        model,
        pixels,
        labels,
        options.epsilon,
        bounds=(0.0, 1.0),
        random_state=options.seed,
        device=options.device,
    )
    right = certificates.predicted == labels.numpy()
    return np.where(right, certificates.radius, 0.0), attack
