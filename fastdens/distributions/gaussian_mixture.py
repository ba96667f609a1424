"""Fitted densities, in the manner of torch.distributions: ``log_prob``, ``sample``, ``entropy``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.batch import RaggedBatch, as_points
from fastdens.distributions import divergences
from fastdens.distributions.divergences import MonteCarloEstimate


class BatchedDensity(ABC):
    """What densities of M models in D dimensions share: checks of arguments, and estimates by Monte Carlo."""

    @property
    @abstractmethod
    def n_models(self) -> int:
        """Number of models M."""

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Number of dimensions D."""

    @property
    @abstractmethod
    def _centres(self) -> Tensor:
        """Locations of components [..., D]: points are computed in their dtype, on their device."""

    @property
    def device(self) -> torch.device:
        """Device of the parameters, hence of points and draws."""
        return self._centres.device

    @abstractmethod
    def _log_prob(self, points: Tensor) -> Tensor:
        """``log_prob`` of points that are known to fit."""

    @abstractmethod
    def _own_log_prob(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each row of a batch that is known to fit under its own model, [N]."""

    @abstractmethod
    def sample_components(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n points from every model: points [M, n, D] and the component of each, int64 [M, n]."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each point under every model, [N, M]; differentiable in ``x``.

        Parameters
        ----------
        x : array or Tensor
            [N, D], on the device of the models.

        Raises
        ------
        ValueError
            If D or the device differ.
        """
        points = x if isinstance(x, Tensor) and x.requires_grad else as_points(x)
        n_features = self.n_features
        if points.ndim != 2 or points.shape[1] != n_features:
            raise ValueError(
                f"x has shape {tuple(points.shape)}, but the models have D = {n_features}: pass [N, {n_features}]."
            )
        if points.device != self.device:
            raise ValueError(
                f"x is on {points.device} and the models are on {self.device}: move x with x.to({str(self.device)!r})."
            )
        return self._log_prob(points.to(self._centres.dtype))

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
        checked = divergences.batch_of_models(batch, self)
        return checked.in_caller_order(self._own_log_prob(checked.to(dtype=self._centres.dtype)))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points from every model, [n, M, D] (sample shape first, as in torch.distributions)."""
        return self.sample_components(n, generator)[0].transpose(0, 1)

    def entropy(self, n_samples: int = 10_000, generator: torch.Generator | None = None) -> MonteCarloEstimate:
        """Differential entropy of every model, [M]: :func:`fastdens.distributions.divergences.entropy`."""
        return divergences.entropy(self, n_samples, generator)

    def relative_entropy(
        self, batch: RaggedBatch, n_samples: int = 100_000, generator: torch.Generator | None = None
    ) -> MonteCarloEstimate:
        """KL from every model to the Gaussian of its points' means and variances, [M]:
        :func:`fastdens.distributions.divergences.relative_entropy`.
        """
        return divergences.relative_entropy(self, batch, n_samples, generator)

    def kl_matrix(self, n_samples: int = 10_000, generator: torch.Generator | None = None) -> MonteCarloEstimate:
        """``KL(p_i || p_j)`` of all pairs, [M, M]: :func:`fastdens.distributions.divergences.kl_matrix`."""
        return divergences.kl_matrix(self, n_samples, generator)


@dataclass(frozen=True)
class GaussianMixtureDensity(BatchedDensity):
    """M mixtures of K Gaussians in D dimensions.

    Attributes
    ----------
    weights : Tensor
        [M, K].
    means : Tensor
        [M, K, D].
    precisions_cholesky : Tensor
        Upper-triangular U with ``precision = U U'``: full [M, K, D, D], tied [M, D, D]; or ``1 / std``: diag
        [M, K, D], spherical [M, K].
    covariance_type : {"full", "tied", "diag", "spherical"}
    backend : {"auto", "triton", "cpu", "reference"}
    matmul_precision : {"ieee", "tf32x3", "tf32"}
        Of the matrix products of the Triton kernels.
    """

    weights: Tensor
    means: Tensor
    precisions_cholesky: Tensor
    covariance_type: str = "full"
    backend: str = "auto"
    matmul_precision: str = "ieee"

    @property
    def n_models(self) -> int:
        """Number of models M."""
        return self.means.shape[0]

    @property
    def n_features(self) -> int:
        """Number of dimensions D."""
        return self.means.shape[-1]

    @property
    def _centres(self) -> Tensor:
        return self.means

    def _log_prob(self, points: Tensor) -> Tensor:
        return kernels.mixture_log_prob(
            points,
            self.weights,
            self.means,
            self.precisions_cholesky,
            covariance_type=self.covariance_type,
            backend=self.backend,
            matmul_precision=self.matmul_precision,
        )

    def _own_log_prob(self, batch: RaggedBatch) -> Tensor:
        return kernels.responsibilities(
            batch.points,
            batch.offsets,
            self.weights,
            self.means,
            self.precisions_cholesky,
            covariance_type=self.covariance_type,
            backend=self.backend,
            matmul_precision=self.matmul_precision,
        ).log_prob_norm

    def sample_components(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n points from every model: points [M, n, D] and the component of each, int64 [M, n].

        A model with NaN parameters (one that was skipped) yields NaN points of component -1.
        """
        n_features = self.means.shape[-1]
        valid = torch.isfinite(self.weights).all(1)
        weights = torch.where(valid[:, None], self.weights, torch.ones_like(self.weights))
        component = torch.multinomial(weights, n, replacement=True, generator=generator)
        shape = (*component.shape, n_features)
        noise = torch.randn(shape, dtype=self.means.dtype, device=self.means.device, generator=generator)
        model = torch.arange(len(component), device=component.device)[:, None]
        if self.covariance_type in ("diag", "spherical"):
            scale = self.precisions_cholesky.reciprocal()[model, component]
            offset = noise * (scale if self.covariance_type == "diag" else scale[..., None])
        else:
            # x - mu = z U^-1 has covariance (U U')^-1. Solving one component at a time for all its draws would
            # need no gather of factors, but ragged groups: instead invert once, and multiply per component.
            offset = torch.empty_like(noise)
            identity = torch.eye(n_features, dtype=self.means.dtype, device=self.means.device)
            for k in range(1 if self.covariance_type == "tied" else self.means.shape[1]):
                factor = self.precisions_cholesky if self.covariance_type == "tied" else self.precisions_cholesky[:, k]
                factor = torch.where(valid[:, None, None], factor, identity)
                spread = torch.linalg.solve_triangular(factor, noise, upper=True, left=False)
                chosen = (component == k)[..., None]
                offset = spread if self.covariance_type == "tied" else torch.where(chosen, spread, offset)
        points = self.means[model, component] + offset
        return points, torch.where(valid[:, None], component, -1)
