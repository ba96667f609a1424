"""The shapes that are timed, and data for them: clustered, seeded, never friendlier for one library than another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """M models of N points in D dimensions, K components, and the EM iterations to time."""

    name: str
    n_models: int
    n_points: int
    n_features: int
    n_components: int
    n_iter: int
    peer_models: int
    """Peers that loop over models are timed on this many and scaled up."""


SHAPES = (
    Shape("paper 100x500x16", 100, 500, 16, 6, 20, 100),
    Shape("paper 100x500x64", 100, 500, 64, 6, 20, 100),
    Shape("ImageNet 4000x1300x64", 4000, 1300, 64, 6, 2, 10),
    Shape("tiny 100000x20x2", 100_000, 20, 2, 2, 10, 100),
    Shape("big 200000x64 K=64", 1, 200_000, 64, 64, 2, 1),
)
TINY = Shape("tiny grid", 3, 40, 5, 2, 2, 3)


def clustered_points(shape: Shape, seed: int = 0, device: str = "cpu") -> Tensor:
    """Float32 points [M, N, D] in K overlapping clusters a model."""
    generator = torch.Generator().manual_seed(seed)
    m, n, d, k = shape.n_models, shape.n_points, shape.n_features, shape.n_components
    centres = torch.randn(m, k, d, generator=generator)
    label = torch.randint(0, k, (m, n), generator=generator)
    points = torch.randn(m, n, d, generator=generator)
    points += centres[torch.arange(m)[:, None], label]
    return points.to(device)
