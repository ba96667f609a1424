"""Batched mixtures of multivariate Student-t distributions, such as posterior predictives of Gaussian mixtures."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.batch import RaggedBatch
from fastdens.distributions.base import BatchedDensity
from fastdens.errors import check_integer
from fastdens.kernels.layout import Layout, offsets_of

_MAX_GATHERED_ELEMENTS = 1 << 22


class StudentTComponents(NamedTuple):
    """Parameters of Student-t components, in any shape [...] of components.

    Attributes
    ----------
    log_weights, degrees_of_freedom : Tensor
        [...].
    locations : Tensor
        [..., D].
    scale_precisions_cholesky : Tensor
        [..., D, D], upper-triangular U with ``scale^-1 = U U'``.
    """

    log_weights: Tensor
    locations: Tensor
    scale_precisions_cholesky: Tensor
    degrees_of_freedom: Tensor


class StudentTMixtureDensity(BatchedDensity):
    """M mixtures of Student-t distributions in D dimensions, each with as many components as it needs, G in all.

    A module of torch, whose state fits densities of the same number of components.

    Parameters
    ----------
    offsets : Tensor
        int64 [M + 1]: the components of model m are ``offsets[m]:offsets[m + 1]``. A model without any is NaN.
    log_weights : Tensor
        [G], log of weights that sum to one in each model.
    locations : Tensor
        [G, D].
    scale_precisions_cholesky : Tensor
        [G, D, D], upper-triangular U with ``scale^-1 = U U'``.
    degrees_of_freedom : Tensor
        [G].
    backend : {"auto", "triton", "cpu", "reference"}
    matmul_precision : {"tf32x3", "ieee", "tf32"}
        Of the matrix products of the Triton kernels.

    References
    ----------
    Kotz & Nadarajah, Multivariate t Distributions and Their Applications, 2004, chapter 1.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> batch = fd.RaggedBatch.from_labels(torch.randn(60, 2), torch.arange(60) % 3)
    >>> dp = fd.DirichletProcessMixtures(n_sweeps=20, burn_in=10, n_chains=1, progress=False).fit(batch)
    >>> density = dp.density()
    >>> density.log_prob(torch.randn(4, 2)).shape, density.sample(5).shape
    (torch.Size([4, 3]), torch.Size([5, 3, 2]))
    """

    offsets: Tensor
    log_weights: Tensor
    locations: Tensor
    scale_precisions_cholesky: Tensor
    degrees_of_freedom: Tensor
    backend: str
    matmul_precision: str

    def __init__(
        self,
        offsets: Tensor,
        log_weights: Tensor,
        locations: Tensor,
        scale_precisions_cholesky: Tensor,
        degrees_of_freedom: Tensor,
        backend: str = "auto",
        matmul_precision: str = "tf32x3",
    ) -> None:
        components = StudentTComponents(log_weights, locations, scale_precisions_cholesky, degrees_of_freedom)
        options = {"backend": backend, "matmul_precision": matmul_precision}
        super().__init__({"offsets": offsets, **components._asdict()}, options)

    @classmethod
    def from_components(
        cls,
        counts: Tensor,
        parts: list[StudentTComponents],
        *,
        backend: str = "auto",
        matmul_precision: str = "tf32x3",
    ) -> Self:
        """The density of components that come in parts.

        Parameters
        ----------
        counts : Tensor
            int64 [M], the components of each model.
        parts : list of StudentTComponents
            Together G components, sorted by model.
        backend, matmul_precision : str
            As for the class.

        Returns
        -------
        StudentTMixtureDensity
            Of M models.
        """
        offsets = offsets_of(counts)
        log_weights, locations, factors, degrees_of_freedom = (
            column[0] if len(column) == 1 else torch.cat(column) for column in zip(*parts, strict=True)
        )
        return cls(offsets, log_weights, locations, factors, degrees_of_freedom, backend, matmul_precision)

    @property
    def components(self) -> StudentTComponents:
        """The components of all models, [G]."""
        return StudentTComponents(
            self.log_weights, self.locations, self.scale_precisions_cholesky, self.degrees_of_freedom
        )

    @property
    def n_models(self) -> int:
        """Number of models M."""
        return len(self.offsets) - 1

    @property
    def _locations(self) -> Tensor:
        return self.locations

    @property
    def _row_values(self) -> int:
        return 3

    def select(self, begin: int, end: int) -> Self:
        """The densities of the models ``begin:end``.

        Parameters
        ----------
        begin, end : int
            The models ``begin`` to ``end - 1``.

        Returns
        -------
        StudentTMixtureDensity
            Of the same options.
        """
        first, last = self.offsets[[begin, end]].tolist()
        return self._with(
            offsets=self.offsets[begin : end + 1] - first,
            **{name: value[first:last] for name, value in self.components._asdict().items()},
        )

    def _log_prob(self, points: Tensor) -> Tensor:
        return self._student_t_log_prob(points, None)

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
        return self._student_t_log_prob(batch.points, batch.layout)

    def _student_t_log_prob(self, points: Tensor, layout: Layout | None) -> Tensor:
        return kernels.student_t_log_prob(
            points,
            self.offsets,
            *self.components,
            layout=layout,
            **self._options,
        )

    def sample_components(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw points from every model, with the component that each comes from.

        A draw is ``mu + z U^-1 sqrt(nu / w)`` of a standard normal z and a chi-square w of nu degrees of freedom (Kotz
        & Nadarajah 2004, eq. 1.2). A model without components, or with NaN weights, yields NaN points of component -1.

        Parameters
        ----------
        n : int
            Draws from each model, at least 1.
        generator : torch.Generator, optional
            On the device of the models.

        Returns
        -------
        (Tensor, Tensor)
            Points [M, n, D], and the component of each within its model, int64 [M, n].

        Raises
        ------
        TypeError, ValueError
            If ``n`` is no integer of at least 1.
        """
        check_integer("n", n, 1)
        component = self._choose_components(n, generator)
        shape, device, dtype = (self.n_models * n, self.n_features), self.device, self.dtype
        points = torch.full(shape, float("nan"), dtype=dtype, device=device)
        chosen = torch.where(component < 0, -1, component + self.offsets[:-1, None]).flatten()
        # Each draw needs the factor of its own component: as many at a time as memory may hold copies of.
        for draws in torch.split(
            torch.nonzero(chosen >= 0)[:, 0], max(1, _MAX_GATHERED_ELEMENTS // self.n_features**2)
        ):
            g = chosen[draws]
            half = 0.5 * self.degrees_of_freedom[g].double()
            # In float64: few degrees of freedom put gamma variables below the smallest float32.
            spread = (half / torch._standard_gamma(half, generator=generator)).sqrt().to(dtype)
            z = torch.randn(len(draws), 1, self.n_features, dtype=dtype, device=device, generator=generator)
            factors = self.scale_precisions_cholesky[g]
            offset = torch.linalg.solve_triangular(factors, z, upper=True, left=False)[:, 0]
            points[draws] = self.locations[g] + spread[:, None] * offset
        return points.reshape(self.n_models, n, self.n_features), component

    def _choose_components(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Components drawn by their weights, int64 [M, n]; -1 in a model that has none of positive weight.

        One cumulative sum over the components of all models serves them all: a uniform variable between its values
        before and after a model falls on one of that model's components. It is formed on the CPU, one by one, so that
        it never decreases, and stays where it is at a weight of zero.
        """
        device = self.locations.device
        offsets, log_weights = self.offsets.cpu(), self.log_weights.double().cpu()
        weights = torch.zeros_like(log_weights)
        for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            weights[begin:end] = torch.softmax(log_weights[begin:end], 0)
        cumulative = torch.cat([weights.new_zeros(1), weights.nan_to_num_(0.0).cumsum(0)])
        low, high = (cumulative[bounds].to(device)[:, None] for bounds in (offsets[:-1], offsets[1:]))
        uniform = torch.rand(self.n_models, n, dtype=torch.float64, device=device, generator=generator)
        at = torch.minimum(low + uniform * (high - low), torch.nextafter(high, low))
        chosen = torch.searchsorted(cumulative[1:].to(device), at, right=True)
        return torch.where(high > low, chosen - self.offsets[:-1, None], -1)
