"""The same EM in fastdens and in other libraries: each function returns a callable to be timed.

All run float32 for exactly ``n_iter`` iterations from a random start. gmm-gpu has no other start than k-means, which
cannot be turned off: its EM loop alone is what is reported, as the time of a fit less that of a fit of no iterations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

import fastdens as fd

Timed = Callable[[], object]


def fastdens_fit(points: Tensor, k: int, n_iter: int, covariance_type: str, backend: str = "auto", **options) -> Timed:
    """All models in one fit."""
    m, n, d = points.shape
    labels = torch.arange(m, device=points.device).repeat_interleave(n)
    batch = fd.RaggedBatch.from_labels(points.reshape(m * n, d), labels)
    options = {"init_params": "random", **options}
    estimator = fd.GaussianMixtures(
        k, covariance_type=covariance_type, tol=0, max_iter=n_iter, backend=backend, **options
    )
    return lambda: estimator.fit(batch)


def sklearn_fit(points: Tensor, k: int, n_iter: int, covariance_type: str, init_params: str = "random") -> Timed:
    """A loop over scikit-learn's GaussianMixture."""
    from sklearn.mixture import GaussianMixture

    arrays = list(points.numpy())

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for x in arrays:
                GaussianMixture(
                    k, covariance_type=covariance_type, tol=0, max_iter=n_iter, init_params=init_params, random_state=0
                ).fit(x)

    return run


def gmm_gpu_fit(points: Tensor, k: int, n_iter: int) -> Timed:
    """gmm-gpu 0.2.8, full covariances only, all models in one batch."""
    from gmm_gpu.gmm import GMM

    return lambda: GMM(k, max_iter=n_iter, device=str(points.device), tol=0, random_seed=1).fit(points)


def tgmm_fit(points: Tensor, k: int, n_iter: int, covariance_type: str) -> Timed:
    """A loop over tgmm's GaussianMixture."""
    from tgmm import GaussianMixture

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for x in points:
                GaussianMixture(
                    n_components=k,
                    n_features=x.shape[1],
                    covariance_type=covariance_type,
                    max_iter=n_iter,
                    # It takes no tolerance of zero; this one stops it at no change whatever.
                    tol=1e-300,
                    init_means="random",
                    random_state=0,
                ).fit(x)

    return run
