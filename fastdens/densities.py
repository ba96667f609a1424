"""Fitted densities, in the manner of torch.distributions: ``log_prob``, ``sample``, ``entropy``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.batch import RaggedBatch, as_points

_MAX_DRAWN_ELEMENTS = 1 << 24


class EntropyEstimate(NamedTuple):
    """A Monte Carlo estimate for each model, in nats, and its standard error; both float64 [M]."""

    value: Tensor
    standard_error: Tensor


@dataclass(frozen=True)
class GaussianMixtureDensity:
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
    precision : {"ieee", "tf32x3", "tf32"}
        Of the matrix products of the Triton kernels.
    """

    weights: Tensor
    means: Tensor
    precisions_cholesky: Tensor
    covariance_type: str = "full"
    backend: str = "auto"
    precision: str = "ieee"

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
        n_features = self.means.shape[-1]
        if points.ndim != 2 or points.shape[1] != n_features:
            raise ValueError(
                f"x has shape {tuple(points.shape)}, but the models have D = {n_features}: pass [N, {n_features}]."
            )
        if points.device != self.means.device:
            raise ValueError(
                f"x is on {points.device} and the models are on {self.means.device}: move x with "
                f"x.to({str(self.means.device)!r})."
            )
        return kernels.mixture_log_prob(
            points.to(self.means.dtype),
            self.weights,
            self.means,
            self.precisions_cholesky,
            covariance_type=self.covariance_type,
            backend=self.backend,
            precision=self.precision,
        )

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

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points from every model, [n, M, D] (sample shape first, as in torch.distributions)."""
        return self.sample_components(n, generator)[0].transpose(0, 1)

    def entropy(self, n_samples: int = 10_000, generator: torch.Generator | None = None) -> EntropyEstimate:
        """Differential entropy of every model by Monte Carlo: ``-mean log p(x)``, x drawn from p."""
        n_models, _, n_features = self.means.shape
        step = max(1, _MAX_DRAWN_ELEMENTS // (n_models * n_features))
        values = []
        for begin in range(0, n_samples, step):
            drawn, _ = self.sample_components(min(step, n_samples - begin), generator)
            batch = RaggedBatch.from_list(list(drawn))
            own = kernels.responsibilities(
                batch.points,
                batch.offsets,
                self.weights,
                self.means,
                self.precisions_cholesky,
                covariance_type=self.covariance_type,
                backend=self.backend,
                precision=self.precision,
            ).log_prob_norm
            values.append(own.reshape(n_models, -1).double())
        log_prob = torch.cat(values, 1)
        return EntropyEstimate(-log_prob.mean(1), log_prob.std(1) / n_samples**0.5)
