"""Batched mixtures of Gaussians of one covariance for all models."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.batch import RaggedBatch
from fastdens.distributions.gaussian_mixture import GaussianMixtureDensity
from fastdens.kernels.far_points import with_far_points
from fastdens.kernels.shared_factor import shared_log_prob, shared_responsibilities


class SharedCovarianceDensity(GaussianMixtureDensity):
    """M mixtures of K Gaussians in D dimensions, all of one covariance; a module of torch.

    A point costs D^2 once, and D for each component of each model. Its product with the factor is torch's own, in the
    precision of ``torch.backends.cuda.matmul``.

    Parameters
    ----------
    weights, means : Tensor
        [M, K] and [M, K, D].
    precisions_cholesky : Tensor
        [D, D], upper-triangular U with ``precision = U U'``.
    covariance_type : {"tied_across_models"}
    backend, matmul_precision : str
        As for :class:`fastdens.GaussianMixtureDensity`.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> density = fd.SharedCovarianceDensity(torch.ones(3, 1), torch.zeros(3, 1, 2), torch.eye(2))
    >>> density(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        precisions_cholesky: Tensor,
        covariance_type: str = "tied_across_models",
        backend: str = "auto",
        matmul_precision: str = "tf32x3",
    ) -> None:
        super().__init__(weights, means, precisions_cholesky, covariance_type, backend, matmul_precision)

    @property
    def _row_values(self) -> int:
        return 3 * self.means.shape[1] + 2 * self.n_features

    @property
    def _kernel_options(self) -> dict[str, Any]:
        return {"backend": self.backend, "matmul_precision": self.matmul_precision}

    def select(self, begin: int, end: int) -> Self:
        """The densities of the models ``begin:end``, with the covariance of all.

        Parameters
        ----------
        begin, end : int
            The models ``begin`` to ``end - 1``.

        Returns
        -------
        SharedCovarianceDensity
            Of the same options.
        """
        return self._with(weights=self.weights[begin:end], means=self.means[begin:end])

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
        arguments = {
            "points": batch.points,
            "layout": batch.layout,
            "weights": self.weights,
            "means": self.means,
            "factor": self.precisions_cholesky,
            **self._kernel_options,
        }
        return kernels.Responsibilities(*with_far_points(shared_responsibilities, arguments))

    def _log_prob(self, points: Tensor) -> Tensor:
        return shared_log_prob(points, self.weights, self.means, self.precisions_cholesky, **self._kernel_options)

    def _offsets(self, noise: Tensor, component: Tensor, valid: Tensor) -> Tensor:
        offset: Tensor = torch.linalg.solve_triangular(self.precisions_cholesky, noise, upper=True, left=False)
        return offset
