"""The least that an operation costs: its matrix products alone, or one read of the points, timed in the same process.

A floor is what a perfect implementation by torch's own products would take. Only a read bounds the time from below for
certain: a product with a triangular matrix, and one whose result is symmetric, need half of the operations of the
general products here, so a library may stay below them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens.bench.cases import Case
from fastdens.bench.ours import N_FACTORS
from fastdens.bench.peers.given import queries_of

# Numbers in a result at a time: so many stay in a cache.
_MAX_ELEMENTS = 1 << 20


class Floor(NamedTuple):
    """What is timed, and what it is in words."""

    work: Callable[[], object]
    what: str


def em(case: Case) -> Floor:
    """Products of the E and the M step, or one read of the points, in each iteration.

    Full: points [N, D] by factors [D, K D], and transposed points [D, N] by weighted points [N, K D]. Tied: points by
    one factor and by the means, [D, D + K], and by responsibilities [N, K]; the scatter of all points is made once.
    With variances alone the work follows the points as they are read.
    """
    d, k = case.problem.n_features, case.problem.n_components
    if case.variant in ("diag", "spherical"):
        return Floor(_reads(case.points, case.n_iter), "one read of the points an iteration")
    if case.variant == "full":
        return Floor(products_of_em(case.points, k, case.n_iter), "the products of E and M step")
    return Floor(_products(case.points, (d + k, k), case.n_iter), "the products of E and M step")


def factors(case: Case) -> Floor:
    """Products of the points with the loadings, [D, K F], and of the points with the factors, in each iteration."""
    width = case.problem.n_components * N_FACTORS
    return Floor(_products(case.points, (width, width), case.n_iter), "the products with the loadings")


def start(case: Case) -> Floor:
    """Products of the distances: 2 + log K candidates for each centre but the first; all centres in each iteration."""
    k = case.problem.n_components
    candidates = _products(case.points, (2 + int(math.log(k)), 0), k - 1)
    assignments = _products(case.points, (k, 0), case.n_iter)

    def work() -> None:
        candidates()
        assignments()

    return Floor(work, "the products of the distances")


def log_prob(case: Case) -> Floor:
    """Products of the queries [Q, D] with the factors of all components, [D, M K D]."""
    wide = case.problem.n_models * case.problem.n_components * case.problem.n_features
    return Floor(_wide_product(queries_of(case), wide), "the product of the queries with all factors")


def gibbs(case: Case) -> Floor:
    """Products of the points [N, D] with one factor [D, K D] a cluster, K the clusters of the data, in each sweep.

    They are the quadratic forms of all points under all clusters: what a sweep costs in which no point moves.
    """
    width = case.problem.n_components * case.problem.n_features
    return Floor(_products(case.points, (width, 0), case.n_iter), "the quadratic forms of all points")


def variational(case: Case) -> Floor:
    """Products of the E and the M step of full covariances, as of EM."""
    work = products_of_em(case.points, case.problem.n_components, case.n_iter)
    return Floor(work, "the products of E and M step")


def kl(case: Case) -> Floor:
    """Products of the draws of each model with the factors of two models, [D, K D] each."""
    m, d = case.problem.n_models, case.problem.n_features
    draws = torch.zeros(m, case.n_iter, d, device="cpu", dtype=torch.float32)
    width = case.problem.n_components * d
    return Floor(_products(draws, (width, 0), 2), "the products of the draws with two models' factors")


def neighbours(case: Case) -> Floor:
    """The product of the queries [Q, D] with the points of all models, [D, M N]."""
    return Floor(
        _wide_product(queries_of(case), case.problem.n_models * case.problem.n_points), "the product of the distances"
    )


def scores(case: Case) -> Floor:
    """The covariance of all points, [D, N] by [N, D], and the distances: queries by one factor, and by all means."""
    covariance = _products(case.points, (0, case.problem.n_features), 1)
    distances = _wide_product(queries_of(case), case.problem.n_features + case.problem.n_models)

    def work() -> None:
        covariance()
        distances()

    return Floor(work, "the products of the covariance and the distances")


FLOORS: Mapping[str, Callable[[Case], Floor]] = MappingProxyType(
    {
        "em": em,
        "factors": factors,
        "start": start,
        "log_prob": log_prob,
        "gibbs": gibbs,
        "variational": variational,
        "kl": kl,
        "neighbours": neighbours,
        "scores": scores,
    }
)
"""By operation; chains until they agree have no floor."""


def products_of_em(points: Tensor, n_components: int, n_iter: int) -> Callable[[], None]:
    """The products of ``n_iter`` iterations with full covariances of points [M, N, D], on their device."""
    width = n_components * points.shape[2]
    return _products(points, (width, width), n_iter)


def _products(points: Tensor, widths: tuple[int, int], n_times: int) -> Callable[[], None]:
    """``points @ [D, widths[0]]`` and ``points' @ [N, widths[1]]`` of every model, so many times."""
    m, n, d = points.shape
    wide, wide_back = widths
    widest = max(wide, wide_back, 1)
    rows = min(n, max(1, _MAX_ELEMENTS // widest))
    step = max(1, min(m, _MAX_ELEMENTS // (rows * widest)))
    forth, out = points.new_ones(step, d, wide), points.new_empty(step, rows, wide)
    back, out_back = points.new_ones(step, rows, wide_back), points.new_empty(step, d, wide_back)

    def work() -> None:
        for _ in range(n_times):
            for begin in range(0, m, step):
                for row in range(0, n, rows):
                    x = points[begin : begin + step, row : row + rows]
                    a, b = x.shape[:2]
                    if wide:
                        torch.bmm(x, forth[:a], out=out[:a, :b])
                    if wide_back:
                        torch.bmm(x.mT, back[:a, :b], out=out_back[:a])

    return work


def _wide_product(x: Tensor, width: int) -> Callable[[], None]:
    """``x @ [D, width]``, in pieces."""
    step = max(1, min(width, _MAX_ELEMENTS // len(x)))
    factor, out = x.new_ones(x.shape[1], step), x.new_empty(len(x), step)

    def work() -> None:
        for begin in range(0, width, step):
            own = min(step, width - begin)
            torch.mm(x, factor[:, :own], out=out[:, :own])

    return work


def _reads(points: Tensor, n_times: int) -> Callable[[], None]:
    def work() -> None:
        for _ in range(n_times):
            points.sum()

    return work
