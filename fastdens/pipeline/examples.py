"""What is known of the examples that an analysis is about, and pictures of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Examples:
    """Labels, predictions and other facts about the examples; unknown ones are None.

    Attributes
    ----------
    class_names : tuple of str
        Names of the M classes.
    labels : ndarray
        int64 [N], the label that each training example was given.
    test_labels : ndarray or None
        int64 [T], labels of the test examples.
    true_labels : ndarray or None
        int64 [N], labels of the training examples before any were flipped.
    flipped : ndarray or None
        bool [N], which labels were flipped.
    long_tailed : ndarray or None
        bool [M], which classes come from a long tail.
    train_predicted, test_predicted : ndarray or None
        int64 [N] and [T], the labels that the network predicts; these and true labels are -1 where their class was
        left out.
    left_out_classes : tuple of str
        Names of classes that are no part of the M, since their examples differ in too few features at a layer.
    """

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    test_labels: NDArray[np.int64] | None = None
    true_labels: NDArray[np.int64] | None = None
    flipped: NDArray[np.bool_] | None = None
    long_tailed: NDArray[np.bool_] | None = None
    train_predicted: NDArray[np.int64] | None = None
    test_predicted: NDArray[np.int64] | None = None
    left_out_classes: tuple[str, ...] = ()

    def name_of(self, label: int) -> str:
        """Name of the class of a label.

        Parameters
        ----------
        label : int
            From 0, or -1, which the label of a class that was left out has become.

        Returns
        -------
        str
            A dash for -1.
        """
        return self.class_names[label] if label >= 0 else "–"

    @property
    def test_accuracy(self) -> float | None:
        """Share of the test examples whose label the network predicts, None if unknown."""
        if self.test_predicted is None or self.test_labels is None:
            return None
        return float((self.test_predicted == self.test_labels).mean())


@dataclass(frozen=True)
class ExamplePictures:
    """Small pictures of some training examples.

    Attributes
    ----------
    examples : ndarray
        int64 [E], the examples, in increasing order.
    images : ndarray
        uint8 [E, channels, height, width], grey or RGB.
    """

    examples: NDArray[np.int64]
    images: NDArray[np.uint8]
