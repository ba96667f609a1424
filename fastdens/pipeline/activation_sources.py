"""Activations of one set of examples, wherever they come from, with the labels of the examples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.activations import Activations, load
from fastdens.arrays import as_tensor
from fastdens.io.activation_files import count_examples
from fastdens.kernels.options import suggest
from fastdens.labels import Labels, read_labels

# Activations of one set of examples: a folder or file, what extract returned, or an array [N, D] for each layer.
ActivationSource = str | os.PathLike[str] | Activations | Mapping[str, ArrayLike | Tensor]
Features = Mapping[str, Tensor]


class LabelledActivations(NamedTuple):
    """Features by layer, labels, the name of the source for messages, and how it was pooled, if it says so."""

    features: Features
    labels: Labels
    where: str
    pooling: str | None

    def rows(self, examples: NDArray[np.int64]) -> LabelledActivations:
        """Some of the examples."""
        n_examples = len(self.labels)
        if examples.max() >= n_examples:
            raise ValueError(
                f"examples run to {examples.max()}, but {self.where} has {n_examples} rows, counted from 0: pass the "
                "list of this data set."
            )
        features = {layer: x[torch.from_numpy(examples).to(x.device)] for layer, x in self.features.items()}
        return self._replace(features=features, labels=self.labels[examples])


def read_source(
    source: ActivationSource,
    labels: ArrayLike | Tensor | None,
    layers: Sequence[str] | None,
    part: str,
    pooling: str,
    spare_labels: ArrayLike | None = None,
) -> LabelledActivations:
    """Read activations and their labels: ``labels``, or their own, or ``spare_labels``."""
    where = str(source) if isinstance(source, str | os.PathLike) else part
    features, own_labels, found_pooling = _features(source, where, pooling)
    if layers is not None:
        for layer in layers:
            if layer not in features:
                raise ValueError(f"{where} has no layer {layer!r}: the nearest names are {suggest(layer, features)}.")
        features = {layer: features[layer] for layer in layers}
    if not features:
        raise ValueError(f"{where} has no layer: pass an array [N, D] for at least one.")
    n_examples = count_examples(features, f"of {where}")
    argument = "labels" if part == "train" else f"{part}_labels"
    name = f"labels of {where}" if labels is None else argument
    labels = next((given for given in (labels, own_labels, spare_labels) if given is not None), None)
    if labels is None:
        remedy = f"pass {argument}" if where == part else "put labels.npy in it"
        raise ValueError(f"{where} has no labels: {remedy}, one for each of the {n_examples} rows.")
    return LabelledActivations(features, read_labels(labels, n_examples, name), where, found_pooling)


def _features(source: ActivationSource, where: str, pooling: str) -> tuple[Features, Labels | None, str | None]:
    if isinstance(source, str | os.PathLike):
        source = load(source, pooling)
    if isinstance(source, Activations):
        return source.features, source.labels, source.pooling
    if not isinstance(source, Mapping):
        raise TypeError(
            f"activations of {where} are {type(source).__name__}: pass a folder, what extract returned, or a dict "
            "of one array [N, D] for each layer."
        )
    features = {layer: as_tensor(array, f"layer {layer!r} of {where}") for layer, array in source.items()}
    return features, None, None


def check_same_features(train: LabelledActivations, test: LabelledActivations) -> None:
    """Raise a ValueError if a layer has other features in the test examples than in the training examples."""
    for layer, features in train.features.items():
        if test.features[layer].shape[1] != features.shape[1]:
            raise ValueError(
                f"layer {layer!r} has {test.features[layer].shape[1]} features in {test.where}, but "
                f"{features.shape[1]} in {train.where}: extract both from one network."
            )
