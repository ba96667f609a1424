"""faiss: exact neighbours and k-means, on all threads."""

from __future__ import annotations

from typing import Any

import torch

from fastdens.bench.cases import Case, Peer, Run
from fastdens.bench.outcomes import inertia
from fastdens.bench.peers.given import PLAIN, queries_of


def start(case: Case) -> Run:
    """From its own k-means++, with every point."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    arrays = [x.numpy() for x in case.points]
    k, d = case.problem.n_components, case.problem.n_features

    def work() -> list[Any]:
        fits = []
        for x in arrays:
            fit = faiss.Kmeans(
                d,
                k,
                niter=case.n_iter,
                seed=1,
                init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
                # Every point counts, and few are no reason to warn.
                min_points_per_centroid=1,
                max_points_per_centroid=case.problem.n_points,
            )
            fit.train(x)
            fits.append(fit)
        return fits

    return Run(
        work,
        lambda fits: inertia(case.points, torch.stack([torch.from_numpy(fit.centroids) for fit in fits])),
        note=PLAIN,
    )


def neighbours(case: Case) -> Run:
    """By brute force over an index that is filled beforehand."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    points, queries = case.points.flatten(0, 1).numpy(), queries_of(case).numpy()

    index = faiss.IndexFlatL2(points.shape[1])
    index.add(points)
    return Run(
        lambda: index.search(queries, case.n_iter)[0],
        lambda squared: torch.from_numpy(squared[:, -1]).double().clamp(min=0).sqrt(),
    )


PEER = Peer(
    name="faiss",
    distribution="faiss-cpu==1.15.1",
    module="faiss",
    beyond=(
        "Search among billions of vectors: inverted lists, graphs and quantization find approximate neighbours in "
        "a fraction of the time and memory of an exact search, and several GPUs can share an index. Its k-means "
        "is made for as many centres as such an index needs. fastdens searches exactly."
    ),
    operations={"start": start, "neighbours": neighbours},
    variants={"start": ("kmeans",)},
)
