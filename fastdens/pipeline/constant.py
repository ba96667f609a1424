"""Classes and projected dimensions that do not vary, and that no density can be fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import fastdens as fd
from fastdens.distributions.niw import constant_features, rounding_of
from fastdens.pipeline.activation_sources import Features
from fastdens.pipeline.data import AnalysisData

_ROWS = 4096

ArrayT = TypeVar("ArrayT", NDArray[np.float64], NDArray[np.bool_])


class Projection(NamedTuple):
    """A projection without the dimensions that do not vary within some class.

    Attributes
    ----------
    components : Tensor
        [K, n_features], of the uncentred singular value decomposition.
    energy : Tensor
        float64 [K], the share of each component in the sum of squares.
    kept : Tensor
        int64 [D], the components that vary within every class.
    constant : Tensor
        bool [M], the classes within which others do not.
    """

    components: Tensor
    energy: Tensor
    kept: Tensor
    constant: Tensor

    @property
    def explained(self) -> float:
        """Share of the squares that the projection keeps."""
        return float(self.energy[self.kept].sum())

    @property
    def n_left_out(self) -> int:
        """Dimensions that were left out."""
        return len(self.energy) - len(self.kept)

    def transform(self, features: Tensor) -> Tensor:
        """Projected activations, [N, D]."""
        svd = fd.reduction.UncentredSVD(len(self.components))
        svd.components_ = self.components
        return svd.transform(features)[:, self.kept]


def project(
    features: Tensor, labels: NDArray[np.int64], class_names: tuple[str, ...], layer: str, n_dimensions: int
) -> tuple[Projection, Tensor]:
    """Project the activations of a layer onto dimensions that vary within every class.

    In a dimension that does not vary within a class its density is infinite, and so cannot be compared with those of
    other classes: the dimension is left out for all.

    Parameters
    ----------
    features : Tensor
        [N, n_features].
    labels : ndarray
        int64 [N].
    class_names : tuple of str
    layer : str
        Named in messages.
    n_dimensions : int

    Returns
    -------
    Projection
    Tensor
        [N, D], the projected activations.

    Raises
    ------
    ValueError
        If no dimension varies within every class.
    """
    svd = fd.reduction.UncentredSVD(n_dimensions)
    points = svd.fit_transform(features)
    batch = fd.RaggedBatch.from_labels(points, torch.from_numpy(labels), n_classes=len(class_names), layer=layer)
    constant = constant_features(batch.points, batch.layout)
    kept = torch.nonzero(~constant.any(0))[:, 0]
    projection = Projection(svd.components_, svd.explained_energy_ratio_, kept, constant.any(1))
    if not len(kept):
        name = class_names[int(constant.sum(1).argmax())]
        raise ValueError(
            f"no dimension of the projected activations of {layer} varies within every class, least within class "
            f"{name!r}: leave that class out of the data, or raise dimensions."
        )
    return projection, points if len(kept) == points.shape[1] else points[:, kept]


def without_constant_classes(data: AnalysisData, n_dimensions: Mapping[str, int]) -> AnalysisData:
    """The data without classes whose activations hardly vary at some layer.

    They are those that vary in fewer than half as many features as the layer is projected to dimensions.

    Parameters
    ----------
    data : AnalysisData
    n_dimensions : mapping of str to int
        Of each layer.

    Raises
    ------
    ValueError
        If there is such a class and the networks were trained here, on its images too; or if no two classes are left.
    """
    names, labels = data.examples.class_names, data.examples.labels
    where: dict[int, str] = {}
    for layer, features in data.train.items():
        enough = (n_dimensions[layer] + 1) // 2
        n_varying = _varying_features(features, labels, len(names), enough)
        where.update(dict.fromkeys(np.flatnonzero(n_varying < enough).tolist(), layer))
    if not where:
        return data
    constant = np.isin(np.arange(len(names)), list(where))
    first = min(where)
    problem = f"the activations of class {names[first]!r} at {where[first]} are all alike, but for a few features"
    if data.experiment is not None:
        raise ValueError(f"{problem}, so that it has no density: train for more epochs, or leave out that layer.")
    if (~constant).sum() < 2:
        raise ValueError(f"{problem}, and no two classes are left: check the activations.")
    return _without(data, constant)


def _varying_features(features: Tensor, labels: NDArray[np.int64], n_classes: int, enough: int) -> NDArray[np.int64]:
    """In how many features the examples of each class differ, but for rounding, int64 [M]; not counted beyond enough.

    A class without examples has enough.
    """
    present, first = np.unique(labels, return_index=True)
    reference = torch.zeros(n_classes, features.shape[1], dtype=torch.float64, device="cpu")
    reference[present] = features[first].double()
    rounding = rounding_of(reference, features.dtype)
    varies = torch.zeros(n_classes, features.shape[1], dtype=torch.int32, device="cpu")
    found = np.full(n_classes, enough)
    found[present] = 0
    for begin in range(0, len(features), _ROWS):
        own = labels[begin : begin + _ROWS]
        # A class that is known to vary needs no more looks.
        rows = np.flatnonzero(found[own] < enough)
        if len(rows):
            at = torch.from_numpy(own[rows])
            # Nothing is equal to NaN.
            alike = (features[begin : begin + _ROWS][rows].double() - reference[at]).abs() <= rounding[at]
            varies.index_add_(0, at, (~alike).int())
            found[present] = (varies > 0).sum(1).numpy()[present]
    return found


def _without(data: AnalysisData, left_out: NDArray[np.bool_]) -> AnalysisData:
    """The data without some classes, bool [M]; the others are numbered anew."""
    examples = data.examples
    new = np.where(left_out, -1, np.cumsum(~left_out) - 1)
    train = ~left_out[examples.labels]
    test = None if examples.test_labels is None else ~left_out[examples.test_labels]

    def of(rows: NDArray[np.bool_], values: ArrayT | None) -> ArrayT | None:
        return None if values is None else values[rows]

    def rows_of(features: Features, rows: NDArray[np.bool_]) -> Features:
        return {layer: own[torch.from_numpy(rows)] for layer, own in features.items()}

    scores = data.scores
    if scores is not None:
        scores = replace(scores, values=scores.values[train], standard_error=of(train, scores.standard_error))
    return replace(
        data,
        examples=replace(
            examples,
            class_names=tuple(name for name, out in zip(examples.class_names, left_out, strict=True) if not out),
            labels=new[examples.labels[train]],
            test_labels=None if examples.test_labels is None else new[examples.test_labels[test]],
            flipped=of(train, examples.flipped),
            true_labels=None if examples.true_labels is None else new[examples.true_labels[train]],
            long_tailed=of(~left_out, examples.long_tailed),
            train_predicted=None if examples.train_predicted is None else new[examples.train_predicted[train]],
            test_predicted=None if examples.test_predicted is None else new[examples.test_predicted[test]],
            left_out_classes=tuple(np.array(examples.class_names)[left_out].tolist()),
        ),
        train=rows_of(data.train, train),
        test=None if data.test is None or test is None else rows_of(data.test, test),
        scores=scores,
        other_networks=tuple(rows_of(features, train) for features in data.other_networks),
        images=None if data.images is None else data.images[torch.from_numpy(train)],
    )
