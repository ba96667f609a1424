"""A job: everything a process needs to train any run of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastdens.io.state_file import StateFile, fingerprint
from fastdens.training.datasets import Images, StreamedImages
from fastdens.training.loop import predict, train
from fastdens.training.recipe import Recipe
from fastdens.training.runs.plan import TrainingRun
from fastdens.training.runs.store import InputShape, check_run, new_network, run_file, run_path, save_run


@dataclass(frozen=True, eq=False)
class Job:
    """Runs of one recipe on one data set; :meth:`create` checks that everything fits together.

    Attributes
    ----------
    folder : Path
    recipe : Recipe
    shape : InputShape
    names : tuple of str
        Of the runs.
    seeds : tuple of int
        Of the runs.
    included : Tensor
        bool [runs, N].
    train, test : Tensor or StreamedImages
        float32 [N, channels, height, width], standardized.
    labels : Tensor
        int64 [N], of the training images.
    std : Tensor
        float32 [1, channels, 1, 1], by which the images were divided.
    data : mapping of str to str
        Fingerprints of images and labels: ``data`` of the numbers of images in memory, and ``pixels`` of those of
        images that come from files of their own, in memory or not. A run belongs to the job if those agree that its
        file has, so that networks may be trained here on images in memory and there on images that are streamed.
    """

    folder: Path
    recipe: Recipe
    shape: InputShape
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    included: Tensor
    train: Tensor | StreamedImages
    labels: Tensor
    test: Tensor | StreamedImages
    std: Tensor
    data: Mapping[str, str]

    @classmethod
    def create(cls, folder: Path, images: Images, labels: Tensor, runs: Sequence[TrainingRun], recipe: Recipe) -> Job:
        """The job, or a ValueError that says which arguments do not fit together."""
        _check_runs(runs, len(images.train))
        _check_labels(labels, len(images.train), len(images.class_names))
        shape = InputShape.of(images)
        # Misspelt networks and impossible sizes are found before anything is trained.
        new_network(recipe, shape)
        return cls(
            folder,
            recipe,
            shape,
            tuple(run.name for run in runs),
            tuple(run.seed for run in runs),
            torch.stack([run.included for run in runs]),
            images.train,
            labels,
            images.test,
            images.std,
            _fingerprints(images, labels),
        )

    @property
    def runs(self) -> list[TrainingRun]:
        """The runs, their examples rows of ``included``."""
        return [TrainingRun(*run) for run in zip(self.names, self.included, self.seeds, strict=True)]

    def in_shared_memory(self) -> Job:
        """The same job with its large tensors in shared memory; images that are streamed stay in their files.

        Raises
        ------
        OSError
            If shared memory is too small.
        """
        try:
            # Copies: sharing a tensor in place frees the memory under numpy arrays that the caller may hold of it.
            large: dict[str, Any] = {}
            for name in ("included", "train", "labels", "test"):
                if isinstance(part := getattr(self, name), Tensor):
                    large[name] = part.clone().share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise OSError(
                f"the images cannot be put into shared memory ({error}): enlarge /dev/shm, or pass processes=1."
            ) from None
        return replace(self, **large)

    def path(self, run: TrainingRun) -> Path:
        """The path of a run's file."""
        return run_path(self.folder, run.name)

    def file(self, run: TrainingRun) -> StateFile:
        """The file of a run, which knows the recipe, the seed and the data that it belongs to."""
        return run_file(self.folder, run, self.recipe, self.shape, self.data)

    def check(self, run: TrainingRun) -> None:
        """Raise a ValueError if the file of a run is not what this job would write."""
        check_run(self.file(run), run)

    def missing(self) -> list[TrainingRun]:
        """The runs that have no file yet."""
        return [run for run in self.runs if not self.path(run).exists()]

    def train_run(self, run: TrainingRun, device: torch.device) -> None:
        """Train a network and write it to its file; its seed alone decides the result."""
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(run.seed)
            model = new_network(self.recipe, self.shape).to(device)
            examples = run.included.nonzero()[:, 0]
            train_by_recipe(model, self.train, self.labels, self.recipe, self.std, examples, run.seed)
        save_run(self.file(run), model, run.included, predict(model, self.train), predict(model, self.test))


def train_by_recipe(
    model: nn.Module,
    images: Tensor | StreamedImages,
    labels: Tensor,
    recipe: Recipe,
    std: Tensor,
    examples: Tensor | None = None,
    seed: int = 0,
) -> None:
    """Train a network in place by a recipe.

    Parameters
    ----------
    model : nn.Module
        On the device to train on; in evaluation mode afterwards.
    images : Tensor or StreamedImages
        [N, channels, height, width], standardized.
    labels : Tensor
        int64 [N], in main memory.
    recipe : Recipe
        How to train.
    std : Tensor
        [1, channels, 1, 1], by which the images were divided: the noise of the recipe is in units of pixels.
    examples : Tensor, optional
        int64, indices of the examples to train on; by default all N.
    seed : int
        Of the order of the examples, the augmentation and the noise.
    """
    train(
        model,
        images,
        labels,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        schedule=recipe.schedule,
        weight_decay=recipe.weight_decay,
        noise=recipe.noise / std,
        augment=recipe.augment,
        augmentation=recipe.augmentation,
        dtype=recipe.dtype,
        examples=examples,
        generator=torch.Generator().manual_seed(seed),
        progress=False,
    )


def _fingerprints(images: Images, labels: Tensor) -> dict[str, str]:
    found = {}
    if isinstance(images.train, Tensor) and isinstance(images.test, Tensor):
        found["data"] = fingerprint([images.train, labels, images.test])
    if images.digests is not None:
        found["pixels"] = images.digests.fingerprint(labels)
    return found


def _check_labels(labels: Tensor, n_examples: int, n_classes: int) -> None:
    if labels.shape != (n_examples,) or labels.dtype != torch.int64:
        raise ValueError(
            f"labels are {labels.dtype} of shape {list(labels.shape)}, but there are {n_examples} training images: "
            "pass an int64 label for each."
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but there are {n_classes} class names: "
            "number the classes from 0."
        )


def _check_runs(runs: Sequence[TrainingRun], n_examples: int) -> None:
    if not runs:
        raise ValueError("there are no runs, so nothing to train: pass at least one.")
    for name, count in Counter(run.name for run in runs).items():
        if count > 1:
            raise ValueError(f"{count} runs are named {name!r}, but each has a file of its own: rename them.")
        if not name or name.startswith(".") or Path(name).name != name:
            raise ValueError(f"a run is named {name!r}, which makes no file name: rename it.")
    for run in runs:
        if run.included.shape != (n_examples,) or run.included.dtype != torch.bool:
            raise ValueError(
                f"included of run {run.name!r} is {run.included.dtype} of shape {list(run.included.shape)}, but there "
                f"are {n_examples} training images: pass a bool for each."
            )
        if int(run.included.sum()) < 2:
            raise ValueError(f"run {run.name!r} includes fewer than two examples to train on: include more.")
