"""Batches and fits that the tests of estimators share."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fastdens as fd

# Options of a sampler that tests can wait for.
QUICK = {"n_sweeps": 12, "burn_in": 4, "thin": 2, "progress": False}


def clusters(rng: np.random.Generator, n: int, d: int, k: int = 3) -> Tensor:
    """Points [n, d] of k clusters on a line."""
    return torch.from_numpy(rng.normal(size=(n, d)) + 3 * rng.integers(0, k, size=(n, 1)))


def ragged(rng: np.random.Generator, sizes: tuple[int, ...] = (40, 25, 60), d: int = 3) -> fd.RaggedBatch:
    """A batch of models of clusters."""
    return fd.RaggedBatch.from_list([clusters(rng, n, d) for n in sizes])


def quiet_fit(estimator: Any, batch: fd.RaggedBatch, **options: Any) -> Any:
    """The estimator fitted, whether or not it converges."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fd.ConvergenceWarning)
        return estimator.fit(batch, **options)
