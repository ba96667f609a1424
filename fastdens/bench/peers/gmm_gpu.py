"""gmm-gpu: EM of many models at once, full covariances."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastdens.bench.cases import Case, Parameters, Peer, Run
from fastdens.bench.outcomes import groups, mean_log_likelihood
from fastdens.bench.parameters import parameters_of, precisions_cholesky
from fastdens.bench.peers.given import queries_of

# Elements of the outer products [models, N, D, D] of the models that are fitted together: more at a time is no faster.
_ELEMENTS = 1 << 24
_ZERO = "log of densities that are zero in float32"


def em(case: Case) -> Run:
    """All models at once, or as many as their outer products leave room for.

    It takes logarithms of densities, which in float32 are zero below e^-103, as they are for most points in 64
    dimensions; float64 fails in its k-means. There the data are scaled by a number that makes the logarithms small.
    """
    start = parameters_of(case.start, "full")
    _, n, d = case.points.shape
    together = groups(len(case.points), n * d * max(d, case.problem.n_components), _ELEMENTS)
    scale = 1.0
    if _some_zero(case.points, start, together):
        scale = math.exp(float(mean_log_likelihood(case.points, start).mean()) / d)
        start = Parameters(start.weights, scale * start.means, scale**2 * start.covariances)
    points = scale * case.points
    if _some_zero(points, start, together):
        raise ArithmeticError(_ZERO)

    def fits(max_iter: int) -> list[Any]:
        mixtures = [_mixture(_models(start, models), max_iter) for models in together]
        for mixture, models in zip(mixtures, together, strict=True):
            mixture.fit(points[models])
        return mixtures

    def outcome(mixtures: list[Any]) -> Tensor:
        # Its weights have no public name.
        parts = [(mixture._pi, mixture.means, mixture.covs) for mixture in mixtures]
        weights, means, covariances = (
            torch.cat([torch.stack(part, 1) for part in every]) for every in zip(*parts, strict=True)
        )
        return mean_log_likelihood(case.points, Parameters(weights, means / scale, covariances / scale**2))

    note = "without its k-means, which cannot be turned off"
    if scale != 1:
        note += "; data scaled, so that its densities are not zero"
    return Run(lambda: fits(case.n_iter), outcome, before=lambda: fits(0), note=note)


def log_prob(case: Case) -> Run:
    """All models at once, or as many as the scores leave room for, each with its own copy of the queries."""
    start, queries = parameters_of(case.start, "full"), queries_of(case)
    q, d = queries.shape
    n, k = case.problem.n_points, case.problem.n_components
    ready = []
    for models in groups(len(start.means), (max(q, n) * k + k * d) * d, _ELEMENTS):
        own = _models(start, models)
        points = queries.expand(len(own.means), q, d)
        density = _density(own, case.points[models])
        if not bool(density.score_samples(points).isfinite().all()):
            raise ArithmeticError(_ZERO)
        ready.append((density, points))
    return Run(
        lambda: [density.score_samples(points) for density, points in ready], lambda rows: torch.cat(rows).T.double()
    )


def _some_zero(points: Tensor, start: Parameters, together: list[slice]) -> bool:
    for models in together:
        own = points[models]
        if not bool(_density(_models(start, models), own).score_samples(own).isfinite().all()):
            return True
    return False


def _density(parameters: Parameters, points: Tensor) -> Any:
    """A mixture with these parameters: what no iteration makes of them."""
    mixture = _mixture(parameters, 0)
    mixture.fit(points)
    return mixture


def _mixture(start: Parameters, max_iter: int) -> Any:
    from gmm_gpu.gmm import GMM

    factors = precisions_cholesky(start.covariances.double())
    return GMM(
        start.means.shape[1],
        max_iter=max_iter,
        device="cpu",
        tol=0,
        # It writes into the means and weights that it is given.
        means_init=start.means.clone(),
        weights_init=start.weights.clone(),
        precisions_init=(factors @ factors.mT).float(),
        random_seed=1,
    )


def _models(parameters: Parameters, models: slice) -> Parameters:
    return Parameters(*(part[models] for part in parameters))


def _held(case: Case) -> int:
    shape = case.problem
    return 2 * 4 * max(_ELEMENTS, shape.n_points * shape.n_features**2)


PEER = Peer(
    name="gmm-gpu",
    distribution="gmm-gpu==0.2.8",
    module="gmm_gpu",
    beyond=(
        "A point that holds NaN counts as absent, so that models of different sizes can be padded to one tensor; "
        "fastdens refuses NaN, and takes models of any sizes as they are. All of it is 645 lines of plain torch, "
        "which can be read in an hour and are not bound to CUDA or the CPU."
    ),
    operations={"em": em, "log_prob": log_prob},
    variants={"em": ("full",)},
    holds={"em": _held},
    together=True,
)
