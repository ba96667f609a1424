"""Standardized images of a data set by name: the entrance to all data sets."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdens.io.state_file import fingerprint
from fastdens.training.datasets.anagrams import anagrams
from fastdens.training.datasets.decoding import Reading
from fastdens.training.datasets.digits import load_digits
from fastdens.training.datasets.encoded import EncodedImages
from fastdens.training.datasets.folder import load_folder
from fastdens.training.datasets.glyphs import glyphs
from fastdens.training.datasets.mini_imagenet import has_pickles, load_pickles
from fastdens.training.datasets.parts import ImageSet, Part
from fastdens.training.datasets.streaming import StreamedImages, select
from fastdens.training.datasets.survey import PixelDigests, counts_of, moments, survey
from fastdens.training.datasets.torchvision import load_torchvision

# Data sets whose long-tailed classes are planted.
_PLANTED = ("anagrams", "glyphs100")


class Images(NamedTuple):
    """Images with their labels; each channel of the training images has mean 0 and variance 1.

    Attributes
    ----------
    train, test : Tensor or StreamedImages
        float32 [N, channels, height, width], in memory, or decoded from files when they are asked for.
    train_labels, test_labels : Tensor
        int64 [N].
    class_names : tuple of str
    mean, std : Tensor
        float32 [1, channels, 1, 1]; ``train * std + mean`` are pixels between 0 and 1.
    long_tailed : Tensor or None
        bool [classes], where it is known which classes have a long tail of subpopulations.
    digests : PixelDigests or None
        Of images that come from files of their own, by which those in memory and those in files are known to be equal.
    """

    train: Tensor | StreamedImages
    train_labels: Tensor
    test: Tensor | StreamedImages
    test_labels: Tensor
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor
    long_tailed: Tensor | None = None
    digests: PixelDigests | None = None

    def of_examples(self, rows: np.ndarray) -> Images:
        """These images with some of the training images.

        Parameters
        ----------
        rows : ndarray
            int64 [n], their row numbers.

        Returns
        -------
        Images
            The test images are the same.
        """
        digests = None if self.digests is None else self.digests._replace(train=self.digests.train[rows])
        return self._replace(train=select(self.train, rows), train_labels=self.train_labels[rows], digests=digests)

    def fingerprint(self) -> str:
        """A digest of the images and of the labels of the training images.

        Returns
        -------
        str
            Hexadecimal.
        """
        if self.digests is not None:
            return self.digests.fingerprint(self.train_labels)
        # Only images in memory lack digests.
        assert isinstance(self.train, Tensor) and isinstance(self.test, Tensor)
        return fingerprint([self.train, self.train_labels, self.test, self.mean, self.std])


def load_images(
    dataset: str,
    root: str | os.PathLike[str] | None,
    image_size: int | None,
    seed: int,
    *,
    long_tailed: float | Iterable[int | str] | None = None,
    allow_pickle: bool = False,
    images_per_class: int | None = None,
    stream: bool | None = None,
    workers: int | None = None,
    survey_folder: str | os.PathLike[str] | None = None,
    outline: bool = False,
    progress: bool = False,
) -> Images:
    """Load the images of a data set; nothing is ever downloaded.

    Parameters
    ----------
    dataset : str
        "anagrams", six letters in orders of which some are common and some occur once; "digits" of scikit-learn;
        "glyphs100", characters with random shapes, colours and noise; a classification data set of
        ``torchvision.datasets``, e.g. "CIFAR100", in upper or lower case; or a folder, which is one of

        - ``train`` and ``test`` or ``val``, each with one folder of images for each class, e.g. ImageNet;
        - ``images`` and the lists ``train.csv``, ``val.csv`` and ``test.csv`` with columns ``filename`` and ``label``,
          e.g. Mini-ImageNet;
        - ``train.pickle`` and ``test.pickle``, a dict each: ``data``, uint8 images [height, width, 3] in an array or a
          list, and ``labels``, an integer from 0 for each;
        - one folder of images for each class.

        Where the training and test images have different classes by design (Mini-ImageNet), or are not separate, one
        in six images of each class becomes a test image.
    root : path-like or None
        Where the files of a torchvision data set are. Archives there are unpacked.
    image_size : int, optional
        Height and width to which the central square of each image is resized. By default 16 for anagrams and digits,
        32 for glyphs, and otherwise the size of the images, which must be the same for all.
    seed : int
        Seed of the anagrams and glyphs, and of the split into training and test images.
    long_tailed : float or iterable of int or str, optional
        The long-tailed classes of anagrams or glyphs100, or their share; by default two fifths of the anagrams and a
        fifth of the glyphs.
    allow_pickle : bool
        Read pickles of arrays, by a reader that runs nothing. The published files of CIFAR, which their digests tell,
        are read by the same reader without it.
    images_per_class : int, optional
        Training images of each class of glyphs100; by default 500.
    stream : bool, optional
        Leave images in their files, which are decoded when they are asked for, so that memory does not grow with their
        number. By default where they would take more than a quarter of the memory, as float32. The images are the same
        either way, bit for bit, and so is everything computed from them.
    workers : int, optional
        Processes that decode images which are streamed, see :class:`fastdens.training.datasets.StreamedImages`.
    survey_folder : path-like, optional
        Where to keep what one pass over images that are streamed finds, their mean, their deviation and a digest of
        each, so that the next call need not decode them all.
    outline : bool
        Leave out that pass: the images can be counted, and that is all.
    progress : bool
        Show a progress bar of that pass (in a terminal, needs rich).

    Returns
    -------
    Images
        Standardized training and test images, with their labels.

    Raises
    ------
    ValueError
        If there is no such data set, its images have different sizes and ``image_size`` is None, they exceed the
        memory, it has no classes, it is in pickles and ``allow_pickle`` is False, or ``stream`` is True and its images
        are not in files of their own.
    FileNotFoundError
        If its files are missing; the message says which file to put where.
    ImportError
        If a package that the data set needs is not installed.

    Examples
    --------
    >>> from fastdens.training.datasets import load_images
    >>> digits = load_images("digits", None, None, seed=0)
    >>> digits.train.shape, len(digits.class_names)
    (torch.Size([1437, 1, 16, 16]), 10)
    """
    name = dataset.lower()
    folder = None if survey_folder is None else Path(survey_folder)
    reading = Reading(stream, workers, folder, outline, progress)
    for option, value, planted in (
        ("long_tailed", long_tailed, _PLANTED),
        ("images_per_class", images_per_class, ("glyphs100",)),
    ):
        if value and name not in planted:
            raise ValueError(f"{option} is for {' and '.join(planted)}, but the data set is {dataset}: leave it out.")
    if name == "digits":
        images = load_digits(image_size or 16, seed)
    elif name == "anagrams":
        images = _anagrams(0.4 if long_tailed is None else long_tailed, image_size or 16, seed)
    elif name == "glyphs100":
        images = _glyphs100(
            0.2 if long_tailed is None else long_tailed, images_per_class or 500, image_size or 32, seed
        )
    elif has_pickles(Path(dataset)):
        images = load_pickles(Path(dataset), image_size, allow_pickle=allow_pickle)
    elif Path(dataset).is_dir():
        images = load_folder(Path(dataset), image_size, seed, reading)
    else:
        images = load_torchvision(dataset, Path(root or "."), image_size, seed, reading)
    train, test = images.train.images, images.test.images
    if isinstance(train, EncodedImages) and isinstance(test, EncodedImages):
        return _streamed(images, train, test, reading)
    if stream:
        raise ValueError(f"stream is for images in files of their own, which {dataset} does not have: leave it out.")
    return _standardized(images)


def _anagrams(long_tailed: float | Iterable[int | str], image_size: int, seed: int) -> ImageSet:
    data = anagrams(long_tailed=long_tailed, image_size=image_size, seed=seed)
    train, test = Part(data.train, data.train_labels), Part(data.test, data.test_labels)
    return ImageSet(train, test, data.class_names, data.long_tailed)


def _glyphs100(long_tailed: float | Iterable[int | str], images_per_class: int, image_size: int, seed: int) -> ImageSet:
    data = glyphs(n_train=images_per_class, long_tailed=long_tailed, image_size=image_size, seed=seed)
    train, test = Part(data.train, data.true_labels), Part(data.test, data.test_labels)
    return ImageSet(train, test, data.class_names, data.long_tailed)


def _standardized(data: ImageSet) -> Images:
    """The images in memory, standardized."""
    (train, train_labels, train_digests), (test, test_labels, test_digests), class_names, long_tailed = data
    assert isinstance(train, Tensor) and isinstance(test, Tensor)
    digests = None
    if train_digests is not None and test_digests is not None:
        # As of images that are streamed, which torch cannot average.
        mean, std = moments(counts_of(train.numpy()))
        digests = PixelDigests(train_digests, test_digests, mean, std)
    train, test = (x if x.is_floating_point() else x.float().div_(255) for x in (train, test))
    if digests is None:
        mean, std = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    train, test = train.sub_(mean).div_(std), test.sub_(mean).div_(std)
    return Images(train, train_labels, test, test_labels, class_names, mean, std, long_tailed, digests)


def _streamed(data: ImageSet, train: EncodedImages, test: EncodedImages, reading: Reading) -> Images:
    """The images in their files, standardized when they are decoded."""
    if reading.outline:
        digests = None
        mean = torch.zeros(1, train.size[0], 1, 1, dtype=torch.float32, device="cpu")
        std = torch.ones_like(mean)
    else:
        digests = survey(train, test, reading.folder, reading.workers, progress=reading.progress)
        _, _, mean, std = digests
        train, test = train.with_digests(digests.train), test.with_digests(digests.test)
    own, other = (StreamedImages(images, mean, std, reading.workers) for images in (train, test))
    return Images(
        own, data.train.labels, other, data.test.labels, data.class_names, mean, std, data.long_tailed, digests
    )
