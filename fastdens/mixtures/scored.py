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
        """Log-density of each point under its own model, [N], in the caller's row order; NaN for failed models."""
        return self._own_values(batch, lambda e_step: e_step.log_prob_norm)

    def log_prob(self, x: ArrayLike | Tensor) -> Tensor:
        """Log-density of each point of ``x`` [N, D] under every model, [N, M]; differentiable in ``x``."""
        log_prob: Tensor = self.density().log_prob(x if isinstance(x, Tensor) else as_points(x))
        return log_prob

    def predict_proba(self, batch: RaggedBatch) -> Tensor:
        """Responsibility of each component for each point, [N, K], in the caller's row order."""
        return self._own_values(batch, lambda e_step: e_step.resp)

    def predict(self, batch: RaggedBatch) -> Tensor:
        """Most probable component of each point, int64 [N], in the caller's row order; -1 for failed models."""
        proba = self.predict_proba(batch)
        return torch.where(proba.isnan().any(1), -1, proba.argmax(1))

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n points from every model: points [M, n, D] and components [M, n]."""
        drawn: tuple[Tensor, Tensor] = self.density().sample_components(check_integer("n", n, 1), generator)
        return drawn

    def bic(self, batch: RaggedBatch, sample_weight: ArrayLike | Tensor | None = None) -> Tensor:
        """Bayesian information criterion of each model on the batch, float64 [M]; lower is better (Schwarz 1978).

        Each of the M models that share a covariance has an M-th part of its parameters.
        The weights of the points, as of :meth:`score`, count as numbers of points.
        """
        weighted = self._weighted(batch, sample_weight)
        n = weighted.total_weights
        return -2 * self.score(weighted) * n + self._n_parameters() * n.log()

    def aic(self, batch: RaggedBatch, sample_weight: ArrayLike | Tensor | None = None) -> Tensor:
        """Akaike's information criterion of each model on the batch, float64 [M]; lower is better (Akaike 1974).

        The weights of the points, as of :meth:`score`, count as numbers of points.
        """
        weighted = self._weighted(batch, sample_weight)
        return -2 * self.score(weighted) * weighted.total_weights + 2 * self._n_parameters()
