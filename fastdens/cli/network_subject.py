"""The subject of an analysis that starts from images: networks, trained here or elsewhere, and their activations."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastdens.activations import Activations, extract
from fastdens.cli.options import AnalyzeOptions, MemorizationOptions
from fastdens.cli.subject import Subject
from fastdens.training.datasets import Images, load_images
from fastdens.training.networks import build_network, default_layers
from fastdens.training.recipe import FlippedLabels, flip_labels, predict
from fastdens.training.runs import Recipe, TrainingRun, load_run, train_runs


def recipe_of(options: AnalyzeOptions | MemorizationOptions, **changed: Any) -> Recipe:
    """How networks are trained; ``changed`` replaces parts of the recipe."""
    own = {name: getattr(options, name) for name in ("network", "width", "epochs", "augment")}
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


def subject_of_network(options: AnalyzeOptions) -> Subject:
    """Activations of a network, trained here or elsewhere, for the images of a data set.

    Raises
    ------
    ValueError, FileNotFoundError
        If something is missing or does not fit.
    """
    images, given = images_and_labels(options)
    assert options.network is not None and options.width is not None
    assert options.seeds is not None and options.runs is not None
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
