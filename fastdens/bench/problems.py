"""The sizes that are timed, and data of them: clustered, seeded, and made by torch alone, so friendly to no library."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastdens.bench.cases import Parameters, Problem

PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("paper-16", 100, 500, 16, 6),
        Problem("paper-64", 100, 500, 64, 6),
        Problem("paper-16-tenth", 10, 500, 16, 6),
        Problem("imagenet", 4000, 1300, 64, 6),
        Problem("imagenet-tenth", 400, 1300, 64, 6),
        Problem("tiny", 100_000, 20, 2, 2),
        Problem("big", 1, 200_000, 64, 64),
        Problem("large", 1, 20_000, 32, 16),
        Problem("wide", 10, 600, 512, 1),
        Problem("small", 1, 300, 16, 6),
    )
}

# Numbers of the points that are worked on at a time.
_MAX_ELEMENTS = 1 << 22
# Of each cluster.
_POINTS_OF_A_MEAN = 20
# Added to the variances of densities that are made of few points.
_VARIANCE_FLOOR = 1e-2


def clustered_points(problem: Problem, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points float32 [M, N, D] of K clusters in each model, and the cluster of each, int64 [M, N], in random order.

    The clusters are unit Gaussians of equal size, their centres standard normal: in few dimensions they lie on top of
    each other, in many they are apart.
    """
    generator = torch.Generator().manual_seed(seed)
    m, n, d, k = problem.n_models, problem.n_points, problem.n_features, problem.n_components
    centres = torch.randn(m, k, d, generator=generator, device="cpu", dtype=torch.float32)
    order = torch.rand(m, n, generator=generator, device="cpu", dtype=torch.float32).argsort(1)
    labels = order % k
    points = torch.randn(m, n, d, generator=generator, device="cpu", dtype=torch.float32)
    for part in _parts(points):
        model = torch.arange(part.stop - part.start, device="cpu")[:, None]
        points[part] += centres[part][model, labels[part]]
    return points, labels


def start_of_em(points: Tensor, labels: Tensor, n_components: int) -> Parameters:
    """Equal weights, the mean of some points of each cluster, and the covariance of all points for each component.

    EM goes from there to clusters of more points than dimensions, in which no covariance becomes singular: libraries
    give up on those in different ways, which is not what is timed.
    """
    m, _, d = points.shape
    k = n_components
    weights = torch.full((m, k), 1 / k, device="cpu", dtype=torch.float32)
    means = torch.empty(m, k, d, device="cpu", dtype=torch.float32)
    covariances = torch.empty(m, d, d, device="cpu", dtype=torch.float32)
    for part in _parts(points):
        covariances[part] = _moments(points[part], torch.ones_like(points[part][..., 0]))[1]
        for component in range(k):
            own = labels[part] == component
            few = own & (own.cumsum(1) <= _POINTS_OF_A_MEAN)
            share = few.float() / few.sum(1, keepdim=True).clamp_min(1)
            means[part, component] = (share[:, None] @ points[part])[:, 0]
    return Parameters(weights, means, covariances[:, None].expand(m, k, d, d))


def densities(points: Tensor, labels: Tensor, n_components: int) -> Parameters:
    """Mixtures [M] whose components have the weights, means and covariances of the clusters ``labels`` int64 [M, N]."""
    m, n, d = points.shape
    k = n_components
    weights = torch.empty(m, k, device="cpu", dtype=torch.float32)
    means = torch.empty(m, k, d, device="cpu", dtype=torch.float32)
    covariances = torch.empty(m, k, d, d, device="cpu", dtype=torch.float32)
    for part in _parts(points):
        for component in range(k):
            own = (labels[part] == component).float()
            # No weight is zero, though a small model may lack a cluster.
            weights[part, component] = (own.sum(1) + 1) / (n + k)
            means[part, component], covariances[part, component] = _moments(points[part], own)
    covariances.diagonal(dim1=-2, dim2=-1).add_(_VARIANCE_FLOOR)
    return Parameters(weights, means, covariances)


def queries(problem: Problem, n_queries: int = 2000, seed: int = 1) -> Tensor:
    """Points float32 [Q, D] that no model has seen: standard normal, as wide as the data."""
    generator = torch.Generator().manual_seed(seed)
    d = problem.n_features
    return math.sqrt(2) * torch.randn(n_queries, d, generator=generator, device="cpu", dtype=torch.float32)


def _moments(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean [A, D] and covariance [A, D, D] of the points of each model."""
    share = (weights / weights.sum(1, keepdim=True).clamp_min(1))[..., None]
    mean = (share * points).sum(1)
    centred = points - mean[:, None]
    return mean, (share * centred).mT @ centred


def _parts(points: Tensor) -> list[slice]:
    """Runs of models whose points are few enough to be copied."""
    m, n, d = points.shape
    step = max(1, _MAX_ELEMENTS // (n * d))
    return [slice(begin, min(m, begin + step)) for begin in range(0, m, step)]
