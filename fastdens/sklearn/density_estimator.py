"""What the density estimators share: data in, log-densities and samples out."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from fastdens.arrays import array_of, tensor_of
from fastdens.batch import RaggedBatch
from fastdens.mixtures.base import BaseMixtures
from fastdens.sklearn.conversion import DTYPES, seed_of, weighted


class DensityEstimator(DensityMixin, BaseEstimator, metaclass=ABCMeta):
    """Base of the estimators of one density.

    A subclass makes the estimator of batches that does the work, in :meth:`mixtures`, and fits it to a batch of one
    model.
    """

    random_state: Any

    @abstractmethod
    def mixtures(self, **options: Any) -> BaseMixtures:
        """An estimator of batches with these parameters, and ``options`` beside."""

    @abstractmethod
    def _log_density(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each point of a batch of one model, [N]."""

    @abstractmethod
    def _drawn(self, n_samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points [n, D] of the fitted density, and the component of each, int64 [n]."""

    @property
    @abstractmethod
    def _dtype(self) -> np.dtype[Any]:
        """Of the fitted density."""

    def _points(self, X: ArrayLike) -> RaggedBatch:
        """``X`` as a batch of one model in the dtype of the fitted density, checked to have the features of the fit."""
        check_is_fitted(self)
        points = validate_data(self, X, dtype=self._dtype, reset=False)
        return RaggedBatch.from_list([tensor_of(points)])

    def score_samples(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Log-density of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,)
            In nats.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If ``X`` has other features than the data of the fit, or holds NaN or infinity.
        """
        return array_of(self._log_density(self._points(X)))

    def score(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Mean log-density of samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.
        y : ignored
            There for pipelines and searches.
        sample_weight : array-like of shape (n_samples,), optional
            By default all samples weigh the same.

        Returns
        -------
        float
            In nats.

        Raises
        ------
        NotFittedError, ValueError
            As :meth:`score_samples`; if a weight is negative, NaN or infinite, or all are zero.
        """
        batch = weighted(self._points(X), sample_weight)
        log_density = self._log_density(batch).double()
        if batch.weights is None:
            return float(log_density.mean())
        # A point without weight is absent, whatever its density.
        counted = torch.where(batch.weights > 0, batch.weights * log_density, 0.0)
        return float(counted.sum() / batch.weights.sum())

    def sample(self, n_samples: int = 1) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
        """Draw points from the density, ordered by their components.

        The same ones in every call if ``random_state`` is an integer, as in scikit-learn.

        Parameters
        ----------
        n_samples : int
            Points to draw, at least 1.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The points.
        y : ndarray of shape (n_samples,)
            The component of each point.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If ``n_samples`` is less than 1.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples}. Sampling needs at least one sample.")
        generator = torch.Generator().manual_seed(seed_of(self.random_state))
        points, components = self._drawn(n_samples, generator)
        order = components.argsort(stable=True)
        return array_of(points[order]), array_of(components[order])

    def _points_to_fit(self, X: ArrayLike) -> RaggedBatch:
        """``X`` as a batch of one model to fit, whose features are those of later data."""
        points = validate_data(self, X, dtype=DTYPES, ensure_min_samples=2)
        return RaggedBatch.from_list([tensor_of(points)])
