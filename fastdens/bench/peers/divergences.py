"""Monte Carlo divergences by a library that has densities one by one, and no divergence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastdens.bench.cases import Case, Run
from fastdens.bench.peers.given import OWN_DRAWS
from fastdens.bench.peers.global_generators import seeded


def divergence_to_next(
    case: Case,
    densities: Sequence[Any],
    sample: Callable[[Any, int], Any],
    log_prob: Callable[[Any, Any], Any],
) -> Run:
    """KL of each density to the next one, the last to the first, from ``case.n_iter`` draws of each.

    Parameters
    ----------
    case : Case
    densities : sequence
        The library's own, one for each model.
    sample, log_prob : callable
        Draws of a density, and the log densities of draws under one: whatever the library takes and gives.
    """

    def work() -> list[float]:
        means = []
        with seeded():
            for density, following in zip(densities, [*densities[1:], densities[0]], strict=True):
                draws = sample(density, case.n_iter)
                means.append(float((log_prob(density, draws) - log_prob(following, draws)).mean()))
        return means

    return Run(work, _float64, note=OWN_DRAWS)


def _float64(means: list[float]) -> Tensor:
    return torch.tensor(means, device="cpu", dtype=torch.float64)
