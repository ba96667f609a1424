"""The data of an analysis: activations of the same examples at several layers, and their labels and scores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastdens.activations import Activations, extract, load, unwrapped
from fastdens.analysis import read_memorization_scores
from fastdens.kernels.options import suggest
from fastdens.pipeline.options import MachineOptions
from fastdens.pipeline.results import Examples, Provenance, Scores

if TYPE_CHECKING:
    from fastdens.pipeline.experiment import Experiment

# Activations of one set of examples: a folder or file, what extract returned, or an array [N, D] for each layer.
ActivationSource = str | os.PathLike[str] | Activations | Mapping[str, ArrayLike | Tensor]
Features = Mapping[str, Tensor]

_BATCH_SIZE = 256


@dataclass(frozen=True)
class AnalysisData:
    """Activations of N training examples of M classes, and what else is known; the rest is None.

    Make one with :meth:`from_activations`, :meth:`from_network` or :meth:`from_experiment`.

    Attributes
    ----------
    provenance : Provenance
        Where the activations come from.
    examples : Examples
        Labels, class names, and what is known beside them.
    train : mapping of str to Tensor
        [N, D] by layer, from the first to the last.
    test : mapping of str to Tensor, optional
        [T, D] by layer, of test examples.
    scores : Scores, optional
        Memorization scores of the training examples.
    other_networks : tuple of mapping of str to Tensor
        ``train`` by networks of other seeds, whose groups of classes are compared.
    experiment : Experiment, optional
        Images and a recipe, by which more networks can be trained.
    """

    provenance: Provenance
    examples: Examples
    train: Features
    test: Features | None = None
    scores: Scores | None = None
    other_networks: tuple[Features, ...] = ()
    experiment: Experiment | None = None

    @property
    def class_sizes(self) -> NDArray[np.int64]:
        """Training examples of each class, int64 [M]."""
        return np.bincount(self.examples.labels, minlength=len(self.examples.class_names))

    @classmethod
    def from_activations(
        cls,
        train: ActivationSource,
        test: ActivationSource | None = None,
        scores: str | os.PathLike[str] | ArrayLike | Scores | None = None,
        *,
        labels: ArrayLike | Tensor | None = None,
        test_labels: ArrayLike | Tensor | None = None,
        layers: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        flipped: ArrayLike | Tensor | None = None,
        name: str | None = None,
    ) -> AnalysisData:
        """Take existing activations.

        Parameters
        ----------
        train : path-like, Activations or mapping of str to array
            Of the training examples: a folder or file as :func:`fastdens.activations.load` reads it, what
            :func:`fastdens.activations.extract` returned, or an array [N, D] for each layer.
        test : the same, optional
            Of test examples, at the same layers.
        scores : path-like, array or Scores, optional
            Memorization score of each training example, or a file that
            :func:`fastdens.analysis.read_memorization_scores` reads.
        labels, test_labels : array or Tensor, optional
            [N] and [T] integers from 0, in place of those that came with the activations.
        layers : sequence of str, optional
            The layers to analyze, in this order; by default all.
        class_names : sequence of str, optional
            A name for each class; by default the lines of ``class_names.txt`` in the folder of ``train``, or numbers.
        flipped : array or Tensor, optional
            [N] booleans, the training examples whose label is known to be wrong.
        name : str, optional
            What to call the data; by default the folder.

        Raises
        ------
        ValueError
            If labels are missing or negative, a layer is missing, or shapes do not fit together.
        FileNotFoundError
            If there are no activations or scores.
        """
        features, own_labels, where = _read(train, labels, layers, "train")
        n_classes = int(own_labels.max()) + 1
        test_features, own_test_labels = None, None
        if test is not None:
            test_features, own_test_labels, test_where = _read(test, test_labels, list(features), "test")
            _check_test(features, where, test_features, own_test_labels, test_where, n_classes)
        folder = Path(train) if isinstance(train, str | os.PathLike) else None
        names = _default_names(folder, n_classes) if class_names is None else tuple(class_names)
        if len(names) < n_classes:
            raise ValueError(f"class_names has {len(names)} names, but labels run to {n_classes - 1}: name each class.")
        examples = Examples(
            names,
            own_labels,
            own_test_labels,
            flipped=None if flipped is None else _one_each("flipped", flipped, len(own_labels)).astype(bool),
        )
        return cls(
            Provenance(name or where, None if folder is None else str(folder)),
            examples,
            features,
            test_features,
            _scores(scores, own_labels),
        )

    @classmethod
    def from_network(
        cls,
        model: nn.Module,
        train_images: Tensor,
        train_labels: ArrayLike | Tensor,
        test_images: Tensor | None = None,
        test_labels: ArrayLike | Tensor | None = None,
        scores: str | os.PathLike[str] | ArrayLike | Scores | None = None,
        *,
        layers: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        flipped: ArrayLike | Tensor | None = None,
        name: str | None = None,
        progress: bool = True,
    ) -> AnalysisData:
        """Extract the activations of a trained network.

        Parameters
        ----------
        model : nn.Module
            A classifier, on the device to run on, wrapped, compiled or in half precision or not; it is left as it was.
        train_images, test_images : Tensor
            [N, channels, height, width], as the network takes them.
        train_labels, test_labels : array or Tensor
            Integers from 0; test images need labels too.
        layers : sequence of str, optional
            Names of modules; by default those of :func:`fastdens.training.default_layers`.
        scores, class_names, flipped, name
            As of :meth:`from_activations`.
        progress : bool
            Show a progress bar (needs rich).

        Raises
        ------
        ValueError
            If labels are missing or do not fit, or a layer does not exist.
        """
        from fastdens.training import default_layers, predict

        chosen = list(layers) if layers else default_layers(model)
        train = extract_features(model, train_images, chosen, progress=progress)
        test, test_predicted = None, None
        if test_images is not None:
            test = extract_features(model, test_images, chosen, progress=progress)
            test_predicted = predict(model, test_images).numpy()
        data = cls.from_activations(
            train,
            test,
            scores,
            labels=train_labels,
            test_labels=test_labels,
            class_names=class_names,
            flipped=flipped,
            name=name or type(unwrapped(model)).__name__,
        )
        return replace(
            data,
            provenance=Provenance(data.provenance.name, network=type(unwrapped(model)).__name__),
            examples=replace(
                data.examples, train_predicted=predict(model, train_images).numpy(), test_predicted=test_predicted
            ),
        )

    @classmethod
    def from_experiment(
        cls,
        experiment: Experiment,
        *,
        seeds: int = 1,
        weights: Path | None = None,
        layers: Sequence[str] | None = None,
        scores: str | os.PathLike[str] | ArrayLike | Scores | None = None,
        machine: MachineOptions | None = None,
        progress: bool = True,
    ) -> AnalysisData:
        """Train networks on a data set, or load one from a file, and extract their activations.

        Networks already in the folder of runs are not trained again.

        Parameters
        ----------
        experiment : Experiment
            The images and the recipe.
        seeds : int
            Networks to train, from consecutive seeds; the first is analyzed, the groups of the others compared with it.
        weights : Path, optional
            A file with the weights of the network, in place of training.
        layers : sequence of str, optional
            Names of modules; by default those of :func:`fastdens.training.default_layers`.
        scores : path-like, array or Scores, optional
            As of :meth:`from_activations`.
        machine : MachineOptions, optional
        progress : bool
            Show progress bars (needs rich).

        Raises
        ------
        ValueError, FileNotFoundError
            If something is missing or does not fit.
        """
        from fastdens.training import default_layers

        machine = machine or MachineOptions()
        networks = (
            experiment.train(seeds, machine, progress=progress)
            if weights is None
            else [experiment.network_of_file(weights, machine.device)]
        )
        first, images = networks[0], experiment.images
        chosen = list(layers) if layers else default_layers(first.model)
        labels = experiment.labels.numpy()
        examples = Examples(
            images.class_names,
            labels,
            images.test_labels.numpy(),
            true_labels=images.train_labels.numpy(),
            flipped=experiment.flipped.numpy(),
            long_tailed=None if images.long_tailed is None else images.long_tailed.numpy(),
            train_predicted=first.train_predicted.numpy(),
            test_predicted=first.test_predicted.numpy(),
        )
        recipe = experiment.recipe
        return cls(
            Provenance(
                experiment.name,
                network=recipe.network,
                weights=None if weights is None else str(weights),
                width=recipe.width if weights is None else None,
                epochs=recipe.epochs if weights is None else None,
                settings=experiment.settings,
            ),
            examples,
            extract_features(first.model, images.train, chosen, progress=progress),
            extract_features(first.model, images.test, chosen, progress=progress),
            _scores(scores, labels),
            tuple(extract_features(other.model, images.train, chosen, progress=progress) for other in networks[1:]),
            experiment,
        )


def extract_features(model: nn.Module, images: Tensor, layers: Sequence[str], *, progress: bool) -> Features:
    """Pooled outputs [N, D] of some layers of a network, for images [N, channels, height, width]."""
    loader = DataLoader(TensorDataset(images), batch_size=_BATCH_SIZE)
    return extract(model, loader, layers, progress=progress).features


def _read(
    source: ActivationSource, labels: ArrayLike | Tensor | None, layers: Sequence[str] | None, part: str
) -> tuple[Features, NDArray[np.int64], str]:
    """Features by layer, labels, and the name of the source for messages."""
    where = str(source) if isinstance(source, str | os.PathLike) else part
    features, own_labels = _features(source)
    if layers is not None:
        for layer in layers:
            if layer not in features:
                raise ValueError(f"{where} has no layer {layer!r}: the nearest names are {suggest(layer, features)}.")
        features = {layer: features[layer] for layer in layers}
    if not features:
        raise ValueError(f"{where} has no layer: pass an array [N, D] for at least one.")
    n_examples = len(next(iter(features.values())))
    for layer, array in features.items():
        if array.ndim != 2 or len(array) != n_examples:
            raise ValueError(
                f"layer {layer!r} of {where} has shape {tuple(array.shape)}, but activations are [{n_examples}, D], "
                "one row per example as in the first layer."
            )
    labels = own_labels if labels is None else labels
    if labels is None:
        remedy = f"pass {part} with labels" if where == part else "put labels.npy in it"
        raise ValueError(f"{where} has no labels: {remedy}, one integer from 0 for each of the {n_examples} rows.")
    checked = _one_each(f"labels of {where}", labels, n_examples)
    if not np.issubdtype(checked.dtype, np.integer):
        raise ValueError(f"labels of {where} are {checked.dtype}: pass one integer from 0 for each row.")
    if n_examples and checked.min() < 0:
        raise ValueError(f"{where} has the label {checked.min()}: classes count from 0.")
    return features, checked.astype(np.int64), where


def _features(source: ActivationSource) -> tuple[Features, Tensor | None]:
    if isinstance(source, str | os.PathLike):
        source = load(source)
    if isinstance(source, Activations):
        return source.features, source.labels
    return {
        layer: array if isinstance(array, Tensor) else torch.as_tensor(array, device="cpu")
        for layer, array in source.items()
    }, None


def _check_test(
    train: Features, where: str, test: Features, test_labels: NDArray[np.int64], test_where: str, n_classes: int
) -> None:
    for layer, features in train.items():
        if test[layer].shape[1] != features.shape[1]:
            raise ValueError(
                f"layer {layer!r} has {test[layer].shape[1]} features in {test_where}, but {features.shape[1]} in "
                f"{where}: extract both from one network."
            )
    if test_labels.max() >= n_classes:
        raise ValueError(
            f"{test_where} has the label {test_labels.max()}, but the training labels end at {n_classes - 1}: use the "
            "same classes for both."
        )


def _one_each(what: str, values: ArrayLike | Tensor, n_examples: int) -> NDArray[Any]:
    """The values as an array, one per example."""
    array = np.asarray(values)
    if array.shape != (n_examples,):
        raise ValueError(f"{what} has shape {array.shape}, but there are {n_examples} examples: pass one for each.")
    return array


def _default_names(folder: Path | None, n_classes: int) -> tuple[str, ...]:
    """Lines of ``class_names.txt``, if there is a folder that has one, else the numbers of the classes."""
    if folder is None or not (file := folder / "class_names.txt").is_file():
        return tuple(map(str, range(n_classes)))
    names = tuple(file.read_text(encoding="utf-8").splitlines())
    if len(names) != n_classes or len(set(names)) < len(names):
        raise ValueError(
            f"{file} has {len(names)} lines, {len(set(names))} of them different, but there are {n_classes} classes: "
            "write one name per line, each once."
        )
    return names


def _scores(scores: str | os.PathLike[str] | ArrayLike | Scores | None, labels: NDArray[np.int64]) -> Scores | None:
    if scores is None or isinstance(scores, Scores):
        return scores
    if isinstance(scores, str | os.PathLike):
        return Scores(read_memorization_scores(scores, len(labels), labels).scores, source=str(scores))
    return Scores(_one_each("scores", scores, len(labels)).astype(np.float64))
