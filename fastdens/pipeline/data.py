"""The data of an analysis: activations of the same examples at several layers, and their labels and scores."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastdens.activations import Activations, extract, load, unwrapped
from fastdens.analysis import read_memorization_scores
from fastdens.arrays import as_array, as_tensor
from fastdens.io.activation_files import count_examples
from fastdens.kernels.options import suggest
from fastdens.labels import Labels, encode, encode_as, read_labels
from fastdens.pipeline.options import MachineOptions
from fastdens.pipeline.results import Examples, Provenance, Scores
from fastdens.progress import Stages

if TYPE_CHECKING:
    from fastdens.pipeline.experiment import Experiment

# Activations of one set of examples: a folder or file, what extract returned, or an array [N, D] for each layer.
ActivationSource = str | os.PathLike[str] | Activations | Mapping[str, ArrayLike | Tensor]
Features = Mapping[str, Tensor]

_BATCH_SIZE = 256
_NAMES = "class_names.txt"


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
    images : Tensor, optional
        [N, channels, height, width], the training examples as the network takes them.
    """

    provenance: Provenance
    examples: Examples
    train: Features
    test: Features | None = None
    scores: Scores | None = None
    other_networks: tuple[Features, ...] = ()
    experiment: Experiment | None = None
    images: Tensor | None = None

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
            [N] and [T] labels of any kind that :meth:`fastdens.RaggedBatch.from_labels` takes, in place of those that
            came with the activations. The classes are the training labels that occur, in their order.
        layers : sequence of str, optional
            The layers to analyze, in this order; by default all.
        class_names : sequence of str, optional
            A name for each class, in the order of the classes; by default the lines of ``class_names.txt`` in the
            folder of ``train``, or the labels. Integers from 0 are positions among the names.
        flipped : array or Tensor, optional
            [N] booleans, the training examples whose label is known to be wrong.
        name : str, optional
            What to call the data; by default the folder.

        Raises
        ------
        ValueError
            If labels are missing, a layer is missing, or shapes do not fit together.
        TypeError
            If an array does not hold numbers, or labels are of several kinds.
        OSError
            If there are no activations or scores, or a file cannot be read.
        """
        features, own_labels, where = _read(train, labels, layers, "train")
        folder = Path(train) if isinstance(train, str | os.PathLike) else None
        codes, classes, names = _classes(own_labels, where, class_names, folder)
        test_features, test_codes = None, None
        if test is not None:
            test_features, own_test_labels, test_where = _read(test, test_labels, list(features), "test")
            _check_test(features, where, test_features, test_where)
            test_codes = _test_codes(own_test_labels, test_where, classes)
        examples = Examples(
            names, codes, test_codes, flipped=None if flipped is None else _flags("flipped", flipped, len(codes))
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
            The output of the network that is right, an integer from 0, or its name in ``class_names``; test images
            need labels too.
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
        if class_names is None:
            class_names = _names_of_outputs(train_labels, len(train_images))
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
            images=train_images,
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
        stages: Stages | None = None,
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
        stages : Stages, optional
            As of :func:`fastdens.pipeline.analyze`.

        Raises
        ------
        ValueError, FileNotFoundError
            If something is missing or does not fit.
        """
        from fastdens.training import default_layers

        machine, stages = machine or MachineOptions(), stages or Stages(())
        with stages.stage("networks"):
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
        with stages.stage("activations"):
            train, test = (
                extract_features(first.model, own, chosen, progress=progress) for own in (images.train, images.test)
            )
            others = tuple(
                extract_features(other.model, images.train, chosen, progress=progress) for other in networks[1:]
            )
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
            train,
            test,
            _scores(scores, labels),
            others,
            experiment,
            images.train,
        )


def extract_features(model: nn.Module, images: Tensor, layers: Sequence[str], *, progress: bool) -> Features:
    """Pooled outputs [N, D] of some layers of a network, for images [N, channels, height, width]."""
    loader = DataLoader(TensorDataset(images), batch_size=_BATCH_SIZE)
    return extract(model, loader, layers, progress=progress).features


def _read(
    source: ActivationSource, labels: ArrayLike | Tensor | None, layers: Sequence[str] | None, part: str
) -> tuple[Features, Labels, str]:
    """Features by layer, labels, and the name of the source for messages."""
    where = str(source) if isinstance(source, str | os.PathLike) else part
    features, own_labels = _features(source, where)
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
    labels = own_labels if labels is None else labels
    if labels is None:
        remedy = f"pass {argument}" if where == part else "put labels.npy in it"
        raise ValueError(f"{where} has no labels: {remedy}, one for each of the {n_examples} rows.")
    return features, read_labels(labels, n_examples, name), where


