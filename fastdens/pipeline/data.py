"""The data of an analysis: activations of the same examples at several layers, and their labels and scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from fastdens.activations import unwrapped
from fastdens.analysis import read_memorization_scores
from fastdens.arrays import as_array
from fastdens.labels import Labels
from fastdens.pipeline.activation_sources import ActivationSource, Features, check_same_features, read_source
from fastdens.pipeline.class_labels import classes_of, codes_among, names_of_outputs
from fastdens.pipeline.examples import Examples
from fastdens.pipeline.experiment_options import Pooling, Tokens
from fastdens.pipeline.extraction import extract_features, keep_features
from fastdens.pipeline.options import MachineOptions
from fastdens.pipeline.results import Provenance, Scores
from fastdens.progress import Stages

if TYPE_CHECKING:
    from fastdens.pipeline.experiment import Experiment
    from fastdens.training.datasets import StreamedImages
    from fastdens.training.runs import RunResult


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
    noise : mapping of str to Tensor, optional
        By layer, of images of noise.
    scores : Scores, optional
        Memorization scores of the training examples.
    other_networks : tuple of mapping of str to Tensor
        ``train`` by networks of other seeds, whose groups of classes are compared.
    experiment : Experiment, optional
        Images and a recipe, by which more networks can be trained.
    images : Tensor or StreamedImages, optional
        [N, channels, height, width], the training examples as the network takes them.
    """

    provenance: Provenance
    examples: Examples
    train: Features
    test: Features | None = None
    scores: Scores | None = None
    other_networks: tuple[Features, ...] = ()
    experiment: Experiment | None = None
    images: Tensor | StreamedImages | None = None
    noise: Features | None = None

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
        examples: NDArray[np.int64] | None = None,
        pooling: str = "average",
        allow_pickle: bool = False,
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
            :func:`fastdens.analysis.read_memorization_scores` reads. Where the activations have no labels, those in the
            file are taken.
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
        examples : ndarray, optional
            int64 [n], the rows to analyze, each once; by default all N, which everything else is still of.
        pooling : {"average", "max"}
            Which files of a folder to read that has both, see :func:`fastdens.activations.load`.
        allow_pickle : bool
            Read Python objects in a file of scores, by a reader that runs nothing.

        Returns
        -------
        AnalysisData
            What :func:`analyze` takes.

        Raises
        ------
        ValueError
            If labels are missing, a layer is missing, or shapes do not fit together.
        TypeError
            If an array does not hold numbers, or labels are of several kinds.
        OSError
            If there are no activations or scores, or a file cannot be read.

        Examples
        --------
        >>> import numpy as np
        >>> from fastdens.pipeline import AnalysisData
        >>> rng = np.random.default_rng(0)
        >>> data = AnalysisData.from_activations({"layer4": rng.normal(size=(200, 16))}, labels=np.arange(200) % 2)
        >>> data.examples.class_names
        ('0', '1')
        """
        spare_labels = None
        if isinstance(scores, str | os.PathLike):
            spare_labels = read_memorization_scores(scores, allow_pickle=allow_pickle).labels
        found = read_source(train, labels, layers, "train", pooling, spare_labels)
        n_rows = len(found.labels)
        if flipped is not None:
            flipped = _flags("flipped", flipped, n_rows)
        if examples is not None:
            found, flipped = found.rows(examples), None if flipped is None else flipped[examples]
        folder = Path(train) if isinstance(train, str | os.PathLike) else None
        codes, classes, names = classes_of(found.labels, found.where, class_names, folder)
        test_features, test_codes = None, None
        if test is not None:
            of_test = read_source(test, test_labels, list(found.features), "test", pooling)
            check_same_features(found, of_test)
            test_features, test_codes = of_test.features, codes_among(of_test.labels, of_test.where, classes)
        return cls(
            Provenance(name or found.where, None if folder is None else str(folder), pooling=found.pooling),
            Examples(names, codes, test_codes, flipped=flipped),
            found.features,
            test_features,
            _scores(scores, found.labels, n_rows, examples, allow_pickle=allow_pickle),
        )

    @classmethod
    def from_network(
        cls,
        model: nn.Module,
        train_images: Tensor | StreamedImages,
        train_labels: ArrayLike | Tensor,
        test_images: Tensor | StreamedImages | None = None,
        test_labels: ArrayLike | Tensor | None = None,
        scores: str | os.PathLike[str] | ArrayLike | Scores | None = None,
        *,
        layers: Sequence[str] | None = None,
        pooling: Pooling = "average",
        tokens: Tokens = "all",
        noise_images: Tensor | None = None,
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
        train_images : Tensor or StreamedImages
            [N, channels, height, width], as the network takes them.
        train_labels : array or Tensor
            [N], for each image the output of the network that is right, an integer from 0, or its name in
            ``class_names``.
        test_images : Tensor or StreamedImages, optional
            Images that the network was not trained on, in the same form.
        test_labels : array or Tensor, optional
            Their labels, which test images need.
        scores : optional
            As of :meth:`from_activations`.
        layers : sequence of str, optional
            Names of modules; by default those of :func:`fastdens.training.default_layers`.
        pooling : {"average", "max"}
            Over the positions of an image, or over tokens.
        tokens : {"all", "class", "patches"}
            Tokens to pool, where a layer puts out [batch, tokens, channels].
        noise_images : Tensor, optional
            Images of noise, as the network takes them.
        class_names, flipped, name : optional
            As of :meth:`from_activations`.
        progress : bool
            Show a progress bar (in a terminal, needs rich).

        Returns
        -------
        AnalysisData
            What :func:`analyze` takes.

        Raises
        ------
        ValueError
            If labels are missing or do not fit, or a layer does not exist.
        """
        from fastdens.training import default_layers, predict

        chosen = list(layers) if layers else default_layers(model)
        if class_names is None:
            class_names = names_of_outputs(train_labels, len(train_images))

        def features(images: Tensor | StreamedImages) -> Features:
            return extract_features(model, images, chosen, pooling, tokens, progress=progress)

        test_predicted = None if test_images is None else predict(model, test_images).numpy()
        data = cls.from_activations(
            features(train_images),
            None if test_images is None else features(test_images),
            scores,
            labels=train_labels,
            test_labels=test_labels,
            class_names=class_names,
            flipped=flipped,
            name=name or type(unwrapped(model)).__name__,
        )
        return replace(
            data,
            provenance=Provenance(
                data.provenance.name, network=type(unwrapped(model)).__name__, pooling=pooling, tokens=tokens
            ),
            noise=None if noise_images is None else features(noise_images),
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
        pooling: Pooling = "average",
        tokens: Tokens = "all",
        noise_images: int = 0,
        scores: str | os.PathLike[str] | ArrayLike | Scores | None = None,
        allow_pickle: bool = False,
        machine: MachineOptions | None = None,
        progress: bool = True,
        stages: Stages | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
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
        pooling, tokens : str
            As of :meth:`from_network`.
        noise_images : int
            Images of Gaussian noise to show to the network too, each pixel of mean 0 and variance 1 in the units of the
            standardized images.
        scores, allow_pickle : optional
            As of :meth:`from_activations`; scores are of all training examples of the data set.
        machine : MachineOptions, optional
            The device and the processes to train with.
        progress : bool
            Show progress bars (in a terminal, needs rich).
        stages : Stages, optional
            As of :func:`fastdens.pipeline.analyze`.
        checkpoint : path-like, optional
            Folder for the activations, which are then mapped into memory: another call goes on with them, and ranks of
            a job share the work. Those of other networks or images have a folder of their own in it.

        Returns
        -------
        AnalysisData
            What :func:`analyze` takes.

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
        recipe, given = experiment.recipe, experiment.examples

        kept = None if checkpoint is None else Path(checkpoint)
        identity = "" if kept is None else images.fingerprint()

        def features(network: RunResult, part: str, images: Tensor | StreamedImages) -> Features:
            data = f"{part} of {identity}"
            return keep_features(kept, data, network.model, images, chosen, pooling, tokens, progress=progress)

        with stages.stage("activations"):
            train, test = features(first, "train", images.train), features(first, "test", images.test)
            others = tuple(features(other, "train", images.train) for other in networks[1:])
            noise = None
            if noise_images:
                drawn = _noise(images.test, noise_images, machine.seed)
                noise = features(first, f"{noise_images} of noise {machine.seed}", drawn)
        return cls(
            Provenance(
                experiment.name,
                network=recipe.network,
                weights=None if weights is None else str(weights),
                width=recipe.width if weights is None else None,
                epochs=recipe.epochs if weights is None else None,
                pooling=pooling,
                tokens=tokens,
                settings=experiment.settings,
            ),
            examples,
            train,
            test,
            _scores(scores, labels, experiment.n_examples, given, allow_pickle=allow_pickle),
            others,
            experiment,
            images.train,
            noise,
        )


def _noise(like: Tensor | StreamedImages, n_images: int, seed: int) -> Tensor:
    """Standard Gaussian noise [n_images, channels, height, width] of the shape of some images."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n_images, *like.shape[1:]), dtype=torch.float32, device="cpu", generator=generator)


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


def _scores(
    scores: str | os.PathLike[str] | ArrayLike | Scores | None,
    labels: Labels,
    n_examples: int,
    examples: NDArray[np.int64] | None,
    *,
    allow_pickle: bool,
) -> Scores | None:
    """Scores of the chosen examples, whose labels these are, out of ``n_examples`` given ones."""
    if scores is None or isinstance(scores, Scores):
        return scores
    if isinstance(scores, str | os.PathLike):
        found = read_memorization_scores(scores, n_examples, labels, examples=examples, allow_pickle=allow_pickle)
        return Scores(found.scores, source=str(scores))
    array = _one_each("scores", scores, n_examples).astype(np.float64)
    return Scores(array if examples is None else array[examples])
