"""Batches and fits that the tests of estimators share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray
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


def scipy_log_density(
    x: NDArray[np.float64],
    train: NDArray[np.float64],
    labels: Iterable[NDArray[np.integer]],
    alphas: Iterable[float],
    kappa0: float,
    nu0: float,
    k0: int,
    weighting: str = "exact",
) -> NDArray[np.float64]:
    """The predictive mixture of kept draws, written out with scipy's Student-t."""
    d, n = train.shape[1], len(train)
    m0, s0 = train.mean(0), np.diag(train.var(0) / k0 ** (2 / d))

    def student(points: NDArray[np.float64]) -> NDArray[np.float64]:
        kappa, nu = kappa0 + len(points), nu0 + len(points)
        mean = points.mean(0) if len(points) else m0
        scatter = (points - mean).T @ (points - mean) + kappa0 * len(points) / kappa * np.outer(mean - m0, mean - m0)
        df = nu - d + 1
        location = (kappa0 * m0 + len(points) * mean) / kappa
        return scipy.stats.multivariate_t(location, (s0 + scatter) * (kappa + 1) / (kappa * df), df).pdf(x)

    total: Any = 0.0
    n_draws = 0
    for own, alpha in zip(labels, alphas, strict=True):
        sizes = np.bincount(own)
        n_draws += 1
        if weighting == "exact":
            share = sizes / (alpha + n)
            total = total + alpha / (alpha + n) * student(train[:0])
        else:
            share = (alpha + sizes) / (alpha + sizes).sum()
        total = total + sum(w * student(train[own == k]) for k, w in enumerate(share))
    return np.log(total / n_draws)
