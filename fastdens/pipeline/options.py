"""Options of an analysis, each stated once: its name, type, default and meaning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnalysisOptions:
    """How densities are fitted and compared.

    Attributes
    ----------
    dimensions : tuple of int or None
        Dimensions to project each layer to, or one number for all. By default 16 for the first half of the layers and
        64 for the others, less where a class has under 8 examples for each.
    density : {"dp", "gmm"}
        Dirichlet-process mixtures by collapsed Gibbs sampling, or Gaussian mixtures by EM.
    """

    dimensions: tuple[int, ...] | None = None
    density: str = "dp"
    chains: int = 4
    sweeps: int = 400
    thin: int = 4
    components: int | None = None
    neighbours: int = 10
    entropy_draws: int = 100_000
    divergence_draws: int = 10_000
    bins: int = 0
    sigma: float = 0.5
    epsilon: float = 0.5
    certified_examples: int = 100
    certificate_draws: int = 100_000
    seed: int = 0
    device: str = "cpu"
