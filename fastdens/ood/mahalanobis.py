"""Distances to class means under the covariance that the classes share, plain and relative to all classes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.errors import check_non_negative
from fastdens.mixtures.covariances import TIED_ACROSS_MODELS, check_shrinkage
from fastdens.mixtures.failures import raise_failures
from fastdens.mixtures.gaussian import GaussianMixtures
from fastdens.ood.base import Detector
from fastdens.ood.whitened_means import WhitenedMeans, squared_distances, whiten


class Mahalanobis(Detector):
    """Squared Mahalanobis distance to the nearest class mean: ``min_c (x - m_c)' Sigma^-1 (x - m_c)``.

    Sigma is the covariance that all classes share, of the points about their class means with divisor N. Everything is
    computed in float64; scores come in the dtype of the features.

    Parameters
    ----------
    shrinkage : None, float from 0 to 1, "ledoit_wolf" or "oas"
        Towards a multiple of the identity, as of :class:`~fastdens.GaussianMixtures`: for layers that have no more
        examples than dimensions, or nearly so.
    reg_covar : float
        Added to the diagonal of the covariance.
    on_error : {"raise", "skip"}
        "raise" names classes that hold NaN or infinity in a :class:`~fastdens.ModelError`. "skip" fits all others,
        notes those in ``failures_``, and scores features with NaN or infinity NaN.

    Attributes
    ----------
    means_ : Tensor
        float64 [C, D]; NaN for a failed class.
    covariance_, precision_cholesky_ : Tensor
        float64 [D, D]. ``precision = U U'``, U upper triangular.
    classes_ : tuple
        The class of each mean.
    failures_ : dict of int to str
        Why, for each class that failed.

    References
    ----------
    Lee, Lee, Lee & Shin, A simple unified framework for detecting out-of-distribution samples and adversarial attacks,
    NeurIPS 2018.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> x, y = torch.randn(1000, 8), torch.arange(1000) % 10
    >>> fd.ood.Mahalanobis().fit(x, y).score(torch.randn(5, 8) + 10).shape
    torch.Size([5])
    """

    _parameter_constraints: ClassVar = {
        "shrinkage": check_shrinkage,
        "reg_covar": check_non_negative,
        **Detector._parameter_constraints,
    }

    shrinkage: str | float | None
    reg_covar: float

    means_: Tensor
    covariance_: Tensor
    precision_cholesky_: Tensor

    _classes: WhitenedMeans

    def __init__(
        self, *, shrinkage: str | float | None = None, reg_covar: float = 1e-6, on_error: str = "raise"
    ) -> None:
        self.shrinkage = shrinkage
        self.reg_covar = reg_covar
        self.on_error = on_error

    def _fit(self, batch: RaggedBatch) -> None:
        fitted = self._fitted_gaussians(batch)
        self.means_ = fitted.means_[:, 0]
        self.covariance_, self.precision_cholesky_ = fitted.covariances_, fitted.precisions_cholesky_
        self.failures_ = fitted.failures_
        self._whiten()

    def _fitted_gaussians(self, batch: RaggedBatch) -> GaussianMixtures:
        """A Gaussian for each model of the batch, all of one covariance, in float64."""
        if batch.n_points == batch.n_models:
            where = "x" if batch.layer is None else f"layer {batch.layer!r}"
            raise ValueError(
                f"{where} has one point in each class, but a covariance needs differences within classes: add points."
            )
        fitted = GaussianMixtures(
            covariance_type=TIED_ACROSS_MODELS,
            shrinkage=self.shrinkage,
            reg_covar=self.reg_covar,
            on_error=self.on_error,
            dtype=torch.float64,
        ).fit(batch)
        if bool(fitted.failed_.all()):
            raise_failures(batch, fitted.failures_, "at least one class must be fitted")
        return fitted

    def _whiten(self) -> None:
        """Precompute what scoring takes of the means."""
        self._classes = whiten(self.means_[~self.means_.isnan().any(1)], self.precision_cholesky_)

    def _score(self, points: Tensor) -> Tensor:
        return squared_distances(points, self._classes).amin(1)

    @property
    def _fitted_features(self) -> tuple[int, torch.device]:
        return self.means_.shape[1], self.means_.device

    @property
    def _row_elements(self) -> int:
        return sum(self.means_.shape)

    def _fitted_tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self._expected_tensors()}

    def _expected_tensors(self) -> dict[str, str]:
        return {"means_": "float C D", "covariance_": "float D D", "precision_cholesky_": "float D D"}

    def _set_fitted_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        for name in self._expected_tensors():
            setattr(self, name, tensors[name])
        self._whiten()


class RelativeMahalanobis(Mahalanobis):
    """Squared Mahalanobis distance to the nearest class mean, less that to the mean of all classes.

    ``min_c (x - m_c)' Sigma^-1 (x - m_c) - (x - m)' Sigma_0^-1 (x - m)``, where m and Sigma_0 are the mean and the
    covariance of all training points, whatever their class. Directions in which classes do not differ cancel.

    Parameters
    ----------
    shrinkage, reg_covar : optional
        As of :class:`Mahalanobis`, for both covariances.
    on_error : {"raise", "skip"}
        As of :class:`Mahalanobis`.

    Attributes
    ----------
    background_mean_, background_covariance_, background_precision_cholesky_ : Tensor
        float64 [1, D], [D, D] and [D, D], of all points together.
    means_, covariance_, precision_cholesky_, classes_, failures_
        As of :class:`Mahalanobis`.

    References
    ----------
    Ren, Fort, Liu, Roy, Padhy & Lakshminarayanan, A simple fix to Mahalanobis distance for improving near-OOD
    detection, arXiv 2106.09022, 2021.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> x, y = torch.randn(200, 4), torch.arange(200) % 2
    >>> x[:, 0] += 9 * y  # The classes differ in the first feature alone.
    >>> detector = fd.ood.RelativeMahalanobis().fit(x, y)
    >>> scores = detector.score(torch.tensor([[4.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    >>> bool(scores[0] > scores[1])
    True
    """

    background_mean_: Tensor
    background_covariance_: Tensor
    background_precision_cholesky_: Tensor

    _background: WhitenedMeans

    def _fit(self, batch: RaggedBatch) -> None:
        everything = RaggedBatch.from_list([self._partition(batch).batch.points], layer=batch.layer)
        background = self._fitted_gaussians(everything)
        self.background_mean_ = background.means_[:, 0]
        self.background_covariance_ = background.covariances_
        self.background_precision_cholesky_ = background.precisions_cholesky_
        super()._fit(batch)

    def _whiten(self) -> None:
        super()._whiten()
        self._background = whiten(self.background_mean_, self.background_precision_cholesky_)

    def _score(self, points: Tensor) -> Tensor:
        return super()._score(points) - squared_distances(points, self._background)[:, 0]

    def _expected_tensors(self) -> dict[str, str]:
        matrices = dict.fromkeys(("background_covariance_", "background_precision_cholesky_"), "float D D")
        return {**super()._expected_tensors(), "background_mean_": "float 1 D", **matrices}
