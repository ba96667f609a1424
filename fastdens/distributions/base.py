"""Batched densities in the manner of torch.distributions: ``log_prob``, ``sample``, ``entropy``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch, as_points
from fastdens.distributions import divergences
from fastdens.distributions.divergences import MonteCarloEstimate
from fastdens.errors import check_batch_of
from fastdens.kernels.surroundings import Undisturbed


class BatchedDensity(Undisturbed, ABC):
    """Densities of M models in D dimensions: checks of arguments, and estimates by Monte Carlo.

    A subclass has its parameters as attributes and computes the log-densities of points that are known to fit.
    """

    @property
    @abstractmethod
    def n_models(self) -> int:
        """Number of models M."""

    @property
    @abstractmethod
    def _locations(self) -> Tensor:
        """Locations of components, [..., D]."""

    @property
    def n_features(self) -> int:
        """Number of dimensions D."""
        return self._locations.shape[-1]

    @property
    def device(self) -> torch.device:
        """Device of the parameters, hence of points and draws."""
        return self._locations.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters, hence of log-densities and draws."""
        return self._locations.dtype

    @abstractmethod
    def _log_prob(self, points: Tensor) -> Tensor:
        """``log_prob`` of points that are known to fit."""

    @abstractmethod
    def own_log_prob(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each (sorted) row under its own model, [N]; the batch is known to fit, dtype included."""

    @abstractmethod
    def sample_components(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n points from every model: points [M, n, D] and the component of each, int64 [M, n]."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each point under every model, [N, M]; differentiable in ``x``, any number of times.

        In reverse and in forward mode, with torch.func and under torch.vmap.

        Parameters
        ----------
        x : array or Tensor
            [N, D], on the device of the models.

        Raises
        ------
        ValueError
            If D or the device differ.
        """
        # A tensor as it is: derivatives of any kind may hang on it.
        points = x if isinstance(x, Tensor) and x.is_floating_point() else as_points(x)
        n_features = self.n_features
        if points.ndim != 2 or points.shape[1] != n_features:
            raise ValueError(
                f"x has shape {tuple(points.shape)}, but the models have D = {n_features}: pass [N, {n_features}]."
            )
        if points.device != self.device:
            raise ValueError(
                f"x is on {points.device} and the models are on {self.device}: move x with x.to({str(self.device)!r})."
            )
        return self._log_prob(points.to(self.dtype))

    def score_samples(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each point under its own model, [N], in the caller's row order.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device.

        Raises
        ------
        TypeError, ValueError
            If it is no batch, or M, D or the device differ.
        """
        checked = check_batch_of(batch, self.n_models, self.n_features, self.device)
        return checked.in_caller_order(self.own_log_prob(checked.to(dtype=self.dtype)))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points from every model, [n, M, D] (sample shape first, as in torch.distributions)."""
        return self.sample_components(n, generator)[0].transpose(0, 1)

    def entropy(self, n_samples: int = 10_000, generator: torch.Generator | None = None) -> MonteCarloEstimate:
        """Differential entropy of every model, [M]: :func:`fastdens.distributions.divergences.entropy`."""
        return divergences.entropy(self, n_samples, generator)

    def relative_entropy(
        self, batch: RaggedBatch, n_samples: int = 100_000, generator: torch.Generator | None = None
    ) -> MonteCarloEstimate:
        """KL from every model to the Gaussian of its points' means and variances, [M].

        See :func:`fastdens.distributions.divergences.relative_entropy`.
        """
        return divergences.relative_entropy(self, batch, n_samples, generator)

    def kl_matrix(self, n_samples: int = 10_000, generator: torch.Generator | None = None) -> MonteCarloEstimate:
        """``KL(p_i || p_j)`` of all pairs, [M, M]: :func:`fastdens.distributions.divergences.kl_matrix`."""
        return divergences.kl_matrix(self, n_samples, generator)
