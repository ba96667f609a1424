"""Out-of-distribution scores: how far features are from those of the training examples, layer by layer.

Every score is larger the further out of distribution an example is. Detectors of one layer take features [N, D];
:class:`LayeredDetector` takes what :func:`fastdens.activations.extract` returns. ``fastdens.ood.pytorch_ood`` has them
as detectors of pytorch-ood.
"""

from __future__ import annotations

import importlib
from typing import Any

from fastdens.ood.base import Detector
from fastdens.ood.layered import LayeredDetector
from fastdens.ood.mahalanobis import Mahalanobis, RelativeMahalanobis
from fastdens.ood.metrics import Evaluation, evaluate, false_positive_rate
from fastdens.ood.mixture_density import MixtureDensity
from fastdens.ood.nearest_neighbours import NearestNeighbours
from fastdens.ood.saved_detectors import load

__all__ = [
    "Detector",
    "Evaluation",
    "LayeredDetector",
    "Mahalanobis",
    "MixtureDensity",
    "NearestNeighbours",
    "RelativeMahalanobis",
    "evaluate",
    "false_positive_rate",
    "load",
]


def __getattr__(name: str) -> Any:
    # It needs pytorch-ood, which nothing else here does.
    if name != "pytorch_ood":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
