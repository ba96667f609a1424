"""tgmm: EM of one model, all types of covariance; a collapsed Gibbs sampler; starts."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from fastdens.bench.cases import Case, Parameters, Peer, Run
from fastdens.bench.outcomes import inertia, mean_log_likelihood, stacked
from fastdens.bench.parameters import parameters_of
from fastdens.bench.peers.divergences import divergence_to_next
from fastdens.bench.peers.given import MAY_STOP_EARLIER, PLAIN, queries_of
from fastdens.bench.peers.global_generators import seeded
from fastdens.bench.prior import KAPPA0, prior_of

# It holds several arrays of batch_size x K x D: so many elements in one.
_ELEMENTS = 1 << 22


def em(case: Case) -> Run:
    """From the given parameters; rows in parts where all of them would hold too much at a time."""
    start = parameters_of(case.start, case.variant)
    mixtures = _mixtures(case, start, case.variant, case.n_iter)

    def work() -> list[Any]:
        with warnings.catch_warnings(action="ignore"):  # That iterations did not converge.
            return [mixture.fit(x) for mixture, x in zip(mixtures, case.points, strict=True)]

    return Run(
        work,
        lambda fits: mean_log_likelihood(
            case.points, stacked((fit.weights_, fit.means_, fit.covariances_) for fit in fits)
        ),
    )


def start(case: Case) -> Run:
    """Its k-means++ alone, or with the iterations of its k-means."""
    from tgmm import GMMInitializer

    k = case.problem.n_components

    def chosen() -> list[Tensor]:
        return [GMMInitializer.kpp(x, k, random_state=0) for x in case.points]

    def moved() -> list[Tensor]:
        return [GMMInitializer.kmeans(x, k, max_iter=case.n_iter, atol=0, random_state=0) for x in case.points]

    plain = case.variant == "kmeans++"
    return Run(
        chosen if plain else moved,
        lambda centres: inertia(case.points, torch.stack(centres)),
        note=PLAIN if plain else f"{PLAIN}, {MAY_STOP_EARLIER}",
    )


def gibbs(case: Case) -> Run:
    """Neal's algorithm 3 with fastdens' prior, which it asks for, and a concentration that stays as it is."""
    from tgmm import GaussianMixture, GMMInitializer

    k, d = case.problem.n_components, case.problem.n_features
    prior = prior_of(case.points, k)

    def work() -> list[Any]:
        with seeded(), warnings.catch_warnings(action="ignore"):
            return [
                GaussianMixture(
                    n_components=None,
                    max_components=None,
                    init_k=k,
                    max_iter=case.n_iter,
                    burn_in=case.n_iter // 2,
                    alpha=1.0,
                    mean_prior=mean,
                    mean_precision_prior=KAPPA0,
                    covariance_prior=scale,
                    degrees_of_freedom_prior=d + 2.0,
                    device="cpu",
                ).fit(x)
                for x, mean, scale in zip(case.points, *prior, strict=True)
            ]

    def outcome(fits: list[Any]) -> Tensor:
        counts = torch.tensor([fit.n_components_history_ for fit in fits], device="cpu", dtype=torch.float64)
        return counts.mean(1)

    return Run(
        work,
        outcome,
        before=lambda: [GMMInitializer.kmeans(x, k) for x in case.points],
        note="concentration fixed at 1; from a k-means of its own, which is not counted",
    )


def log_prob(case: Case) -> Run:
    """Of estimators whose parameters are set instead of fitted."""
    mixtures, queries = _densities(case), queries_of(case)
    return Run(
        lambda: [mixture.score_samples(queries) for mixture in mixtures],
        lambda columns: torch.stack(columns, 1).double(),
    )


def kl(case: Case) -> Run:
    """By draws of its estimators and their densities."""
    return divergence_to_next(
        case,
        _densities(case),
        lambda density, n: density.sample(n)[0],
        lambda density, draws: density.score_samples(draws),
    )


def _densities(case: Case) -> list[Any]:
    parameters = parameters_of(case.start, "full")
    mixtures = _mixtures(case, parameters, "full", 1)
    for mixture, weights, means, covariances in zip(mixtures, *parameters, strict=True):
        mixture.weights_, mixture.means_, mixture.covariances_ = weights, means, covariances
        mixture.fitted_ = mixture.converged_ = True
    return mixtures


def _mixtures(case: Case, start: Parameters, covariance_type: str, max_iter: int) -> list[Any]:
    from tgmm import GaussianMixture

    k, d = start.means.shape[1:]
    return [
        GaussianMixture(
            n_components=k,
            n_features=d,
            covariance_type=covariance_type,
            max_iter=max_iter,
            # It takes no tolerance of zero; this one stops it at no change whatever.
            tol=1e-300,
            init_weights=weights,
            init_means=means,
            init_covariances=covariances,
            batch_size=_ELEMENTS // (k * d) if case.problem.n_points * k * d > _ELEMENTS else None,
            device="cpu",
        )
        for weights, means, covariances in zip(*start, strict=True)
    ]


PEER = Peer(
    name="tgmm",
    distribution="tgmm==0.4.3",
    module="tgmm",
    beyond=(
        "The library with the most kinds of mixture: 14 covariance structures, priors of all parameters, "
        "classification, stochastic and annealed EM, missing values, a noise component, bounds on parameters, "
        "labels for some of the points, and mixtures of Student-t and von Mises-Fisher distributions, none of "
        "which fastdens fits. It also has HDBSCAN and indices of how good a clustering is."
    ),
    operations={"em": em, "start": start, "gibbs": gibbs, "log_prob": log_prob, "kl": kl},
)
