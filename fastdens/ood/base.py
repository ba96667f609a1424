"""What the detectors share: checks of features, scoring block by block, saved states."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.arrays import as_points
from fastdens.batch import RaggedBatch
from fastdens.errors import NotFittedError
from fastdens.io.expected import check_tensors
from fastdens.io.state_file import write_state
from fastdens.kernels.surroundings import Undisturbed
from fastdens.mixtures.base import Constraint, one_of
from fastdens.mixtures.failures import Failures, failures_of, non_finite, raise_failures
from fastdens.mixtures.partition import Partition

# The kind of the files.
DETECTOR = "detector"

_BLOCK_ELEMENTS = 1 << 22


class SavedDetector(Undisturbed, ABC):
    """Detectors as tensors and metadata: saved in files, and moved to other devices."""

    @abstractmethod
    def get_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that a fitted detector knows, as tensors and metadata.

        Returns
        -------
        (dict of str to Tensor, dict)
            What :meth:`from_state` takes; the metadata are what JSON can hold.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """

    @classmethod
    @abstractmethod
    def from_state(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], where: str = "the state") -> Self:
        """The fitted detector of a state that :meth:`get_state` returned.

        Parameters
        ----------
        tensors, metadata : mapping
            The two parts of the state.
        where : str
            A name for messages, such as that of a file.

        Returns
        -------
        Detector or LayeredDetector
            Of the class on which the method is called.

        Raises
        ------
        ValueError
            If something is missing, or the tensors are not those of such a detector.
        """

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the fitted detector to one safetensors file; :func:`fastdens.ood.load` reads it.

        Parameters
        ----------
        path : path-like
            The file to write.
        overwrite : bool
            Replace a file of that name.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        FileExistsError
            If ``path`` exists and ``overwrite`` is False.
        ImportError
            If safetensors is missing.
        """
        write_state(path, DETECTOR, *self.get_state(), overwrite=overwrite)

    def to(self, device: torch.device | str) -> Self:
        """Copy the fitted detector to a device.

        Parameters
        ----------
        device : torch.device or str
            Where the tensors of the copy go.

        Returns
        -------
        Detector or LayeredDetector
            The copy; the detector itself stays where it is.
        """
        tensors, metadata = self.get_state()
        return self.from_state({name: tensor.to(device) for name, tensor in tensors.items()}, metadata)

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return list(inspect.signature(cls.__init__).parameters)[1:]

    def __repr__(self) -> str:
        parameters = (f"{name}={getattr(self, name)!r}" for name in self._parameter_names())
        return f"{type(self).__name__}({', '.join(parameters)})"


class Detector(SavedDetector):
    """Base of the detectors of one layer: ``fit(x, y)``, then ``score(x)``, larger for what is out of distribution.

    A subclass keeps its parameters in attributes of their names and declares in ``_parameter_constraints`` what they
    may be.

    Attributes
    ----------
    classes_ : tuple
        The labels of the training examples, each once, sorted.
    failures_ : dict of int to str
        Why, for each class that could not be fitted.
    """

    _parameter_constraints: ClassVar[dict[str, Constraint]] = {"on_error": one_of(("raise", "skip"))}
    # Whether ``fit`` can do without labels.
    _needs_labels: ClassVar[bool] = True

    on_error: str
    classes_: tuple[Hashable, ...]
    failures_: Failures

    @abstractmethod
    def _fit(self, batch: RaggedBatch) -> None:
        """Fit to the points of the classes, and set ``failures_``."""

    @abstractmethod
    def _score(self, points: Tensor) -> Tensor:
        """Scores [n] of finite points [n, D], in any dtype."""

    @property
    @abstractmethod
    def _fitted_features(self) -> tuple[int, torch.device]:
        """D and the device of what was fitted."""

    @property
    @abstractmethod
    def _row_elements(self) -> int:
        """Numbers that scoring a point takes."""

    @abstractmethod
    def _fitted_tensors(self) -> dict[str, Tensor]:
        """Tensors of the fit, for :meth:`get_state`."""

    @abstractmethod
    def _expected_tensors(self) -> dict[str, str]:
        """Kinds and shapes of :meth:`_fitted_tensors`, as :func:`~fastdens.io.expected.check_tensors` takes them."""

    @abstractmethod
    def _set_fitted_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`_fitted_tensors` gave."""

    def fit(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor | None = None, *, layer: str | None = None) -> Self:
        """Fit to features of training examples.

        Parameters
        ----------
        x : array or Tensor
            [N, D].
        y : array or Tensor
            [N] labels of any kind, as for :meth:`fastdens.RaggedBatch.from_labels`.
        layer : str, optional
            Name of the layer, for messages.

        Returns
        -------
        Detector
            Itself.

        Raises
        ------
        ModelError
            If a class holds NaN or infinity or cannot be fitted, and ``on_error`` is "raise"; or if no class can.
        TypeError, ValueError
            If a parameter is invalid, there is not one label for each row, or there are too few examples.
        """
        for name, constraint in self._parameter_constraints.items():
            constraint(name, getattr(self, name))
        if y is None:
            if self._needs_labels:
                raise ValueError(f"{type(self).__name__} is fitted to classes, but y is None: pass fit(x, labels).")
            x = as_points(x)
            y = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        batch = RaggedBatch.from_labels(x, y, layer=layer)
        self._fit(batch)
        self.classes_ = batch.classes
        return self

    def score(self, x: ArrayLike | Tensor) -> Tensor:
        """How far out of distribution each example is.

        Parameters
        ----------
        x : array or Tensor
            [N, D], features on the device of the fit.

        Returns
        -------
        Tensor
            [N], in the dtype of the features; larger is further out.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If D or the device differ from those of the fit; or if a row holds NaN or infinity and ``on_error`` is
            "raise": with "skip" its score is NaN.
        """
        self._check_fitted()
        points = as_points(x)
        n_features, device = self._fitted_features
        if points.shape[1] != n_features:
            raise ValueError(
                f"x has {points.shape[1]} features, but the detector was fitted to {n_features}: pass the same layer."
            )
        if points.device != device:
            raise ValueError(
                f"x is on {points.device} and the detector on {device}: move x with x.to({str(device)!r}), or the "
                "detector with detector.to(device)."
            )
        bad = ~torch.isfinite(points).all(1)
        if bool(bad.any()):
            if self.on_error == "raise":
                raise ValueError(
                    f"row {int(bad.long().argmax())} of x has NaN or infinity, as have {int(bad.sum())} of {len(bad)} "
                    "rows: leave such rows out; on_error='skip' scores them NaN."
                )
            points = torch.where(bad[:, None], 0.0, points)
        scores = points.new_empty(len(points))
        step = max(1, _BLOCK_ELEMENTS // self._row_elements)
        for begin in range(0, len(points), step):
            scores[begin : begin + step] = self._score(points[begin : begin + step])
        return scores.masked_fill_(bad, float("nan"))

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise NotFittedError(self, "fit(x, y)")

    def _partition(self, batch: RaggedBatch) -> Partition:
        """The classes to fit; raises if some cannot be fitted and ``on_error`` is "raise", or if none can."""
        failures = failures_of(batch, non_finite)
        if self.on_error == "raise" or len(failures) == batch.n_models:
            raise_failures(batch, failures, "on_error='skip' fits all other classes, if there are any")
        return Partition.of(batch, failures)

    def get_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:  # noqa: D102
        self._check_fitted()
        metadata = {
            "detector": type(self).__name__,
            "parameters": self._saved_parameters(),
            "classes": [c if isinstance(c, bool | int | float | str) else str(c) for c in self.classes_],
            "failures": {str(m): reason for m, reason in self.failures_.items()},
        }
        return self._fitted_tensors(), metadata

    def _saved_parameters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._parameter_names()}

    @classmethod
    def from_state(  # noqa: D102
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], where: str = "the state"
    ) -> Self:
        try:
            detector = cls(**metadata["parameters"])
            for name, constraint in cls._parameter_constraints.items():
                constraint(name, getattr(detector, name))
            detector.classes_ = tuple(metadata["classes"])
            detector.failures_ = {int(m): str(reason) for m, reason in metadata["failures"].items()}
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(f"{where} has no parameters of {cls.__name__} ({reason}): save it again.") from None
        check_tensors(where, tensors, detector._expected_tensors(), C=len(detector.classes_))
        detector._set_fitted_tensors(tensors)
        return detector
