"""Batched mixtures of Gaussians."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.batch import RaggedBatch
from fastdens.distributions.base import BatchedDensity
from fastdens.kernels.far_points import with_far_points


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
    matmul_precision : {"tf32x3", "ieee", "tf32"}
        Of the matrix products of the Triton kernels.
    """

    weights: Tensor
    means: Tensor
    precisions_cholesky: Tensor
    covariance_type: str = "full"
    backend: str = "auto"
    matmul_precision: str = "tf32x3"

    @property
    def n_models(self) -> int:
        """Number of models M."""
        return self.means.shape[0]

    @property
    def _locations(self) -> Tensor:
        return self.means

    @property
    def _parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weights, self.means, self.precisions_cholesky

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "covariance_type": self.covariance_type,
            "backend": self.backend,
            "matmul_precision": self.matmul_precision,
        }

    @property
    def _row_values(self) -> int:
        return 3 * self.means.shape[1]

    def select(self, begin: int, end: int) -> Self:
        """The densities of the models ``begin:end``."""
        weights, means, factors = (value[begin:end] for value in self._parameters)
        return replace(self, weights=weights, means=means, precisions_cholesky=factors)

    def responsibilities(self, batch: RaggedBatch) -> kernels.Responsibilities:
        """Responsibilities [N, K] and log-density [N] of each (sorted) row of a batch under its own model.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device and in their dtype.
        """
        names = ("weights", "means", "precisions_cholesky")
        parameters = dict(zip(names, self._parameters, strict=True))
        arguments = {"points": batch.points, "layout": batch.layout, **parameters, **self._options}
        return kernels.Responsibilities(*with_far_points(kernels.responsibilities, arguments))

    def _log_prob(self, points: Tensor) -> Tensor:
        return kernels.mixture_log_prob(points, *self._parameters, **self._options)

    def own_log_prob(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each (sorted) row under its own model, [N]."""
        return self.responsibilities(batch).log_prob_norm

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
