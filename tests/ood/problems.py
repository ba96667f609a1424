"""Features of classes that overlap, and features that are of none of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def classes(
    rng: np.random.Generator, sizes: list[int], n_features: int, dtype: torch.dtype = torch.float64, shift: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Features [N, D] with labels [N], and others [60, D] of which some lie far off."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rng.shuffle(labels)
    # Peers in float32 invert the covariance: its condition number is that of a well-posed problem.
    root = np.linalg.qr(rng.normal(size=(n_features, n_features))).Q * rng.uniform(1, 4, n_features)
    means = 2 * rng.normal(size=(len(sizes), n_features))
    x = means[labels] + rng.normal(size=(len(labels), n_features)) @ root
    others = rng.normal(size=(60, n_features)) * np.linspace(1, 20, 60)[:, None]
    points = (torch.from_numpy(values + shift).to(dtype) for values in (x, others))
    return next(points), torch.from_numpy(labels), next(points)
