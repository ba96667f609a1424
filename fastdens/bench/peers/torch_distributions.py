"""torch.distributions: a batch of mixtures as a density."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastdens.bench.cases import Case, Peer, Run
from fastdens.bench.outcomes import groups
from fastdens.bench.parameters import parameters_of
from fastdens.bench.peers.given import OWN_DRAWS, queries_of
from fastdens.bench.peers.global_generators import seeded

# Elements of the differences [Q, models, K, D] of the models whose densities are computed together.
_ELEMENTS = 1 << 24


def log_prob(case: Case) -> Run:
    """Of batches of mixtures, as many models in one as the differences leave room for."""
    queries = queries_of(case)[:, None]
    mixtures = [_mixtures(case, models) for models in _together(case, len(queries))]
    return Run(
        lambda: [mixture.log_prob(queries) for mixture in mixtures],
        lambda columns: torch.cat(columns, 1).double(),
    )


def kl(case: Case) -> Run:
    """By draws of batches of mixtures and their densities."""
    m = len(case.points)
    together = _together(case, case.n_iter)
    following = (torch.arange(m, device="cpu", dtype=torch.int64) + 1) % m
    pairs = [(_mixtures(case, models), _mixtures(case, following[models])) for models in together]

    def work() -> list[Tensor]:
        means = []
        with seeded():
            for mixture, other in pairs:
                draws = mixture.sample((case.n_iter,))
                means.append((mixture.log_prob(draws) - other.log_prob(draws)).mean(0))
        return means

    return Run(work, lambda means: torch.cat(means).double(), note=OWN_DRAWS)


def _together(case: Case, n_points: int) -> list[slice]:
    return groups(len(case.points), n_points * case.problem.n_components * case.problem.n_features, _ELEMENTS)


def _mixtures(case: Case, models: slice | Tensor) -> Any:
    from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

    weights, means, covariances = (part[models] for part in parameters_of(case.start, "full"))
    # Parameters that are known to be right need no checks.
    return MixtureSameFamily(
        Categorical(weights, validate_args=False),
        MultivariateNormal(means, covariances, validate_args=False),
        validate_args=False,
    )


PEER = Peer(
    name="torch.distributions",
    distribution="torch",
    module="torch",
    beyond=(
        "Part of torch. Log-densities have derivatives in the parameters, which fastdens refuses, so that a "
        "mixture can be a layer that is trained. Components may be of any family, transformed, or mixed in "
        "several levels."
    ),
    operations={"log_prob": log_prob, "kl": kl},
    together=True,
)
