"""What an analysis is about: activations of the same examples at several layers, and all that is known beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from fastdens.activations import Activations, load
from fastdens.cli.options import AnalyzeOptions
from fastdens.kernels.options import suggest

if TYPE_CHECKING:
    from fastdens.training.datasets import Images
    from fastdens.training.recipe import FlippedLabels


class Subject(NamedTuple):
    """Activations of N training examples, their given labels int64 [N], the names of the M classes, and what else is
    known, None where it is not: activations and labels of test examples, which labels were flipped, which classes have
    a long tail, the images, the labels that the network gives, and activations from networks of other seeds.
    """

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

    @property
    def test_accuracy(self) -> float | None:
        """Share of the test examples that the network gives their label, if both are known."""
        if self.test_predicted is None or self.test_labels is None:
            return None
        return float((self.test_predicted == self.test_labels).double().mean())


def load_subject(options: AnalyzeOptions) -> Subject:
    """The subject that the options ask for: activations on disk, or those of a network on images.

    Raises
    ------
    ValueError, FileNotFoundError
        If something is missing or does not fit.
    """
    if options.activations:
        return _from_activations(options)
    # Activations alone need no torchvision.
    from fastdens.cli.network_subject import subject_of_network

    return subject_of_network(options)


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
        raise ValueError(f"{folder} has no layer {name!r}: the nearest names are {suggest(name, found.layers)}.")
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
