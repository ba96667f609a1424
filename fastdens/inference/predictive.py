"""Predictive densities of fitted Dirichlet-process mixtures, made on demand, some models at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.distributions.niw import NormalInverseWishart
from fastdens.distributions.student_t_mixture import StudentTMixtureDensity
from fastdens.inference.cluster_predictive import Membership, cluster_probabilities, densities_of_clusters
from fastdens.kernels.layout import bounded_runs
from fastdens.kernels.surroundings import outside_transforms

# A density is made of as many models at a time as keep its matrices under this many numbers.
_MAX_ELEMENTS = 1 << 26
_COPIES = 5


class PredictiveOptions(NamedTuple):
    """How densities are made: the weighting of components, kernel options, and the dtype (None: of the points)."""

    weighting: str
    backend: str
    matmul_precision: str
    dtype: torch.dtype | None

    @property
    def kernel_options(self) -> dict[str, Any]:
        """The options of kernel calls and of densities."""
        return {"backend": self.backend, "matmul_precision": self.matmul_precision}


class DensityOfRun(NamedTuple):
    """The density of some models, int64 [B], and the number of its first component among those of all models."""

    models: Tensor
    first: int
    density: StudentTMixtureDensity


@dataclass(frozen=True)
class FittedModels(ABC):
    """The A fitted models among M: their points, and the state from which densities are made.

    The densities themselves are not kept, unless they are small: the Student-t components of all draws of all models
    take 20 GB at the paper's shape.

    Attributes
    ----------
    batch : RaggedBatch
        The points of the A models; its index counts the caller's rows of all models.
    models : Tensor
        int64 [A], the numbers of the fitted models among all M.
    n_models : int
        M; models that failed have no components.
    prior : NormalInverseWishart
        Of the A models.
    """

    batch: RaggedBatch
    models: Tensor
    n_models: int
    prior: NormalInverseWishart
    _kept: dict[PredictiveOptions, StudentTMixtureDensity] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @abstractmethod
    def component_counts(self) -> list[int]:
        """Components of the density of each of the A models, at most."""

    @abstractmethod
    def density_of(self, begin: int, end: int, options: PredictiveOptions) -> StudentTMixtureDensity:
        """The predictive density of the fitted models ``begin:end``."""

    def density(self, options: PredictiveOptions) -> StudentTMixtureDensity:
        """The predictive density of all M models, a module apart from the one that is kept."""
        density = self._density(options)
        return density.select(0, self.n_models).of_a_fit() if options in self._kept else density

    def _density(self, options: PredictiveOptions) -> StudentTMixtureDensity:
        if options in self._kept:
            return self._kept[options]
        with outside_transforms():
            parts = [self.density_of(begin, end, options) for begin, end in self._runs()]
            density = self.of_all_models(parts, options)
        if len(parts) == 1:
            self._kept[options] = density
        return density

    def of_all_models(self, parts: list[StudentTMixtureDensity], options: PredictiveOptions) -> StudentTMixtureDensity:
        """The density of all M models, from densities of the A fitted ones in parts; the others have no components."""
        counts = torch.zeros(self.n_models, dtype=torch.int64, device=self.models.device)
        counts[self.models] = torch.cat([part.offsets.diff() for part in parts])
        return StudentTMixtureDensity.from_components(
            counts, [part.components for part in parts], **options.kernel_options
        )

    def log_prob(self, x: Tensor, options: PredictiveOptions) -> Tensor:
        """Log-density of points [N, D] under every model, [N, M]; NaN under models that failed."""
        columns = [(models, density.log_prob(x)) for models, _, density in self._densities(options)]
        if len(columns) == 1:
            return columns[0][1]
        values = torch.cat([value for _, value in columns], 1)
        out = values.new_full((len(values), self.n_models), float("nan"))
        return out.index_copy(1, torch.cat([models for models, _ in columns]), values)

    def score_samples(self, batch: RaggedBatch, options: PredictiveOptions) -> Tensor:
        """Log-density of each point of M models under its own, [N] in the caller's order; NaN for failed models."""
        dtype = options.dtype or self.batch.dtype
        out = torch.full((batch.n_points,), float("nan"), dtype=dtype, device=batch.device)
        for models, _, density in self._densities(options):
            part = batch if len(models) == batch.n_models else batch.select(models)
            for index, values in density.own_parts(part, lambda own, points: own.own_log_prob(points)):
                out[index] = values
        return out

    def cluster_probabilities(self, batch: RaggedBatch, options: PredictiveOptions, membership: Membership) -> Tensor:
        """Probabilities of the clusters of each point's own model, and of none in the last column.

        Returns
        -------
        Tensor
            [N, C + 1], in the caller's order; NaN for failed models.
        """
        dtype, width = options.dtype or self.batch.dtype, membership.n_clusters + 1
        out = torch.full((batch.n_points, width), float("nan"), dtype=dtype, device=batch.device)
        for models, first, density in self._densities(options):
            part = batch if len(models) == batch.n_models else batch.select(models)
            of_run = densities_of_clusters(density, membership.select(first, first + int(density.offsets[-1])))
            row_bytes = 8 * (_COPIES * batch.n_features + 3 * width)
            for begin, end in part.groups(part.sizes.double() * row_bytes, "predicting"):
                own = part.part(begin, end).to(dtype=density.dtype)
                of_group = [of_cluster.select(begin, end) for of_cluster in of_run]
                out[own.index] = cluster_probabilities(of_group, own).to(dtype)
        return out

    def sample_components(
        self, n: int, options: PredictiveOptions, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Draw n points from every model [M, n, D], and the component of each in its density, int64 [M, n]."""
        drawn = [(models, *density.sample_components(n, generator)) for models, _, density in self._densities(options)]
        if len(drawn) == 1:
            return drawn[0][1:]
        models, points, components = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        all_points = points.new_full((self.n_models, *points.shape[1:]), float("nan"))
        all_components = components.new_full((self.n_models, n), -1)
        return all_points.index_copy(0, models, points), all_components.index_copy(0, models, components)

    def _runs(self) -> list[tuple[int, int]]:
        """Runs of fitted models whose matrices stay within a bound on memory."""
        counts, squares = self.component_counts(), self.batch.n_features**2
        runs = bounded_runs(counts, _MAX_ELEMENTS // squares)
        if self.batch.max_memory is None:
            return runs
        # Components are made of points in float64, and in memory several times while they are put in order.
        components = _COPIES * 8 * squares * torch.tensor(counts, dtype=torch.float64, device=self.batch.device)
        points = _COPIES * 8 * self.batch.n_features * self.batch.sizes.double()
        allowed = self.batch.groups(components + points, "the density of")
        cuts = sorted({cut for run in (*runs, *allowed) for cut in run})
        return list(pairwise(cuts))

    def _densities(self, options: PredictiveOptions) -> Iterator[DensityOfRun]:
        """The density of all M models, or of one run of fitted models after the other.

        Raises
        ------
        NotImplementedError
            Under torch.compile and torch.export, which cannot trace how a density is made, unless it is kept.
        """
        if options not in self._kept:
            refuse_tracing()
        runs = [] if options in self._kept else self._runs()
        if len(runs) <= 1:
            yield DensityOfRun(torch.arange(self.n_models, device=self.models.device), 0, self._density(options))
            return
        first = 0
        for begin, end in runs:
            with outside_transforms():
                density = self.density_of(begin, end, options)
            yield DensityOfRun(self.models[begin:end], first, density)
            first += int(density.offsets[-1])


def refuse_tracing() -> None:
    """Raise a NotImplementedError under torch.compile and torch.export, which cannot trace how a density is made."""
    if torch.compiler.is_compiling():
        raise NotImplementedError(
            "a predictive density is made from the fit when it is first used, which torch.compile and torch.export "
            "cannot trace: call density() before, and let them trace log_prob of what it returns."
        )
