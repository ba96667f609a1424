"""pomegranate: EM of one model whose components are distributions of their own."""

from __future__ import annotations

import math
from typing import Any

import torch

from fastdens.bench.cases import Case, Parameters, Peer, Run
from fastdens.bench.outcomes import inertia, mean_log_likelihood, stacked
from fastdens.bench.parameters import parameters_of
from fastdens.bench.peers.divergences import divergence_to_next
from fastdens.bench.peers.given import MAY_STOP_EARLIER, queries_of

# Its names of the types of covariance.
_TYPES = {"full": "full", "diag": "diag", "spherical": "sphere"}


def em(case: Case) -> Run:
    """Each component is a distribution of its own; no improvement is too small to go on."""
    start = parameters_of(case.start, case.variant)

    def work() -> list[Any]:
        return [
            mixture.fit(x) for mixture, x in zip(_mixtures(start, case.variant, case.n_iter), case.points, strict=True)
        ]

    def parameters(fit: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        means = torch.stack([part.means.data for part in fit.distributions])
        covariances = torch.stack([part.covs.data for part in fit.distributions])
        # It repeats a variance that all dimensions share.
        return fit.priors.data, means, covariances[:, 0] if case.variant == "spherical" else covariances

    return Run(
        work,
        lambda fits: mean_log_likelihood(case.points, stacked(map(parameters, fits))),
        note="adds nothing to covariances",
    )


def start(case: Case) -> Run:
    """Lloyd's iterations from random points: it has no k-means++."""
    from pomegranate.kmeans import KMeans

    k = case.problem.n_components

    def work() -> list[Any]:
        return [KMeans(k, init="random", max_iter=case.n_iter, tol=0.0, random_state=0).fit(x) for x in case.points]

    return Run(
        work,
        lambda fits: inertia(case.points, torch.stack([fit.centroids.data for fit in fits])),
        note=f"from random points, {MAY_STOP_EARLIER}",
    )


def log_prob(case: Case) -> Run:
    """Of mixtures made of the parameters."""
    mixtures, queries = _mixtures(parameters_of(case.start, "full"), "full"), queries_of(case)
    return Run(
        lambda: [mixture.log_probability(queries) for mixture in mixtures],
        lambda columns: torch.stack(columns, 1).detach().double(),
    )


def kl(case: Case) -> Run:
    """By draws of its mixtures and their densities."""
    return divergence_to_next(
        case,
        _mixtures(parameters_of(case.start, "full"), "full"),
        lambda density, n: density.sample(n),
        lambda density, draws: density.log_probability(draws),
    )


def _mixtures(parameters: Parameters, covariance_type: str, max_iter: int = 0) -> list[Any]:
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    weights, means, covariances = parameters
    if covariance_type == "spherical":
        covariances = covariances[:, :, None].expand(means.shape)
    return [
        GeneralMixtureModel(
            [
                Normal(mean.clone(), own.clone(), covariance_type=_TYPES[covariance_type], check_data=False)
                for mean, own in zip(means, covariances, strict=True)
            ],
            priors=weights.clone(),
            max_iter=max_iter,
            tol=-math.inf,
            check_data=False,
        )
        for weights, means, covariances in zip(weights, means, covariances, strict=True)
    ]


PEER = Peer(
    name="pomegranate",
    distribution="pomegranate==1.1.2",
    module="pomegranate",
    beyond=(
        "The components of a mixture may be any of its distributions, of different families: Bernoulli, "
        "categorical, gamma, Poisson and others. The same distributions make hidden Markov models, Bayes "
        "classifiers, Markov chains, Bayesian networks and factor graphs. Values may be missing, and single "
        "points may have prior probabilities of their components."
    ),
    operations={"em": em, "start": start, "log_prob": log_prob, "kl": kl},
    variants={"em": tuple(_TYPES), "start": ("kmeans",)},
)
