"""pytorch-gmm: EM of one model, full or diagonal covariances."""

from __future__ import annotations

from typing import Any

import torch

from fastdens.bench.cases import Case, Parameters, Peer, Run
from fastdens.bench.outcomes import mean_log_likelihood, stacked
from fastdens.bench.parameters import parameters_of
from fastdens.bench.peers.given import queries_of


def em(case: Case) -> Run:
    """Without its lower limits of weights and variances, and without its test of convergence."""
    start = parameters_of(case.start, case.variant)

    def work() -> list[Any]:
        mixtures = _mixtures(start)
        for mixture, x in zip(mixtures, case.points, strict=True):
            mixture.train(x, n_iter=case.n_iter, w_eps=0, sigma_eps=0, convergence_threshold=None)
        return mixtures

    return Run(
        work,
        lambda fits: mean_log_likelihood(case.points, stacked((fit.w, fit.mu, fit.sigma) for fit in fits)),
        note="adds nothing to covariances",
    )


def log_prob(case: Case) -> Run:
    """Of mixtures made of the parameters: the sum over the components of what it calls probability."""
    mixtures, queries = _mixtures(parameters_of(case.start, "full")), queries_of(case)
    return Run(
        lambda: [mixture.probability(queries).logsumexp(1) for mixture in mixtures],
        lambda columns: torch.stack(columns, 1).double(),
    )


def _mixtures(parameters: Parameters) -> list[Any]:
    from pytorch_gmm import GMM

    # It writes into the parameters that it is given.
    return [GMM(*(part.clone() for part in own)) for own in zip(*parameters, strict=True)]


def _held(points: int, case: Case) -> int:
    shape = case.problem
    return 2 * 4 * points * shape.n_components * shape.n_features * (1 if case.variant == "diag" else shape.n_features)


PEER = Peer(
    name="pytorch-gmm",
    distribution="pytorch-gmm==0.1.1",
    module="pytorch_gmm",
    beyond=(
        "Covariances may also be block-diagonal, with blocks of two dimensions. A mixture can be grown from one "
        "component by splitting each in two until there are enough, and written in the format of the speech "
        "toolkit SPTK."
    ),
    operations={"em": em, "log_prob": log_prob},
    variants={"em": ("full", "diag")},
    holds={
        "em": lambda case: _held(case.problem.n_points, case),
        "log_prob": lambda case: _held(len(queries_of(case)), case),
    },
)
