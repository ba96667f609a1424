"""Labels that chains start from.

Chains that start alike may agree long before they have found the posterior; "overdispersed" starts lie on both sides of
it, from one cluster to many more than the data need (Gelman & Rubin, Inference from iterative simulation using multiple
sequences, Statistical Science 7, 1992).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastdens import kernels
from fastdens.distributions.niw import data_prior
from fastdens.kernels.counter_random import hashed_bits, mix, uniform_of_bits
from fastdens.kernels.layout import Layout
from fastdens.kernels.options import check_choice

INITS = ("overdispersed", "kmeans", "random")
# The most clusters of a start at temperature one where searches precede the burn-in.
COARSE_CLUSTERS = 10
# Chains beyond so many share the k-means starts of those before.
_MOST_SEEDS = 16
_POINTS_OF_A_FINE_CLUSTER = 6
_MOST_FINE_CLUSTERS = 100


def start_labels(
    init: str,
    points: Tensor,
    layout: Layout,
    keys: Tensor,
    init_components: int,
    seed: int,
    *,
    most_clusters: int | None = None,
    backend: str = "auto",
) -> Tensor:
    """Labels that the chains of every model start from; a model's depend on its own points and keys alone.

    For k-means each feature is divided by its standard deviation within the model.

    Parameters
    ----------
    init : {"overdispersed", "kmeans", "random"}
        "overdispersed": k-means with a number of clusters that grows geometrically with the chain, from one in the
        first to those of :func:`fine_cluster_counts` in the last; a single chain starts from one cluster.
        "kmeans": k-means with ``init_components`` clusters in every chain.
        "random": each of ``init_components`` labels is equally likely for every point.
    points : Tensor
        [N, D], float32 or float64, finite.
    layout : Layout
        Rows of each model, in ascending order; none empty, unless ``init`` is "random".
    keys : Tensor
        Random streams of the chains, int64 [M, C].
    init_components : int
        Positive; a model of fewer points gets as many k-means clusters as it has points.
    seed : int
        Of k-means++, which draws anew in each of sixteen chains; further chains share their starts.
    most_clusters : int, optional
        Bound on the clusters of overdispersed starts.
    backend : {"auto", "triton", "cpu", "reference"}
        Of k-means++.

    Returns
    -------
    Tensor
        int32 [C, N]; with k-means, -1 for rows that no model owns.

    Raises
    ------
    ValueError
        If ``init`` is unknown.
    """
    check_choice("init", init, INITS)
    if init == "random":
        return random_labels(keys, layout, init_components)
    n_chains = keys.shape[1]
    if init == "kmeans":
        n_clusters = layout.sizes.clamp_max(init_components).expand(n_chains, -1)
    else:
        finest = fine_cluster_counts(layout.sizes)
        n_clusters = _geometric_counts(finest if most_clusters is None else finest.clamp_max(most_clusters), n_chains)
    standardised = _standardised(points, layout)
    seeds = _chain_seeds(seed, min(n_chains, _MOST_SEEDS))
    found: dict[tuple[int, ...], Tensor] = {}
    labels = []
    for c, k in enumerate(n_clusters):
        start = (c % _MOST_SEEDS, *k.tolist())
        if start not in found:
            own_seed = seeds[c % _MOST_SEEDS]
            found[start] = kernels.kmeans(standardised, layout, k, own_seed, backend=backend).labels.int()
        labels.append(found[start])
    return torch.stack(labels)


def contrasting_labels(points: Tensor, layout: Layout, keys: Tensor, seed: int, *, backend: str = "auto") -> Tensor:
    """Labels int32 [C, N] for a second start of each chain: ten k-means clusters, from other seeds than the first."""
    return start_labels("kmeans", points, layout, keys, COARSE_CLUSTERS, seed + 1, backend=backend)


def random_labels(keys: Tensor, layout: Layout, n_labels: Tensor | int) -> Tensor:
    """Labels int32 [C, N] from the streams of the chains [M, C].

    Each of 0, ..., ``n_labels - 1`` is equally likely; ``n_labels`` is one number, or one for each model [M].
    """
    model, position = layout.rows
    n = n_labels[model] if isinstance(n_labels, Tensor) else n_labels
    labels = [(uniform_of_bits(hashed_bits(own, 3, position)) * n).int() for own in keys.T[:, model]]
    return torch.stack(labels)


def fine_labels(keys: Tensor, layout: Layout) -> Tensor:
    """Uniform random labels int32 [C, N] among the clusters of :func:`fine_cluster_counts` of each model."""
    return random_labels(keys, layout, fine_cluster_counts(layout.sizes))


def fine_cluster_counts(sizes: Tensor) -> Tensor:
    """Clusters of a very fine partition of models of ``sizes`` points, int64 [M].

    One for every six points, but at least two and at most 100, and no more than there are points.
    """
    fine = (sizes + _POINTS_OF_A_FINE_CLUSTER - 1) // _POINTS_OF_A_FINE_CLUSTER
    return torch.minimum(fine.clamp(2, _MOST_FINE_CLUSTERS), sizes)


def _geometric_counts(last: Tensor, n_chains: int) -> Tensor:
    """Counts int64 [C, M] that grow geometrically from one in the first chain to ``last`` [M]."""
    power = torch.linspace(0, 1, n_chains, dtype=torch.float64, device=last.device)
    return (last.double() ** power[:, None]).round().long()


def _standardised(points: Tensor, layout: Layout) -> Tensor:
    """The points about the mean of their model, each feature divided by its standard deviation where that is not zero.

    Rows that no model owns are zero.
    """
    moments = data_prior(points, layout, init_components=1)
    deviation = moments.scale_diagonal.sqrt()
    deviation = torch.where(deviation > 0, deviation, 1.0)
    model, position = layout.rows
    row = layout.ranges[model, 0] + position
    result = torch.zeros_like(points)
    result[row] = ((points[row].double() - moments.mean[model]) / deviation[model]).to(points.dtype)
    return result


def _chain_seeds(seed: int, n_chains: int) -> list[int]:
    """A seed for each chain, none of them negative."""
    chain = torch.arange(n_chains, device="cpu")
    seeds: list[int] = (mix(mix(torch.full_like(chain, seed)) + chain) & 0x7FFFFFFFFFFFFFFF).tolist()
    return seeds
