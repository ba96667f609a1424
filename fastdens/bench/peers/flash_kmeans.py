"""flash-kmeans: k-means of many models at once, by Triton on a GPU and by torch where there is none."""

from __future__ import annotations

from typing import Any

import torch

from fastdens.bench.cases import Case, Peer, Run
from fastdens.bench.outcomes import inertia
from fastdens.bench.peers.global_generators import seeded


def start(case: Case) -> Run:
    """All models at once, from random points: it has no k-means++."""
    from flash_kmeans import FlashKMeans

    d, k = case.problem.n_features, case.problem.n_components

    def work() -> Any:
        with seeded():  # It seeds the global generator.
            return FlashKMeans(d, k, niter=case.n_iter, tol=0.0, device=case.points.device).fit(case.points)

    note = "from random points"
    if not torch.cuda.is_available():
        note += ", by its torch code: its kernels need a GPU"
    return Run(work, lambda fit: inertia(case.points, fit.centroids_b), note=note)


PEER = Peer(
    name="flash-kmeans",
    distribution="flash-kmeans==0.3.1",
    module="flash_kmeans",
    beyond=(
        "k-means on GPUs with thousands of centres: Triton kernels that never hold the distances, half precision, "
        "cosine and inner products, data larger than the memory of a GPU, and several GPUs. fastdens' k-means is "
        "a start for mixtures of few components, and its iterations are operations of torch."
    ),
    operations={"start": start},
    variants={"start": ("kmeans",)},
    together=True,
)
