"""Models of several layers: a mapping from layer name to the fitted models of its classes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from fastdens.batch import RaggedBatch


class ClassLayerModels(Mapping[str, Any]):
    """One fitted estimator for each layer; layers may differ in D.

    Parameters
    ----------
    batches : mapping of str to RaggedBatch
        The points of each layer.
    models : mapping of str to estimator
        The estimator fitted on each of them.
    """

    def __init__(self, batches: Mapping[str, RaggedBatch], models: Mapping[str, Any]) -> None:
        self.batches = dict(batches)
        self._models = dict(models)

    @classmethod
    def fit(cls, estimator: Any, batches: Mapping[str, RaggedBatch]) -> ClassLayerModels:
        """Fit a copy of ``estimator`` on every layer."""
        return cls(batches, {layer: copy.deepcopy(estimator).fit(batch) for layer, batch in batches.items()})

    def __getitem__(self, layer: str) -> Any:
        if layer not in self._models:
            raise KeyError(f"there is no layer {layer!r}: the layers are {', '.join(map(repr, self._models))}.")
        return self._models[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def map(self, function: Callable[[Any, RaggedBatch], Tensor]) -> dict[str, Tensor]:
        """``function(models, batch)`` of every layer, e.g. ``lambda gm, batch: gm.score_samples(batch)``."""
        return {layer: function(self._models[layer], self.batches[layer]) for layer in self}
