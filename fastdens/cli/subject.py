"""What an analysis is about: activations of the same examples at several layers, and all that is known beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastdens.activations import Activations, extract, load
from fastdens.cli.options import AnalyzeOptions, MemorizationOptions
from fastdens.experiments.images import Images, load_images
from fastdens.experiments.networks import build_network, default_layers
from fastdens.experiments.training import FlippedLabels, flip_labels, predict
from fastdens.experiments.training_runs import Recipe, TrainingRun, load_run, train_runs
from fastdens.names import nearest_names


class Subject(NamedTuple):
    """Activations of N training examples, their given labels int64 [N], the names of the M classes, and what else is
    known, None where it is not: activations and labels of test examples, which labels were flipped, which classes have
    a long tail, the images, the labels that the network gives, and activations from networks of other seeds."""

    train: Activations
    labels: Tensor
    class_names: tuple[str, ...]
    test: Activations | None = None
    test_labels: Tensor | None = None
    given: FlippedLabels | None = None
    long_tailed: Tensor | None = None
    images: Images | None = None
    train_predicted: Tensor | None = None
    test_predicted: Tensor | None = None
    others: tuple[Activations, ...] = ()

    @property
    def flipped(self) -> Tensor | None:
        """Which labels were flipped, bool [N], if that is known."""
        return None if self.given is None else self.given.flipped


def load_subject(options: AnalyzeOptions) -> Subject:
    """The subject that the options ask for: activations on disk, or those of a network on images.

    Raises
    ------
    ValueError, FileNotFoundError
        If something is missing or does not fit.
    """
    return _from_activations(options) if options.activations else _from_images(options)


def recipe_of(options: AnalyzeOptions | MemorizationOptions, **changed: Any) -> Recipe:
    """How networks are trained; ``changed`` replaces parts of the recipe."""
    own = {name: getattr(options, name) for name in ("network", "width", "epochs", "jitter")}
    return Recipe(**(own | changed))


def images_and_labels(options: AnalyzeOptions | MemorizationOptions) -> tuple[Images, FlippedLabels]:
    """Images of the data set, and the labels that are given to a network, some of them flipped."""
    assert options.dataset is not None and options.flip is not None
    images = load_images(
        options.dataset,
        options.data_root,
        options.image_size,
        options.seed,
        long_tailed=_share_or_names(options.long_tailed),
    )
    generator = torch.Generator().manual_seed(options.seed)
    return images, flip_labels(images.train_labels, options.flip, len(images.class_names), generator)


def _share_or_names(texts: list[str] | None) -> float | list[str] | None:
    """One text like "0.1" is a share, others are names of classes (also "1", a digit)."""
    if texts and len(texts) == 1 and re.fullmatch(r"0?\.\d+", texts[0]):
        return float(texts[0])
    return texts


def _from_images(options: AnalyzeOptions) -> Subject:
    images, given = images_and_labels(options)
    assert options.network is not None and options.seeds is not None and options.runs is not None
    if options.weights:
        n_channels = images.train.shape[1]
        model = build_network(
            options.network,
            len(images.class_names),
            n_channels,
            width=options.width,
            weights=options.weights,
            image_size=images.train.shape[-1],
        ).to(options.device)
        networks, predicted = [model], (predict(model, images.train), predict(model, images.test))
    else:
        everything = torch.ones(len(images.train), dtype=torch.bool)
        runs = [TrainingRun(f"network-{s}", everything, s) for s in range(options.seed, options.seed + options.seeds)]
        train_runs(
            options.runs,
            images,
            given.labels,
            runs,
            recipe_of(options),
            processes=min(options.processes or 1, len(runs)),
            device=options.device,
        )
        results = [load_run(options.runs, run.name, images, device=options.device) for run in runs]
        networks, predicted = [r.model for r in results], (results[0].train_predicted, results[0].test_predicted)
    layers = options.layers or default_layers(networks[0])
    return Subject(
        _extract(networks[0], images.train, given.labels, layers),
        given.labels,
        images.class_names,
        _extract(networks[0], images.test, images.test_labels, layers),
        images.test_labels,
        given,
        images.long_tailed,
        images,
        *predicted,
        tuple(_extract(network, images.train, given.labels, layers) for network in networks[1:]),
    )


def _extract(network: nn.Module, images: Tensor, labels: Tensor, layers: list[str]) -> Activations:
    return extract(network, DataLoader(TensorDataset(images, labels), batch_size=256), layers)


def _from_activations(options: AnalyzeOptions) -> Subject:
    assert options.activations is not None
    train = _labelled(options.activations, options.layers)
    assert train.labels is not None
    test = None
    if options.test_activations:
        test = _labelled(options.test_activations, list(train.layers))
        assert test.labels is not None
        for layer in train.layers:
            if test.features[layer].shape[1] != train.features[layer].shape[1]:
                raise ValueError(
                    f"layer {layer!r} has {test.features[layer].shape[1]} features in {options.test_activations}, but "
                    f"{train.features[layer].shape[1]} in {options.activations}: extract both from one network."
                )
    n_classes = int(train.labels.max()) + 1
    if test is not None and int(test.labels.max()) >= n_classes:  # type: ignore[union-attr]
        raise ValueError(
            f"{options.test_activations} has the label {int(test.labels.max())}, but the training labels end at "  # type: ignore[union-attr]
            f"{n_classes - 1}: use the same classes for both."
        )
    return Subject(
        train,
        train.labels.long(),
        _class_names(options.activations, n_classes),
        test,
        None if test is None else test.labels.long(),  # type: ignore[union-attr]
    )


def _labelled(folder: Path, layers: list[str] | None) -> Activations:
    """Activations of some layers (all, if None) from disk, with labels.

    Raises
    ------
    ValueError
        If there are no labels, one is negative, or a layer is not there.
    """
    found = load(folder)
    if found.labels is None:
        raise ValueError(
            f"{folder} has no labels: put labels.npy in it, one integer from 0 for each of the {_length(found)} rows."
        )
    if len(found.labels) and int(found.labels.min()) < 0:
        raise ValueError(f"labels.npy in {folder} has the label {int(found.labels.min())}: classes count from 0.")
    if layers is None:
        return found
    return Activations({name: _layer(found, name, folder) for name in layers}, found.labels)


def _layer(found: Activations, name: str, folder: Path) -> Tensor:
    if name not in found.features:
        raise ValueError(f"{folder} has no layer {name!r}: the nearest names are {nearest_names(name, found.layers)}.")
    return found.features[name]


def _length(found: Activations) -> int:
    return len(found.features[found.layers[0]])


def _class_names(folder: Path, n_classes: int) -> tuple[str, ...]:
    """Lines of ``class_names.txt``, if the folder has one, else the numbers of the classes."""
    file = folder / "class_names.txt"
    if not file.is_file():
        return tuple(map(str, range(n_classes)))
    names = tuple(file.read_text(encoding="utf-8").splitlines())
    if len(names) != n_classes or len(set(names)) < len(names):
        raise ValueError(
            f"{file} has {len(names)} lines, {len(set(names))} of them different, but there are {n_classes} classes: "
            "write one name a line, each once."
        )
    return names
