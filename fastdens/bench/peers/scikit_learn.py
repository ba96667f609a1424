"""scikit-learn: mixtures, k-means and neighbours, one model at a time."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdens.bench.cases import Case, Peer, Run
from fastdens.bench.outcomes import inertia, mean_log_likelihood, stacked
from fastdens.bench.parameters import parameters_of, precisions_cholesky
from fastdens.bench.peers.divergences import divergence_to_next
from fastdens.bench.peers.given import MAY_STOP_EARLIER, OWN_DRAWS, labels_of, queries_of
from fastdens.bench.prior import KAPPA0, prior_of


def em(case: Case) -> Run:
    """From the given parameters: with all three given, nothing else is initialized."""
    from sklearn.mixture import GaussianMixture

    start = parameters_of(case.start, case.variant)
    mixtures = [
        GaussianMixture(
            case.problem.n_components,
            covariance_type=case.variant,
            tol=0,
            max_iter=case.n_iter,
            weights_init=weights.numpy(),
            means_init=means.numpy(),
            precisions_init=_precisions(covariances, case.variant).numpy(),
        )
        for weights, means, covariances in zip(*start, strict=True)
    ]
    return _fitted(case, mixtures)


def variational(case: Case) -> Run:
    """Truncated stick-breaking from the labels, with fastdens' prior."""
    from sklearn.mixture import BayesianGaussianMixture

    class FromLabels(BayesianGaussianMixture):  # type: ignore[misc, unused-ignore]
        """Begins with given responsibilities, for which the library has no option."""

        def _initialize_parameters(self, X: Any, *_: Any, **__: Any) -> None:
            self._initialize(X, self.responsibilities)

    n, d, k = case.problem.n_points, case.problem.n_features, case.problem.n_components
    mixtures = []
    for labels, mean, scale in zip(labels_of(case), *prior_of(case.points, k), strict=True):
        mixture = FromLabels(
            n_components=k,
            weight_concentration_prior=1.0,
            mean_precision_prior=KAPPA0,
            mean_prior=mean.numpy(),
            degrees_of_freedom_prior=d + 2,
            covariance_prior=scale.numpy(),
            reg_covar=0,
            tol=0,
            max_iter=case.n_iter,
        )
        mixture.responsibilities = np.zeros((n, k), dtype=np.float32)
        mixture.responsibilities[np.arange(n), labels.numpy()] = 1
        mixtures.append(mixture)
    return _fitted(case, mixtures)


def _precisions(covariances: Tensor, covariance_type: str) -> Tensor:
    if covariance_type in ("full", "tied"):
        factor = precisions_cholesky(covariances.double())
        return (factor @ factor.mT).to(covariances.dtype)
    return covariances.reciprocal()


def _fitted(case: Case, mixtures: list[Any]) -> Run:
    arrays = [x.numpy() for x in case.points]

    def work() -> list[Any]:
        with warnings.catch_warnings(action="ignore"):  # That iterations did not converge.
            return [mixture.fit(x) for mixture, x in zip(mixtures, arrays, strict=True)]

    def parameters(fit: Any) -> tuple[Tensor, Tensor, Tensor]:
        return torch.from_numpy(fit.weights_), torch.from_numpy(fit.means_), torch.from_numpy(fit.covariances_)

    return Run(work, lambda fits: mean_log_likelihood(case.points, stacked(map(parameters, fits))))


def start(case: Case) -> Run:
    """Greedy k-means++ alone, or followed by Lloyd's iterations."""
    from sklearn.cluster import KMeans, kmeans_plusplus

    k, arrays = case.problem.n_components, [x.numpy() for x in case.points]

    def chosen() -> list[Any]:
        return [kmeans_plusplus(x, k, random_state=0)[0] for x in arrays]

    def moved() -> list[Any]:
        with warnings.catch_warnings(action="ignore"):  # Of fewer distinct points than clusters.
            return [
                KMeans(k, n_init=1, max_iter=case.n_iter, tol=0, random_state=0).fit(x).cluster_centers_ for x in arrays
            ]

    def outcome(centres: list[Any]) -> Tensor:
        return inertia(case.points, torch.stack([torch.from_numpy(own) for own in centres]))

    if case.variant == "kmeans++":
        return Run(chosen, outcome, note=OWN_DRAWS)
    return Run(moved, outcome, note=f"{OWN_DRAWS}, {MAY_STOP_EARLIER}")


def log_prob(case: Case) -> Run:
    """Of estimators whose parameters are set instead of fitted."""
    densities = _densities(case)
    queries = queries_of(case).numpy()
    return Run(
        lambda: [density.score_samples(queries) for density in densities],
        lambda columns: torch.stack([torch.from_numpy(column) for column in columns], 1).double(),
    )


def kl(case: Case) -> Run:
    """By draws of its estimators and their densities."""
    return divergence_to_next(
        case,
        _densities(case),
        lambda density, n: density.sample(n)[0].astype(np.float32),
        lambda density, draws: density.score_samples(draws),
    )


def _densities(case: Case) -> list[Any]:
    from sklearn.mixture import GaussianMixture

    parameters = parameters_of(case.start, "full")
    made = []
    for weights, means, covariances in zip(*parameters, strict=True):
        density = GaussianMixture(case.problem.n_components, random_state=0)
        density.weights_, density.means_, density.covariances_ = weights.numpy(), means.numpy(), covariances.numpy()
        density.precisions_cholesky_ = precisions_cholesky(covariances).numpy()
        made.append(density)
    return made


def neighbours(case: Case) -> Run:
    """By the structure that it chooses itself, which is built beforehand."""
    from sklearn.neighbors import NearestNeighbors

    points, queries = case.points.flatten(0, 1).numpy(), queries_of(case).numpy()
    search = NearestNeighbors(n_neighbors=case.n_iter, n_jobs=torch.get_num_threads()).fit(points)
    return Run(
        lambda: search.kneighbors(queries)[0],
        lambda distances: torch.from_numpy(distances[:, -1]).double(),
    )


PEER = Peer(
    name="scikit-learn",
    distribution="scikit-learn==1.9.1",
    module="sklearn",
    beyond=(
        "A library for all of machine learning, of which mixtures are a small part, and the one whose conventions "
        "the others follow. Its variational mixtures also have diagonal, spherical and tied covariances, and a "
        "Dirichlet distribution of weights in place of a process; fastdens has full covariances and the process "
        "only. Its k-means and its neighbours are estimators of their own, with several algorithms to choose "
        "from."
    ),
    operations={
        "em": em,
        "start": start,
        "log_prob": log_prob,
        "variational": variational,
        "kl": kl,
        "neighbours": neighbours,
    },
)
