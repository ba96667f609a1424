"""Batched mixtures of Gaussians."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.batch import RaggedBatch
from fastdens.distributions.base import BatchedDensity
from fastdens.kernels.far_points import with_far_points
from fastdens.kernels.options import COVARIANCE_TYPES, check_choice


class GaussianMixtureDensity(BatchedDensity):
    """M mixtures of K Gaussians in D dimensions, a module of torch.

    Parameters
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

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> density = fd.GaussianMixtureDensity(torch.ones(3, 1), torch.zeros(3, 1, 2), torch.ones(3, 1), "spherical")
    >>> density(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    >>> list(density.double().state_dict())
    ['weights', 'means', 'precisions_cholesky']
    """

    weights: Tensor
    means: Tensor
    precisions_cholesky: Tensor
    covariance_type: str
    backend: str
    matmul_precision: str

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        precisions_cholesky: Tensor,
        covariance_type: str = "full",
        backend: str = "auto",
        matmul_precision: str = "tf32x3",
    ) -> None:
        super().__init__(
            {"weights": weights, "means": means, "precisions_cholesky": precisions_cholesky},
            {"covariance_type": covariance_type, "backend": backend, "matmul_precision": matmul_precision},
        )

    @classmethod
    def unknown(
        cls,
        n_models: int,
        n_components: int,
        n_features: int,
        covariance_type: str = "full",
        backend: str = "auto",
        matmul_precision: str = "tf32x3",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """A density of models that are not known yet: its parameters are NaN.

        Parameters
        ----------
        n_models, n_components, n_features : int
            M, K and D.
        covariance_type, backend, matmul_precision : str
            As for the class.
        device : torch.device or str, optional
            Of the parameters; by default torch's.
        dtype : torch.dtype, optional
            Of the parameters; by default torch's.

        Returns
        -------
        GaussianMixtureDensity
            Its log-densities are NaN until it learns or loads a state.
        """
        m, k, d = n_models, n_components, n_features
        check_choice("covariance_type", covariance_type, COVARIANCE_TYPES)
        factors = {"full": (m, k, d, d), "tied": (m, d, d), "diag": (m, k, d), "spherical": (m, k)}[covariance_type]
        weights, means, matrices = (
            torch.full(shape, math.nan, device=device, dtype=dtype) for shape in ((m, k), (m, k, d), factors)
        )
        return cls(weights, means, matrices, covariance_type, backend, matmul_precision)

    @property
    def n_models(self) -> int:
        """Number of models M."""
        return self.means.shape[0]

    @property
    def _locations(self) -> Tensor:
        return self.means

    @property
    def _row_values(self) -> int:
        return 3 * self.means.shape[1]

    def select(self, begin: int, end: int) -> Self:
        """The densities of the models ``begin:end``.

        Parameters
        ----------
        begin, end : int
            The models ``begin`` to ``end - 1``.

        Returns
        -------
        GaussianMixtureDensity
            Of the same options.
        """
        return self._with(**{name: value[begin:end] for name, value in self.named_buffers()})

    def responsibilities(self, batch: RaggedBatch) -> kernels.Responsibilities:
        """Responsibilities [N, K] and log-density [N] of each (sorted) row of a batch under its own model.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device and in their dtype.

        Returns
        -------
        Responsibilities
            ``resp`` [N, K] and ``log_prob_norm`` [N], of the sorted rows.
        """
        arguments = {"points": batch.points, "layout": batch.layout, **dict(self.named_buffers()), **self._options}
        return kernels.Responsibilities(*with_far_points(kernels.responsibilities, arguments))

    def _log_prob(self, points: Tensor) -> Tensor:
        return kernels.mixture_log_prob(points, self.weights, self.means, self.precisions_cholesky, **self._options)

    def own_log_prob(self, batch: RaggedBatch) -> Tensor:
        """Log-density of each (sorted) row under its own model.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device and in their dtype.

        Returns
        -------
        Tensor
            [N], in nats.
        """
        return self.responsibilities(batch).log_prob_norm

    def sample_components(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw points from every model, with the component that each comes from.

        A model with NaN parameters (one that was skipped) yields NaN points of component -1.

        Parameters
        ----------
        n : int
            Draws from each model, at least 1.
        generator : torch.Generator, optional
            On the device of the models; by default torch's own.

        Returns
        -------
        (Tensor, Tensor)
            Points [M, n, D], and their components int64 [M, n].
        """
        valid = torch.isfinite(self.weights).all(1)
        weights = torch.where(valid[:, None], self.weights, torch.ones_like(self.weights))
        component = torch.multinomial(weights, n, replacement=True, generator=generator)
        shape = (*component.shape, self.n_features)
        noise = torch.randn(shape, dtype=self.means.dtype, device=self.means.device, generator=generator)
        model = torch.arange(len(component), device=component.device)[:, None]
        points = self.means[model, component] + self._offsets(noise, component, valid)
        return points, torch.where(valid[:, None], component, -1)

    def _offsets(self, noise: Tensor, component: Tensor, valid: Tensor) -> Tensor:
        """Draws about the means of their components [M, n, D], from standard normal ones; ``valid`` models bool [M]."""
        if self.covariance_type in ("diag", "spherical"):
            model = torch.arange(len(component), device=component.device)[:, None]
            scale = self.precisions_cholesky.reciprocal()[model, component]
            return noise * (scale if self.covariance_type == "diag" else scale[..., None])
        # x - mu = z U^-1 has covariance (U U')^-1. Solving one component at a time for all its draws would
        # need no gather of factors, but ragged groups: instead invert once, and multiply per component.
        offset = torch.empty_like(noise)
        identity = torch.eye(self.n_features, dtype=noise.dtype, device=noise.device)
        for k in range(1 if self.covariance_type == "tied" else self.means.shape[1]):
            factor = self.precisions_cholesky if self.covariance_type == "tied" else self.precisions_cholesky[:, k]
            factor = torch.where(valid[:, None, None], factor, identity)
            spread = torch.linalg.solve_triangular(factor, noise, upper=True, left=False)
            chosen = (component == k)[..., None]
            offset = spread if self.covariance_type == "tied" else torch.where(chosen, spread, offset)
        return offset