def _features(source: ActivationSource, where: str) -> tuple[Features, Labels | None]:
    if isinstance(source, str | os.PathLike):
        source = load(source)
    if isinstance(source, Activations):
        return source.features, source.labels
    if not isinstance(source, Mapping):
        raise TypeError(
            f"activations of {where} are {type(source).__name__}: pass a folder, what extract returned, or a dict "
            "of one array [N, D] for each layer."
        )
    return {layer: as_tensor(array, f"layer {layer!r} of {where}") for layer, array in source.items()}, None


def _classes(
    labels: Labels, where: str, class_names: Sequence[str] | None, folder: Path | None
) -> tuple[NDArray[np.int64], Sequence[Hashable], tuple[str, ...]]:
    """The class of each example, int64 [N], the label of each class, and its name."""
    codes, distinct = encode(labels, f"labels of {where}")
    if isinstance(class_names, str):
        raise TypeError(f"class_names is {class_names!r}: pass a list of one name for each class.")
    given = _names_in(folder) if class_names is None else tuple(map(str, class_names))
    if given is None:
        return codes.cpu().numpy(), distinct, tuple(map(_name, distinct))
    there_are = f"there are {len(distinct)} classes"
    if isinstance(labels, Tensor) and int(labels.min()) >= 0:
        # Integers from 0 are positions among the names; a file has a name for each.
        last = int(labels.max())
        if last + 1 == len(given) or (last < len(given) and class_names is not None):
            return labels.long().cpu().numpy(), range(len(given)), given
        there_are = f"labels run to {last}"
    elif set(distinct) <= set(given):
        return encode_as(labels, given, f"labels of {where}").cpu().numpy(), given, given
    if len(given) == len(distinct):
        return codes.cpu().numpy(), distinct, given
    if class_names is None and folder is not None:
        raise ValueError(
            f"{folder / _NAMES} has {len(given)} lines, {len(set(given))} of them different, but there are "
            f"{len(distinct)} classes: write one name per line, each once."
        )
    raise ValueError(f"class_names has {len(given)} names, but {there_are}: name each class.")


def _name(label: Hashable) -> str:
    return label.decode(errors="replace") if isinstance(label, bytes) else str(label)


def _names_of_outputs(labels: ArrayLike | Tensor, n_examples: int) -> tuple[str, ...]:
    """Numbers for the outputs of a network, up to the largest label."""
    read = read_labels(labels, n_examples, "train_labels", "there are {} images")
    if not isinstance(read, Tensor) or int(read.min()) < 0:
        raise ValueError(
            "train_labels are not integers from 0: pass class_names, the names of the outputs of the network in order."
        )
    return tuple(map(str, range(int(read.max()) + 1)))


def _check_test(train: Features, where: str, test: Features, test_where: str) -> None:
    for layer, features in train.items():
        if test[layer].shape[1] != features.shape[1]:
            raise ValueError(
                f"layer {layer!r} has {test[layer].shape[1]} features in {test_where}, but {features.shape[1]} in "
                f"{where}: extract both from one network."
            )


def _test_codes(labels: Labels, where: str, classes: Sequence[Hashable]) -> NDArray[np.int64]:
    try:
        return encode_as(labels, classes, where).cpu().numpy()
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')} of the training labels: use the same classes for both.") from None


def _one_each(what: str, values: ArrayLike | Tensor, n_examples: int) -> NDArray[Any]:
    """The values as an array, one per example."""
    array = as_array(values, what)
    if array.shape != (n_examples,):
        raise ValueError(f"{what} has shape {array.shape}, but there are {n_examples} examples: pass one for each.")
    return array


def _flags(what: str, values: ArrayLike | Tensor, n_examples: int) -> NDArray[np.bool_]:
    array = _one_each(what, values, n_examples)
    flags = array.astype(bool)
    if (bad := array != flags).any():
        raise ValueError(f"{what} is {array[bad][0]} for example {int(bad.argmax())}: pass True or False for each.")
    return flags


def _names_in(folder: Path | None) -> tuple[str, ...] | None:
    """Lines of ``class_names.txt``, each different, if there is a folder that has one."""
    if folder is None or not (file := folder / _NAMES).exists():
        return None
    try:
        names = tuple(file.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise type(error)(f"{file} cannot be read ({error.strerror}): delete it or make it readable.") from None
    except ValueError:
        raise ValueError(f"{file} is no text in UTF-8: write one name per line.") from None
    if len(set(names)) < len(names):
        raise ValueError(
            f"{file} has {len(names)} lines, {len(set(names))} of them different: write one name per line, each once."
        )
    return names


def _scores(scores: str | os.PathLike[str] | ArrayLike | Scores | None, labels: Labels) -> Scores | None:
    if scores is None or isinstance(scores, Scores):
        return scores
    if isinstance(scores, str | os.PathLike):
        return Scores(read_memorization_scores(scores, len(labels), labels).scores, source=str(scores))
    return Scores(_one_each("scores", scores, len(labels)).astype(np.float64))
