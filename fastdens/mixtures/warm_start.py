"""Fits of Gaussian mixtures that go on from the last one, where there is one of the same models."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.inference.coordinate_ascent import Ascent, join_ascents
from fastdens.inference.em import EMInfo, EMState
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.partition import Partition

# The attributes from which a fit goes on, by the names that its start has for them.
_LAST = {
    "weights": "weights_",
    "means": "means_",
    "precisions_cholesky": "precisions_cholesky_",
    "covariances": "covariances_",
    "lower_bound": "lower_bound_",
}


class WarmStartedMixtures(BaseMixtures):
    """Base of the estimator of Gaussian mixtures: where ``fit`` goes on."""

    n_components: int
    warm_start: bool

    weights_: Tensor
    means_: Tensor
    covariances_: Tensor
    precisions_cholesky_: Tensor

    @abstractmethod
    def _covariance_shape(self, n_models: int, n_features: int) -> tuple[int, ...]:
        """The shape of ``covariances_``."""

    @abstractmethod
    def _fit_models(self, valid: Partition, initial: dict[str, Tensor]) -> Ascent[EMState, EMInfo]:
        """The best ascent for each of the models to fit."""

    def _start_of_models(self, batch: RaggedBatch, models: Tensor) -> dict[str, Any]:
        if not self._goes_on(batch):
            return {}
        own = models.to(self.weights_.device)
        of_models = {name: getattr(self, name)[own] for name in _LAST.values()}
        return {**of_models, "failed_": self.failed_[own], "classes_": tuple(batch.classes[m] for m in own.tolist())}

    def _goes_on(self, batch: RaggedBatch) -> bool:
        """Whether ``fit`` goes on from parameters that are those of models of the batch."""
        if not self.warm_start or not hasattr(self, "failed_") or self.classes_ is None:
            return False
        shape = (batch.n_models, self.n_components, batch.n_features)
        return (
            tuple(self.means_.shape) == shape
            and tuple(self.covariances_.shape) == self._covariance_shape(batch.n_models, batch.n_features)
            and list(map(str, self.classes_)) == list(map(str, batch.classes))
        )

    def _fit_from_last(self, valid: Partition, initial: dict[str, Tensor]) -> Ascent[EMState, EMInfo]:
        """The fit of each model, which goes on from the last one if ``warm_start`` says so and it has not failed."""
        if not self._goes_on(valid.whole):
            return self._fit_models(valid, initial)
        like = valid.batch.points
        last = {name: getattr(self, attribute).to(like.device) for name, attribute in _LAST.items()}
        last = {name: value if name == "lower_bound" else value.to(like.dtype) for name, value in last.items()}
        is_known = ~last["weights"].isnan().any(1)[valid.models]
        fits = []
        for own, start in ((is_known, last), (~is_known, initial)):
            at = own.nonzero()[:, 0]
            if len(at):
                part = Partition(valid.whole, valid.batch.select(at), valid.models[at], valid.failures)
                fits.append((at, self._fit_models(part, start)))
        return join_ascents(fits) if fits else self._fit_models(valid, initial)
