"""The first points of models of a stream, which are kept until a model has enough of them to stand on its own."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from fastdens.kernels.layout import Layout, offsets_of
from fastdens.kernels.races import copies_of_models


class KeptPoints(NamedTuple):
    """Points [n, D], sorted by model, their weights float64 [n], and how many each model has, int64 [M]."""

    points: Tensor
    weights: Tensor
    sizes: Tensor

    @classmethod
    def none(cls, n_models: int, like: Tensor) -> Self:
        """No points; those to come are ``like`` [N, D]."""
        sizes = torch.zeros(n_models, dtype=torch.int64, device=like.device)
        return cls(like.new_empty(0, like.shape[1]), like.new_empty(0, dtype=torch.float64), sizes)

    @property
    def offsets(self) -> Tensor:
        """int64 [M + 1], where the points of each model begin."""
        return offsets_of(self.sizes)

    @property
    def total_weights(self) -> Tensor:
        """float64 [M], the sum of the weights of each model's points."""
        return torch.segment_reduce(self.weights, "sum", lengths=self.sizes)

    @property
    def counts(self) -> Tensor:
        """How many points each model has, int64 [M]; one of weight two is two, say."""
        return copies_of_models(Layout.from_offsets(self.offsets, len(self.points)), self.weights)

    def select(self, models: Tensor) -> KeptPoints:
        """Those of some models, int64 [A] in ascending order."""
        if len(models) == len(self.sizes):
            return self
        rows = torch.isin(torch.repeat_interleave(self.sizes), models)
        return KeptPoints(self.points[rows], self.weights[rows], self.sizes[models])

    def joined(self, others: KeptPoints) -> KeptPoints:
        """The points of both, in each model first its own and then the others."""
        if not len(self.points) or not len(others.points):
            return self if len(self.points) else others
        model = torch.cat([torch.repeat_interleave(self.sizes), torch.repeat_interleave(others.sizes)])
        order = torch.argsort(model, stable=True)
        points, weights = torch.cat([self.points, others.points]), torch.cat([self.weights, others.weights])
        return KeptPoints(points[order], weights[order], self.sizes + others.sizes)

    def replaced(self, models: Tensor, others: KeptPoints) -> KeptPoints:
        """With those of some models, int64 [A] in ascending order, replaced by others."""
        if not len(self.points) and not len(others.points):
            return self
        if not len(models) or len(models) == len(self.sizes):
            return others if len(models) else self
        is_rest = torch.ones(len(self.sizes), dtype=torch.bool, device=self.sizes.device)
        is_rest[models] = False
        rest = is_rest.nonzero()[:, 0]
        return self.select(rest)._among(rest, is_rest).joined(others._among(models, is_rest))

    def _among(self, models: Tensor, like: Tensor) -> KeptPoints:
        """The same points as those of some models among more, as many as ``like`` is long."""
        sizes = torch.zeros_like(like, dtype=torch.int64).index_copy_(0, models, self.sizes)
        return self._replace(sizes=sizes)
