"""The clusters that new points of fitted Dirichlet-process mixtures belong to.

A predictive density is a mixture over the clusters of all kept draws, and a point estimate has clusters of its own. A
new point joins cluster k of a draw, of n_k points, with the responsibility of that component. In the Chinese restaurant
process it follows one of those points, each as likely as the others (Blei & Frazier 2011), and so it follows a point of
cluster c of the estimate with the probability n_kc / n_k, n_kc being the points that k and c share:

    P(c | x) = sum_k w_k t_k(x) n_kc / n_k  /  sum_k w_k t_k(x),

over all components k of all draws. Averaged over the n_c points of c instead, the same responsibilities are the
posterior co-clustering probabilities from which the estimate comes (Fritsch & Ickstadt 2009; Wade & Ghahramani 2018).
The component of the prior is a cluster that no fitted point belongs to.

References
----------
Blei & Frazier, Distance dependent Chinese restaurant processes, JMLR 12, 2011. Fritsch & Ickstadt, Improved criteria
for clustering based on the posterior similarity matrix, Bayesian Analysis 4, 2009. Wade & Ghahramani, Bayesian cluster
analysis: point estimation and credible balls, Bayesian Analysis 13, 2018.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.distributions.student_t_mixture import StudentTComponents, StudentTMixtureDensity


class Membership(NamedTuple):
    """The shares of the components of a density in clusters of a point estimate, P that are not zero.

    Attributes
    ----------
    component, cluster : Tensor
        int64 [P]: the component, ascending, and a cluster of its model; the number ``n_clusters`` stands for none.
    log_share : Tensor
        float64 [P]; the shares of a component sum to one.
    n_clusters : int
        C, the clusters of the model that has most.
    """

    component: Tensor
    cluster: Tensor
    log_share: Tensor
    n_clusters: int

    @classmethod
    def of_rows(cls, components: Iterable[Tensor], clusters: Tensor, of_prior: Tensor, n_clusters: int) -> Membership:
        """Count the rows that components and clusters share.

        Parameters
        ----------
        components : iterable of Tensor
            For each draw int64 [n], the component of each row; no component is in two draws.
        clusters : Tensor
            int64 [n], the cluster of each row in the estimate.
        of_prior : Tensor
            int64 [A], the component of each model's prior, which is in no cluster.
        n_clusters : int
        """
        width = n_clusters + 1
        found = [torch.unique(draw * width + clusters, return_counts=True) for draw in components]
        pairs = torch.cat([*(pair for pair, _ in found), of_prior * width + n_clusters])
        counts = torch.cat([*(count for _, count in found), torch.ones_like(of_prior)]).double()
        pairs, order = pairs.sort()
        component, counts = pairs // width, counts[order]
        sizes = counts.new_zeros(int(component[-1]) + 1).index_add_(0, component, counts)
        return cls(component, pairs % width, (counts / sizes[component]).log(), n_clusters)

    def select(self, begin: int, end: int) -> Membership:
        """Of the components ``begin:end``, counted from ``begin``."""
        low, high = torch.searchsorted(self.component, self.component.new_tensor([begin, end])).tolist()
        return Membership(
            self.component[low:high] - begin, self.cluster[low:high], self.log_share[low:high], self.n_clusters
        )


def densities_of_clusters(density: StudentTMixtureDensity, membership: Membership) -> list[StudentTMixtureDensity]:
    """The parts of a density that belong to each of the C clusters and to none, which sum to it: C + 1 of them."""
    parts = []
    for cluster in range(membership.n_clusters + 1):
        chosen = membership.cluster == cluster
        component, log_share = membership.component[chosen], membership.log_share[chosen]
        own = StudentTComponents(*(value[component] for value in density.components))
        own = own._replace(log_weights=own.log_weights + log_share.to(own.log_weights.dtype))
        model = torch.searchsorted(density.offsets, component, right=True) - 1
        counts = torch.bincount(model, minlength=density.n_models)
        options = {"backend": density.backend, "matmul_precision": density.matmul_precision}
        parts.append(StudentTMixtureDensity.from_components(counts, [own], **options))
    return parts


def cluster_probabilities(parts: list[StudentTMixtureDensity], batch: RaggedBatch) -> Tensor:
    """Probability of each cluster, and of none in the last column, for the (sorted) rows of a batch: [n, C + 1].

    Parameters
    ----------
    parts : list of StudentTMixtureDensity
        As of :func:`densities_of_clusters`, of the models of the batch.
    batch : RaggedBatch
        In memory, in the dtype of the densities.
    """
    columns = []
    for part in parts:
        # A cluster that a model lacks has no components.
        lacks = part.offsets.diff() == 0
        columns.append(part.own_log_prob(batch).masked_fill(lacks[batch.model_of_row], -torch.inf))
    return torch.softmax(torch.stack(columns, 1), 1)


def most_probable(probabilities: Tensor) -> Tensor:
    """The cluster of largest probability, int64 [N]; -1 where that is the last column, of none, and for NaN."""
    cluster = probabilities.argmax(1)
    none = (cluster == probabilities.shape[1] - 1) | probabilities.isnan().any(1)
    return cluster.masked_fill(none, -1)
