"""Images and a training recipe: the networks for activations and for memorization scores.

Only this module and the analysis of robustness, which builds on it, need torchvision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdens.analysis import MemorizationScores, memorization_scores
from fastdens.io.index_lists import read_index_list, read_label_list
from fastdens.pipeline.experiment_options import ImageOptions, NetworkOptions
from fastdens.pipeline.options import MachineOptions, resolve_device
from fastdens.training import Recipe, build_network, flip_labels, predict
from fastdens.training.datasets import Images, load_images, outline_images
from fastdens.training.runs import RunResult, TrainingRun, load_predictions, load_run, subset_runs, train_runs

# Options of images that decide no result.
_OF_THE_MACHINE = ("stream", "workers")


@dataclass(frozen=True)
class Experiment:
    """Images, the labels that networks are trained with, and the recipe of their training.

    Attributes
    ----------
    name : str
        Of the data set.
    images : Images
    labels : Tensor
        int64 [N], the training labels, some of which may have been flipped.
    flipped : Tensor
        bool [N], True where the label was flipped.
    recipe : Recipe
    runs : Path
        Folder of the trained networks; those already there are not trained again.
    settings : mapping of str to object
        The options that it was made from, but for those that decide no result.
    examples : ndarray or None
        int64 [N], the examples of the data set that ``images`` and ``labels`` are; None for all.
    n_all : int or None
        The number of training examples of the data set, where these are some of them.
    """

    name: str
    images: Images
    labels: Tensor
    flipped: Tensor
    recipe: Recipe
    runs: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    examples: NDArray[np.int64] | None = None
    n_all: int | None = None

    @property
    def n_examples(self) -> int:
        """Number of training examples of the data set, whether or not these are some of them."""
        return len(self.labels) if self.n_all is None else self.n_all

    @classmethod
    def load(
        cls,
        images: ImageOptions,
        network: NetworkOptions,
        runs: Path,
        seed: int = 0,
        *,
        outline: bool = False,
        progress: bool = False,
    ) -> Experiment:
        """Load the images, and flip, replace or choose some of the training labels.

        Parameters
        ----------
        images : ImageOptions
        network : NetworkOptions
        runs : Path
        seed : int
            Seed of synthetic images, of random splits, and of the labels to flip.
        outline : bool
            Leave out the pixels of a data set whose size is known, which may then have no files, and of images that are
            streamed, to plan work on it.
        progress : bool
            Show a progress bar while streamed images are decoded for the first time (in a terminal, needs rich).

        Raises
        ------
        ValueError, FileNotFoundError
            If there is no such data set, its files are missing, or a list does not fit it.
        """
        loaded = (outline_images(images.dataset, images.image_size) if outline else None) or load_images(
            images.dataset,
            images.data_root,
            images.image_size,
            seed,
            long_tailed=_share_or_names(images.long_tailed),
            allow_pickle=images.allow_pickle,
            images_per_class=images.images_per_class,
            stream=images.stream,
            workers=images.workers,
            survey_folder=runs,
            outline=outline,
            progress=progress,
        )
        n_all, n_classes = len(loaded.train_labels), len(loaded.class_names)
        if images.label_list is None:
            generator = torch.Generator().manual_seed(seed)
            labels, flipped = flip_labels(
                loaded.train_labels, images.flip, n_classes, generator, redraw=images.flip_redraw
            )
        else:
            labels = torch.from_numpy(read_label_list(images.label_list, n_all, n_classes))
            flipped = labels != loaded.train_labels
        examples = None
        if images.examples is not None:
            examples = read_index_list(images.examples, n_all)
            labels, flipped = labels[examples], flipped[examples]
            loaded = loaded.of_examples(examples)
        recipe = Recipe(**{own.name: getattr(network, own.name) for own in fields(NetworkOptions)})
        options = {**asdict(images), **asdict(network)}
        settings = {name: _plain(value) for name, value in options.items() if name not in _OF_THE_MACHINE}
        return cls(images.dataset, loaded, labels, flipped, recipe, Path(runs), settings, examples, n_all)

    def train(self, n_networks: int, machine: MachineOptions, *, progress: bool = True) -> list[RunResult]:
        """Networks of consecutive seeds, trained on all training images."""
        everything = torch.ones(len(self.labels), dtype=torch.bool, device="cpu")
        seeds = range(machine.seed, machine.seed + n_networks)
        runs = [TrainingRun(f"network-{seed}", everything, seed) for seed in seeds]
        device = resolve_device(machine.device)
        train_runs(
            self.runs,
            self.images,
            self.labels,
            runs,
            self.recipe,
            processes=min(machine.processes, n_networks),
            device=device,
            progress=progress,
        )
        allow_code = self.recipe.allow_code
        return [load_run(self.runs, run.name, self.images, device=device, allow_code=allow_code) for run in runs]

    def network_of_file(self, weights: Path, device: str) -> RunResult:
        """A network with the weights of a file, and what it predicts."""
        images = self.images
        model = build_network(
            self.recipe.network,
            len(images.class_names),
            images.train.shape[1],
            width=self.recipe.width,
            weights=weights,
            image_size=images.train.shape[-1],
            stem=self.recipe.stem,
            allow_code=self.recipe.allow_code,
        )
        model.to(resolve_device(device)).eval()
        nothing = torch.zeros(len(self.labels), dtype=torch.bool, device="cpu")
        return RunResult(model, nothing, predict(model, images.train), predict(model, images.test), {})

    def estimate_scores(
        self,
        n_networks: int,
        share: float,
        machine: MachineOptions,
        *,
        epochs: int | None = None,
        progress: bool = True,
    ) -> MemorizationScores:
        """Memorization scores by networks that each see a share of the images, in ``epochs`` passes, if given."""
        return estimate_scores(
            self.images,
            self.labels,
            replace(self.recipe, epochs=epochs or self.recipe.epochs),
            folder=self.runs,
            n_networks=n_networks,
            share=share,
            seed=machine.seed,
            processes=machine.processes,
            device=resolve_device(machine.device),
            progress=progress,
        )


def estimate_scores(
    images: Images,
    labels: Tensor,
    recipe: Recipe,
    *,
    folder: Path,
    n_networks: int,
    share: float = 0.7,
    seed: int = 0,
    processes: int = 1,
    device: str | None = None,
    progress: bool = True,
) -> MemorizationScores:
    """Memorization score of every training example, by the networks in ``folder``; missing ones are trained.

    Parameters
    ----------
    images : Images
    labels : Tensor
        int64 [N], the labels that the networks are trained with.
    recipe, folder, processes, device, progress
        As :func:`fastdens.training.runs.train_runs` takes them.
    n_networks, share, seed
        As :func:`fastdens.training.runs.subset_runs` takes them.

    Returns
    -------
    MemorizationScores

    References
    ----------
    Feldman & Zhang, What Neural Networks Memorize and Why, NeurIPS 2020.
    """
    runs = subset_runs(n_networks, len(labels), share, seed)
    train_runs(folder, images, labels, runs, recipe, processes=processes, device=device, progress=progress)
    correct: NDArray[np.bool_] = np.empty((n_networks, len(labels)), bool)
    for network, run in enumerate(runs):
        correct[network] = load_predictions(folder, run.name).train_predicted == labels
    return memorization_scores(correct, np.stack([run.included.numpy() for run in runs]))


def _share_or_names(texts: tuple[str, ...] | None) -> float | tuple[str, ...] | None:
    """One text like "0.1" or "0" is a share, others are names of classes (also "2", a glyph)."""
    if texts is not None and len(texts) == 1 and re.fullmatch(r"0|0?\.\d+", texts[0]):
        return float(texts[0])
    return texts


def _plain(value: object) -> object:
    """A value that JSON can hold."""
    return str(value) if isinstance(value, Path) else value
