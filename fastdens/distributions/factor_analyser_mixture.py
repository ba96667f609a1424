"""Batched mixtures of factor analysers."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.batch import RaggedBatch
from fastdens.distributions.base import BatchedDensity


class FactorAnalyserMixtureDensity(BatchedDensity):
    """M mixtures of K factor analysers in D dimensions: ``x | k ~ N(mean_k, L_k L_k' + diag(psi_k))``.

    A module of torch, as all densities.

    Parameters
    ----------
    weights : Tensor
        [M, K].
    means : Tensor
        [M, K, D].
    loadings : Tensor
        L, [M, K, D, Q].
    noise_variances : Tensor
        psi, [M, K, D].
    backend : {"auto", "triton", "cpu", "reference"}

    References
    ----------
    Ghahramani & Hinton, The EM algorithm for mixtures of factor analyzers, technical report CRG-TR-96-1, 1996.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> batch = fd.RaggedBatch.from_labels(torch.randn(300, 10), torch.arange(300) % 3)
    >>> density = fd.FactorAnalyserMixtures(1, n_factors=2, max_iter=5, tol=0).fit(batch).density()
    >>> density.log_prob(torch.randn(4, 10)).shape, density.sample(5).shape
    (torch.Size([4, 3]), torch.Size([5, 3, 10]))
    """

    weights: Tensor
    means: Tensor
    loadings: Tensor
    noise_variances: Tensor
    backend: str

    def __init__(
        self, weights: Tensor, means: Tensor, loadings: Tensor, noise_variances: Tensor, backend: str = "auto"
    ) -> None:
        parameters = {"weights": weights, "means": means, "loadings": loadings, "noise_variances": noise_variances}
        super().__init__(parameters, {"backend": backend})

    @property
    def n_models(self) -> int:
        """Number of models M."""
        return self.means.shape[0]

    @property
    def _locations(self) -> Tensor:
        return self.means

    @property
    def _of_mixtures(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.weights, self.means, self.loadings, self.noise_variances

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
        FactorAnalyserMixtureDensity
            Of the same options.
        """
        return self._with(**{name: value[begin:end] for name, value in self.named_buffers()})

    def responsibilities(self, batch: RaggedBatch) -> kernels.FactorResponsibilities:
        """Responsibilities [N, K] and log-density [N] of each (sorted) row of a batch under its own model.

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device and in their dtype.

        Returns
        -------
        FactorResponsibilities
            ``resp`` [N, K] and ``log_prob_norm`` [N], of the sorted rows.
        """
        return kernels.factor_responsibilities(batch.points, batch.layout, *self._of_mixtures, backend=self.backend)

    def factors(self, batch: RaggedBatch) -> Tensor:
        """Expected factors of each (sorted) row of a batch under each component of its own model.

        ``E[z | x, k] = (I + L' Psi^-1 L)^-1 L' Psi^-1 (x - mean)`` (Ghahramani & Hinton 1996, eq. 4).

        Parameters
        ----------
        batch : RaggedBatch
            Of the same models, on their device and in their dtype.

        Returns
        -------
        Tensor
            [N, K, Q].
        """
        k, q = self.loadings.shape[1], self.loadings.shape[3]
        out = batch.points.new_empty(batch.n_points, k, q)
        identity = torch.eye(q, dtype=torch.float64, device=self.device)
        for m, (start, stop) in enumerate(batch.ranges.tolist()):
            x = batch.points[start:stop].double()
            for c in range(k):
                loadings, noise = self.loadings[m, c].double(), self.noise_variances[m, c].double()
                scaled = loadings / noise[:, None]
                onto = torch.linalg.solve(identity + loadings.mT @ scaled, scaled.mT)
                out[start:stop, c] = ((x - self.means[m, c].double()) @ onto.mT).to(out.dtype)
        return out

    def _log_prob(self, points: Tensor) -> Tensor:
        return kernels.factor_mixture_log_prob(points, *self._of_mixtures, backend=self.backend)

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
        factors = self._normal((*component.shape, self.loadings.shape[3]), generator)
        points = self._normal((*component.shape, self.n_features), generator)
        model = torch.arange(len(component), device=component.device)[:, None]
        points *= self.noise_variances[model, component].sqrt()
        points += self.means[model, component]
        for k in range(weights.shape[1]):
            # A gather of loadings would take n matrices of a model.
            of_component = (factors * (component == k)[..., None]) @ self.loadings[:, k].mT
            points += of_component
        return points, torch.where(valid[:, None], component, -1)

    def _normal(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        return torch.randn(shape, dtype=self.dtype, device=self.device, generator=generator)
