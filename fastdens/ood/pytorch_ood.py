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
        What scores the features.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> from pytorch_ood.metrics import OODMetrics
    >>> encoder, labels = torch.nn.Linear(3, 4), torch.arange(60) % 2
    >>> train = [(torch.randn(60, 3) + 5 * labels[:, None], labels)]
    >>> detector = fd.ood.pytorch_ood.Detector(encoder, fd.ood.Mahalanobis()).fit(train)
    >>> metrics = OODMetrics()
    >>> x, y = torch.tensor([[0.0, 0.0, 0.0], [90.0, 0.0, 0.0]]), torch.tensor([0, -1])  # The second is an outlier.
    >>> float(metrics.update(detector(x), y).compute()["AUROC"])
    1.0
    """

    requires_fit = True
    info = DetectorInfo(tasks={Task.CLASSIFICATION})

    def __init__(self, encoder: Callable[[Tensor], Tensor] | None, detector: base.Detector) -> None:
        self.encoder = encoder
        self.detector = detector

    def fit(self, data_loader: Iterable[Any]) -> Self:
        """Fit to the features of what a loader yields.

        Parameters
        ----------
        data_loader : iterable
            Batches ``(x, y)``.

        Returns
        -------
        Detector
            Itself.
        """
        device = self.device or torch.device("cpu")
        return self.fit_features(*extract_features(data_loader, self._encoder(), device))

    def fit_features(self, z: Tensor, y: Tensor) -> Self:
        """Fit to features.

        Parameters
        ----------
        z : Tensor
            [N, D].
        y : Tensor
            Integers [N]; examples with negative ones are left out.

        Returns
        -------
        Detector
            Itself.
        """
        known = is_known(y)
        self.detector.fit(z[known.to(z.device)], y[known])
        return self

    def predict(self, x: Tensor) -> Tensor:
        """Score inputs.

        Parameters
        ----------
        x : Tensor
            [B, ...], what the encoder takes.

        Returns
        -------
        Tensor
            [B], larger for what is out of distribution.
        """
        encoder = self._encoder()
        with torch.no_grad():
            return self.predict_features(encoder(x if self.device is None else x.to(self.device)))

    def predict_features(self, z: Tensor) -> Tensor:
        """Score features.

        Parameters
        ----------
        z : Tensor
            [B, D], or with more axes, which are flattened.

        Returns
        -------
        Tensor
            [B], larger for what is out of distribution.
        """
        return _scores(self.detector, z.detach().flatten(1))

    def to(self, device: torch.device | str) -> Self:
        """Move the encoder and what was fitted to a device.

        Parameters
        ----------
        device : torch.device or str
            Where they go.

        Returns
        -------
        Detector
            Itself.
        """
        super().to(device)
        self.detector = _moved(self.detector, device)
        return self

    def get_hyperparameters(self) -> dict[str, Any]:
        """Values of the parameters in ``hyperparameter_space``, those of the detector.

        Returns
        -------
        dict of str to object
            The value of each parameter, by name.
        """
        return {name: getattr(self.detector, name) for name in self.hyperparameter_space}

    def set_hyperparameters(self, **parameters: Any) -> Self:
        """Set parameters of the detector that are in ``hyperparameter_space``, for ``pytorch_ood.utils.GridSearch``.

        Parameters
        ----------
        **parameters : object
            New values, by name.

        Returns
        -------
        Detector
            Itself.

        Raises
        ------
        ValueError
            If the detector has no such parameter, or it is not in ``hyperparameter_space``.
        """
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
        Any network, as for :func:`fastdens.activations.extract`.
    layers : sequence of str
        Names of its modules, as for :func:`fastdens.activations.extract`.
    detector : fastdens.ood.LayeredDetector
        Combined by "mean" or "max", for a loader to ``fit`` holds no outliers.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    >>> train = [(torch.randn(200, 3), torch.arange(200) % 2)]
    >>> both = fd.ood.LayeredDetector(fd.ood.NearestNeighbours(k=3))
    >>> detector = fd.ood.pytorch_ood.LayeredDetector(model, ["0", "2"], both).fit(train)
    >>> scores = detector(torch.tensor([[0.0, 0.0, 0.0], [90.0, 0.0, 0.0]]))
    >>> bool(scores[1] > scores[0])
    True
    """

    requires_fit = True
    info = DetectorInfo(tasks={Task.CLASSIFICATION})

    def __init__(self, model: nn.Module, layers: Sequence[str], detector: layered.LayeredDetector) -> None:
        self.model = model
        self.layers = list(layers)
        self.detector = detector

    def fit(self, data_loader: Iterable[Any]) -> Self:
        """Fit to the activations of what a loader yields.

        Parameters
        ----------
        data_loader : iterable
            Batches ``(x, y)``; examples with negative labels are left out.

        Returns
        -------
        LayeredDetector
            Itself.
        """
        known = ((x[mask], y[mask]) for x, y in data_loader for mask in (is_known(y),) if bool(mask.any()))
        self.detector.fit(self._activations(known))
        return self

    def predict(self, x: Tensor) -> Tensor:
        """Score inputs.

        Parameters
        ----------
        x : Tensor
            [B, ...], what the model takes.

        Returns
        -------
        Tensor
            [B], larger for what is out of distribution.
        """
        return _scores(self.detector, self._activations([x]))

    def to(self, device: torch.device | str) -> Self:
        """Move the model; features and what is fitted to them stay in main memory.

        Parameters
        ----------
        device : torch.device or str
            Where the model goes.

        Returns
        -------
        LayeredDetector
            Itself.
        """
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
