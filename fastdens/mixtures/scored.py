"""What estimators of finite mixtures say about points, from the responsibilities of their densities."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.arrays import as_points
from fastdens.batch import RaggedBatch
from fastdens.errors import check_integer
from fastdens.mixtures.base import BaseMixtures


class Responsibilities(Protocol):
    """Responsibilities [N, K] and log-densities [N] of points under their own models."""

    @property
    def resp(self) -> Tensor:
        """[N, K]."""

    @property
    def log_prob_norm(self) -> Tensor:
        """[N]."""


class ScoredMixtures(BaseMixtures):
    """Base of estimators of mixtures of K components.

    A subclass has a density with a method ``responsibilities(batch)``, and says how many parameters its models have.
    """

    means_: Tensor

    def _in_dtype(self, batch: RaggedBatch) -> RaggedBatch:
        return batch if self.dtype in (None, batch.dtype) else batch.to(dtype=self.dtype)

    @property
    def _fitted_features(self) -> tuple[int, torch.device]:
        return self.means_.shape[-1], self.means_.device

    @abstractmethod
    def density(self) -> Any:
        """The fitted models as a density, a module of the tensors of the fit."""

    @abstractmethod
    def _n_parameters(self) -> Tensor:
        """Free parameters of each model, float64 [M]; a component of weight zero has none."""

    def _own_values(self, batch: RaggedBatch, of: Callable[[Responsibilities], Tensor]) -> Tensor:
        """Values [N, ...] that follow from the responsibilities of each point, in the caller's row order."""
        checked, density = self._check_scored(batch), self.density()
        values: Tensor = density.own_values(checked, lambda own, part: of(own.responsibilities(part)))
        return values

    def score_samples(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each point under its own model.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device.

        Returns
        -------
        Tensor
            [N], in nats and in the caller's row order; NaN for failed models.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        TypeError, ValueError
            If it is no batch, or M, D or the device differ from those of the fit.
        """
        return self._own_values(batch, lambda e_step: e_step.log_prob_norm)

    def log_prob(self, x: ArrayLike | Tensor) -> Tensor:
        """Log-density of each point under every model; differentiable in ``x``.

        Parameters
        ----------
        x : array or Tensor
            [N, D], on the device of the fit.

        Returns
        -------
        Tensor
            [N, M], in nats; NaN under failed models.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If D or the device differ from those of the fit.
        """
        log_prob: Tensor = self.density().log_prob(x if isinstance(x, Tensor) else as_points(x))
        return log_prob

    def predict_proba(self, batch: RaggedBatch) -> Tensor:
        """Responsibility of each component of its own model for each point.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device.

        Returns
        -------
        Tensor
            [N, K], in the caller's row order; each row sums to one. NaN for failed models.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As for :meth:`score_samples`.
        """
        return self._own_values(batch, lambda e_step: e_step.resp)

    def predict(self, batch: RaggedBatch) -> Tensor:
        """Most probable component of each point.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device.

        Returns
        -------
        Tensor
            int64 [N], in the caller's row order; -1 for failed models.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As for :meth:`score_samples`.
        """
        proba = self.predict_proba(batch)
        return torch.where(proba.isnan().any(1), -1, proba.argmax(1))

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw points from every model.

        Parameters
        ----------
        n : int
            Draws from each model, at least 1.
        generator : torch.Generator, optional
            On the device of the fit; by default torch's own.

        Returns
        -------
        (Tensor, Tensor)
            Points [M, n, D] and their components int64 [M, n]; NaN and -1 for failed models.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        TypeError, ValueError
            If ``n`` is no integer of at least 1.
        """
        drawn: tuple[Tensor, Tensor] = self.density().sample_components(check_integer("n", n, 1), generator)
        return drawn

    def bic(self, batch: RaggedBatch, sample_weight: ArrayLike | Tensor | None = None) -> Tensor:
        """Bayesian information criterion of each model on the batch (Schwarz 1978).

        Weights of points, as of :meth:`score`, count as numbers of points. Models that share a covariance also share
        its parameters, each an M-th part.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device.
        sample_weight : array or Tensor, optional
            [N], as for :meth:`score`.

        Returns
        -------
        Tensor
            float64 [M]; lower is better.
        """
        weighted = self._weighted(batch, sample_weight)
        n = weighted.total_weights
        return -2 * self.score(weighted) * n + self._n_parameters() * n.log()

    def aic(self, batch: RaggedBatch, sample_weight: ArrayLike | Tensor | None = None) -> Tensor:
        """Akaike's information criterion of each model on the batch (Akaike 1974).

        Weights of points, as of :meth:`score`, count as numbers of points.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device.
        sample_weight : array or Tensor, optional
            [N], as for :meth:`score`.

        Returns
        -------
        Tensor
            float64 [M]; lower is better.
        """
        weighted = self._weighted(batch, sample_weight)
        return -2 * self.score(weighted) * weighted.total_weights + 2 * self._n_parameters()
