"""The detectors as detectors of pytorch-ood, for its metrics, benchmarks and searches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from fastdens.activations import Activations, extract, model_device
from fastdens.errors import NotFittedError
from fastdens.kernels.optional import require
from fastdens.ood import base, layered

require("pytorch_ood", "fd.ood.pytorch_ood", "ood")

from pytorch_ood.api import (  # noqa: E402
    DetectorInfo,
    FeaturesDetector,
    ModelNotSetException,
    RequiresFittingException,
    StructuredDetector,
    Task,
)
from pytorch_ood.utils import extract_features, is_known  # noqa: E402


class Detector(FeaturesDetector):  # type: ignore[misc]
    """A detector of one layer with the interface of ``pytorch_ood.api.FeaturesDetector``.

    Examples with negative labels, which are out of distribution to pytorch-ood, take no part in ``fit``.

    Parameters
    ----------
    encoder : callable or None
        From inputs to features [B, D], or to more axes, which are flattened. None where there are features alone:
        ``fit_features`` and ``predict_features``.
    detector : fastdens.ood.Detector

    Examples
    --------
    >>> detector = fd.ood.pytorch_ood.Detector(encoder, fd.ood.Mahalanobis()).fit(train_loader)
    >>> metrics = pytorch_ood.metrics.OODMetrics()
    >>> for x, y in test_loader:
    ...     metrics.update(detector(x), y)
    """

    requires_fit = True
    info = DetectorInfo(tasks={Task.CLASSIFICATION})

    def __init__(self, encoder: Callable[[Tensor], Tensor] | None, detector: base.Detector) -> None:
        self.encoder = encoder
        self.detector = detector

    def fit(self, data_loader: Iterable[Any]) -> Self:
        """Fit to the features of what a loader yields, batches ``(x, y)``."""
        device = self.device or torch.device("cpu")
        return self.fit_features(*extract_features(data_loader, self._encoder(), device))

    def fit_features(self, z: Tensor, y: Tensor) -> Self:
        """Fit to features [N, D] with labels [N]."""
        known = is_known(y)
        self.detector.fit(z[known.to(z.device)], y[known])
        return self

    def predict(self, x: Tensor) -> Tensor:
        """Scores [B] of inputs, larger for what is out of distribution."""
        encoder = self._encoder()
        with torch.no_grad():
            return self.predict_features(encoder(x if self.device is None else x.to(self.device)))

    def predict_features(self, z: Tensor) -> Tensor:
        """Scores [B] of features [B, D]."""
        return _scores(self.detector, z.detach().flatten(1))

    def to(self, device: torch.device | str) -> Self:
        """Move the encoder and what was fitted to a device."""
        super().to(device)
        self.detector = _moved(self.detector, device)
        return self

    def get_hyperparameters(self) -> dict[str, Any]:
        """Values of the parameters in ``hyperparameter_space``, those of the detector."""
        return {name: getattr(self.detector, name) for name in self.hyperparameter_space}

    def set_hyperparameters(self, **parameters: Any) -> Self:
        """Set parameters of the detector that are in ``hyperparameter_space``, for ``pytorch_ood.utils.GridSearch``."""
        for name, value in parameters.items():
            if name not in self.hyperparameter_space or not hasattr(self.detector, name):
                raise ValueError(f"{name!r} is no parameter of {self.detector} in the search: choose one of its own.")
            setattr(self.detector, name, value)
        return self

    def _encoder(self) -> Callable[[Tensor], Tensor]:
        if self.encoder is None:
            raise ModelNotSetException
        return self.encoder


class LayeredDetector(StructuredDetector):  # type: ignore[misc]
    """A detector of several layers with the interface of ``pytorch_ood.api.StructuredDetector``.

    Parameters
    ----------
    model : torch.nn.Module
    layers : sequence of str
        Names of its modules, as for :func:`fastdens.activations.extract`.
    detector : fastdens.ood.LayeredDetector
        Combined by "mean" or "max", for a loader to ``fit`` holds no outliers.
    """

    requires_fit = True
    info = DetectorInfo(tasks={Task.CLASSIFICATION})

    def __init__(self, model: nn.Module, layers: Sequence[str], detector: layered.LayeredDetector) -> None:
        self.model = model
        self.layers = list(layers)
        self.detector = detector

    def fit(self, data_loader: Iterable[Any]) -> Self:
        """Fit to the activations of what a loader yields, batches ``(x, y)``."""
        known = ((x[mask], y[mask]) for x, y in data_loader for mask in (is_known(y),) if bool(mask.any()))
        self.detector.fit(self._activations(known))
        return self

    def predict(self, x: Tensor) -> Tensor:
        """Scores [B] of inputs, larger for what is out of distribution."""
        return _scores(self.detector, self._activations([x]))

    def to(self, device: torch.device | str) -> Self:
        """Move the model; features and what is fitted to them stay in main memory."""
        super().to(device)
        return self

    def _activations(self, batches: Iterable[Any]) -> Activations:
        return extract(self.model, batches, self.layers, device=model_device(self.model), progress=False)


def _scores(detector: Any, features: Any) -> Tensor:
    try:
        scores: Tensor = detector.score(features)
    except NotFittedError:
        raise RequiresFittingException from None
    return scores


def _moved(detector: base.Detector, device: torch.device | str) -> base.Detector:
    """The detector on a device; one that is not fitted is nowhere yet."""
    try:
        return detector.to(device)
    except NotFittedError:
        return detector
