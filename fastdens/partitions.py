"""Posterior summaries of partitions, which do not depend on what the clusters of a draw are called.

A partition of N points is a vector of integer labels; any integers will do. Both losses between partitions are means
over points i of

    g(n_a(i)) + g(n_b(i)) - 2 g(n_ab(i)),

with n_a(i) and n_b(i) the sizes of the clusters of i in the two partitions and n_ab(i) that of their intersection;
g(n) = log n gives the variation of information, and g(n) = n / N Binder's loss.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdens.errors import check_integer
from fastdens.kernels.options import check_choice

LOSSES = ("vi", "binder")

# Numbers looked at together: few enough that what is computed from them stays in a processor's cache.
_BLOCK_SIZE = 1 << 18


class PartitionEstimate(NamedTuple):
    """One partition that stands for a posterior.

    Attributes
    ----------
    labels : Tensor
        int64 [N], numbered from 0 in the order of first appearance.
    expected_loss : float
        Its mean loss to the draws.
    """

    labels: Tensor
    expected_loss: float


class ClusterNumbers(NamedTuple):
    """Distribution of a number of clusters.

    Attributes
    ----------
    values : Tensor
        int64 [V], the numbers that occur, ascending.
    probability : Tensor
        float64 [..., V], the share of draws with each.
    """

    values: Tensor
    probability: Tensor


def co_clustering(labels: Tensor) -> Tensor:
    """Share of draws in which two points share a cluster.

    Parameters
    ----------
    labels : Tensor
        Integers [S, N] or [S, C, N], at least one draw.

    Returns
    -------
    Tensor
        float64 [N, N], symmetric, 1 on the diagonal. The time is that of S N^2 / 2 comparisons, whatever the number of
        clusters.

    Raises
    ------
    TypeError, ValueError
        If ``labels`` are not integers, have fewer than two axes, or hold no draw.

    Examples
    --------
    >>> import torch
    >>> from fastdens.partitions import co_clustering
    >>> co_clustering(torch.tensor([[0, 0, 1], [0, 1, 1]]))  # Two draws of three points.
    tensor([[1.0000, 0.5000, 0.0000],
            [0.5000, 1.0000, 0.5000],
            [0.0000, 0.5000, 1.0000]], dtype=torch.float64)
    """
    draws = _check_draws(labels).flatten(0, -2)
    n_draws, n_points = draws.shape
    # Comparisons of small integers are quicker.
    draws = torch.unique(draws, return_inverse=True)[1].to(torch.int32)
    shares = torch.empty(n_points, n_points, dtype=torch.float64, device=draws.device)
    height = max(1, _BLOCK_SIZE // max(1, n_points))
    for low in range(0, n_points, height):
        high = low + height
        together = torch.zeros(len(shares[low:high]), n_points - low, dtype=torch.int32, device=draws.device)
        for draw in draws:
            together += draw[low:high, None] == draw[low:]
        share = together.double() / n_draws
        shares[low:high, low:], shares[low:, low:high] = share, share.T
    return shares


def variation_of_information(labels: Tensor, other: Tensor) -> Tensor:
    """Information that two partitions do not share: H(a | b) + H(b | a), in nats.

    A metric on partitions, between 0 (the same clusters) and log N (all points together against each on its own).

    Parameters
    ----------
    labels, other : Tensor
        Integers [..., N], at least one point. Leading axes are broadcast: [S, 1, N] and [T, N] give all S T pairs.

    Returns
    -------
    Tensor
        float64 [...].

    Raises
    ------
    TypeError, ValueError
        If labels are not integers, or the partitions are not of the same N points, at least one.

    References
    ----------
    Meilă, Comparing clusterings: an information based distance, Journal of Multivariate Analysis 98, 2007.

    Examples
    --------
    >>> import torch
    >>> from fastdens.partitions import variation_of_information
    >>> variation_of_information(torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]]), torch.tensor([5, 5, 3, 3]))
    tensor([0.0000, 1.3863], dtype=torch.float64)
    """
    return _pairwise_loss("vi", labels, other)


def binder_loss(labels: Tensor, other: Tensor) -> Tensor:
    """Share of the N^2 ordered pairs of points that one partition puts together and the other apart.

    Binder's loss with equal costs of both errors, divided by N^2 / 2 as by Wade and Ghahramani. A metric, between 0
    and 1 - 1 / N; 1 minus N / (N - 1) times it is the Rand index.

    Parameters
    ----------
    labels, other : Tensor
        As for :func:`variation_of_information`, with the same errors.

    Returns
    -------
    Tensor
        float64 [...].

    References
    ----------
    Binder, Bayesian cluster analysis, Biometrika 65, 1978. Wade & Ghahramani, Bayesian cluster analysis: point
    estimation and credible balls, Bayesian Analysis 13, 2018, section 2.

    Examples
    --------
    >>> import torch
    >>> from fastdens.partitions import binder_loss
    >>> binder_loss(torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]]), torch.tensor([5, 5, 3, 3]))
    tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    return _pairwise_loss("binder", labels, other)


def number_of_clusters(n_components: Tensor) -> ClusterNumbers:
    """Distribution of the number of clusters over draws.

    Parameters
    ----------
    n_components : Tensor
        Integers [..., S], at least one draw; ``flatten`` chains first to count all of their draws together.

    Returns
    -------
    ClusterNumbers
        The numbers that occur, and how often.

    Raises
    ------
    TypeError, ValueError
        If ``n_components`` are not integers, or hold no draw.

    Examples
    --------
    >>> import torch
    >>> from fastdens.partitions import number_of_clusters
    >>> number_of_clusters(torch.tensor([2, 2, 3, 2]))
    ClusterNumbers(values=tensor([2, 3]), probability=tensor([0.7500, 0.2500], dtype=torch.float64))
    """
    _check_integers("n_components", n_components)
    if n_components.ndim == 0 or n_components.shape[-1] == 0:
        raise ValueError(f"n_components has shape {tuple(n_components.shape)}, but it must be [..., S] with a draw.")
    values, which = torch.unique(n_components, return_inverse=True)
    counts = torch.stack([(which == v).sum(-1) for v in range(len(values))], -1)
    return ClusterNumbers(values.long(), counts.double() / n_components.shape[-1])


def credible_ball(labels: Tensor, estimate: Tensor, level: float = 0.95, loss: str = "vi") -> float:
    """Radius of the ball around an estimate that holds the share ``level`` of the draws.

    Parameters
    ----------
    labels : Tensor
        Integers [S, N] or [S, C, N], at least one draw.
    estimate : Tensor
        Integers [N].
    level : float
        Between 0 and 1.
    loss : {"vi", "binder"}
        The distance.

    Returns
    -------
    float
        The smallest loss that at least this share of the draws does not exceed.

    Raises
    ------
    TypeError, ValueError
        If labels are not integers, shapes do not fit, there is no draw, or ``level`` or ``loss`` is none of these.

    References
    ----------
    Wade & Ghahramani, Bayesian Analysis 13, 2018, section 4.

    Examples
    --------
    >>> import torch
    >>> from fastdens.partitions import credible_ball, point_estimate
    >>> draws = torch.tensor([[0, 0, 1, 1]] * 3 + [[0, 1, 2, 2]])
    >>> round(credible_ball(draws, point_estimate(draws).labels, level=0.95), 3)
    0.347
    """
    if not isinstance(level, int | float) or not 0 < level <= 1:
        raise ValueError(f"level is {level!r}, but it must lie between 0 and 1.")
    _check_integers("estimate", estimate)
    if estimate.ndim != 1:
        raise ValueError(f"the estimate has shape {tuple(estimate.shape)}, but it must be one partition [N].")
    distances = _pairwise_loss(loss, _check_draws(labels).flatten(0, -2), estimate).sort().values
    share = torch.arange(1, len(distances) + 1, dtype=torch.float64, device=distances.device) / len(distances)
    return float(distances[share >= level][0])


def point_estimate(labels: Tensor, loss: str = "vi", n_starts: int = 4) -> PartitionEstimate:
    """The partition of least posterior expected loss that a greedy search finds.

    The expected loss is the exact mean over all draws, not a bound of it. The search starts from each of the
    ``n_starts`` best draws and from all points in one cluster. It moves one point at a time to the cluster, or to a new
    one, that lowers the loss most, merges clusters, and dissolves a cluster to allocate its points anew, until none of
    these helps: a local minimum, no worse than any draw. Nothing is random.

    Parameters
    ----------
    labels : Tensor
        Integers [S, N] or [S, C, N], at least one draw and one point.
    loss : {"vi", "binder"}
        Variation of information, which prefers fewer clusters, or Binder's loss.
    n_starts : int
        How many draws to start from, at least 1.

    Returns
    -------
    PartitionEstimate
        Labels on the device of ``labels``. The search runs on the CPU; it keeps S L (K + 1) counts, with K clusters
        of the estimate and L of a draw on average, and a pass over the points takes S N (K + 1) look-ups.

    Raises
    ------
    TypeError, ValueError
        If ``labels`` are not integers, have fewer than two axes or hold no draw or point, or ``loss`` is unknown.

    References
    ----------
    Wade & Ghahramani, Bayesian Analysis 13, 2018. Dahl, Johnson & Müller, Search algorithms and loss functions for
    Bayesian clustering, Journal of Computational and Graphical Statistics 31, 2022.

    Examples
    --------
    >>> import torch
    >>> from fastdens.partitions import point_estimate
    >>> point_estimate(torch.tensor([[0, 0, 1, 1]] * 3 + [[0, 1, 2, 2]])).labels
    tensor([0, 0, 1, 1])
    """
    check_choice("loss", loss, LOSSES)
    check_integer("n_starts", n_starts, 1)
    draws = _check_draws(labels).flatten(0, -2)
    if draws.shape[1] == 0:
        raise ValueError("labels have no points: pass at least one.")
    numbered = np.stack([_renumbered(draw) for draw in draws.cpu().numpy()])
    search = _Search(numbered, loss)
    _, first = np.unique(numbered, axis=0, return_index=True)
    draws_by_loss = sorted((search.expected_loss(numbered[s]), s) for s in first)
    # Draws of many small clusters lead to other minima than all points together.
    starts = [*(numbered[s] for _, s in draws_by_loss[:n_starts]), np.zeros_like(numbered[0])]
    found = [search.improve(start) for start in starts]
    best = torch.from_numpy(min(found, key=search.expected_loss)).to(labels.device)
    return PartitionEstimate(best, float(_pairwise_loss(loss, draws, best).mean()))


class _Search:
    """Greedy minimisation of the expected loss of an estimate.

    With f(n) = n g(n), N times the expected loss is, up to what depends on the draws alone,

        sum_k f(n_k) - 2 / S sum_r sum_k f(n_rk),

    with n_k the size of cluster k of the estimate and n_rk that of its intersection with cluster r of a draw; the R
    clusters of all S draws are numbered through.
    """

    # A change of N times the expected loss that rounding does not explain.
    _TOLERANCE = 1e-9

    def __init__(self, draws: NDArray[np.int64], loss: str) -> None:
        self.n_draws, self.n_points = draws.shape
        numbers = torch.arange(self.n_points + 1, dtype=torch.float64, device="cpu")
        self.f = (numbers * _g(loss, numbers, self.n_points)).nan_to_num().numpy()
        self.step = np.diff(self.f)
        n_clusters = draws.max(1) + 1
        first = np.cumsum(n_clusters) - n_clusters
        self.n_rows = int(n_clusters.sum())
        self.rows = np.ascontiguousarray(draws.T + first)  # [N, S]: the cluster r of each point in each draw.
        self.loss_of_draws = self.f[np.bincount(self.rows.ravel())].sum() / self.n_draws

    def expected_loss(self, labels: NDArray[np.int64]) -> float:
        sizes, table = self._count(labels)
        total = self.f[sizes].sum() + self.loss_of_draws - 2 / self.n_draws * self.f[table].sum()
        return float(total / self.n_points)

    def improve(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """A partition that no move of a point, merger of two clusters, or new allocation of a cluster improves."""
        changed = True
        while changed:
            self.labels = _renumbered(labels)
            self.sizes, self.table = self._count(self.labels)
            changed = self._move_points() or self._merge_clusters() or self._reallocate_clusters()
            labels = self.labels
        return _renumbered(labels)

    def _count(self, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sizes [K + 1] and intersections [R, K + 1] of labels 0 to K - 1; the last cluster is empty."""
        width = int(labels.max()) + 2
        cells = self.rows * width + labels[:, None]
        table = np.bincount(cells.ravel(), minlength=self.n_rows * width).reshape(self.n_rows, width)
        return np.bincount(labels, minlength=width), table

    def _move_points(self) -> bool:
        """Move each point in turn to the cluster where it adds least; whether one moved."""
        moved = False
        for i, rows in enumerate(self.rows):
            own = self.labels[i]
            self.sizes[own] -= 1
            self.table[rows, own] -= 1
            added = self._added_by(i)
            best = int(added.argmin())
            stays = added[best] >= added[own] - self._TOLERANCE
            self._put(i, own if stays else best)
            moved = moved or not stays
        return moved

    def _reallocate_clusters(self) -> bool:
        """Dissolve each cluster in turn and put its points one by one where they add least; whether that helped."""
        helped = False
        # A point on its own has had its move.
        for own in np.flatnonzero(self.sizes > 1).tolist():
            before = self.f[self.sizes[own]] - 2 / self.n_draws * self.f[self.table[:, own]].sum()
            kept = self.labels.copy(), self.sizes.copy(), self.table.copy()
            self.sizes[own] = self.table[:, own] = 0
            after = 0.0
            for i in np.flatnonzero(self.labels == own).tolist():
                added = self._added_by(i)
                best = int(added.argmin())
                after += added[best]
                self._put(i, best)
            if after < before - self._TOLERANCE:
                helped = True
            else:
                self.labels, self.sizes, self.table = kept
        return helped

    def _added_by(self, i: int) -> NDArray[np.float64]:
        """What a point in none of the clusters adds to the loss in each of them."""
        added: NDArray[np.float64] = self.step[self.sizes]
        added -= 2 / self.n_draws * self.step[self.table[self.rows[i]]].sum(0)
        return added

    def _put(self, i: int, cluster: int) -> None:
        self.labels[i] = cluster
        self.sizes[cluster] += 1
        self.table[self.rows[i], cluster] += 1
        if self.sizes.all():
            spare = 1 + len(self.sizes) // 4
            self.sizes = np.pad(self.sizes, (0, spare))
            self.table = np.pad(self.table, ((0, 0), (0, spare)))

    def _merge_clusters(self) -> bool:
        """Merge each cluster in turn with the one that lowers the loss most; whether one merged."""
        merged = False
        for own in range(len(self.sizes)):
            # Clusters of draws that this cluster does not meet stay as they are.
            rows = np.flatnonzero(self.table[:, own])
            others, size = self.sizes.copy(), self.sizes[own]
            meeting, overlap = self.table[rows], self.table[rows, own, None]
            others[own] = meeting[:, own] = 0
            gained = (self.f[meeting + overlap] - self.f[meeting] - self.f[overlap]).sum(0)
            added = self.f[others + size] - self.f[others] - self.f[size] - 2 / self.n_draws * gained
            best = int(added.argmin())
            if added[best] < -self._TOLERANCE:
                merged = True
                self.labels[self.labels == own] = best
                for counts in (self.sizes, self.table):
                    counts[..., best] += counts[..., own]
                    counts[..., own] = 0
        return merged


def _renumbered(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Labels [N] numbered from 0 in the order of first appearance."""
    _, first, cluster = np.unique(labels, return_index=True, return_inverse=True)
    number: NDArray[np.int64] = first.argsort().argsort()[cluster]
    return number


def _g(loss: str, sizes: Tensor, n_points: int) -> Tensor:
    """What a point of a cluster of this size adds to a loss: g of the module's docstring, in float64."""
    return sizes.double().log() if loss == "vi" else sizes.double() / n_points


def _pairwise_loss(loss: str, labels: Tensor, other: Tensor) -> Tensor:
    check_choice("loss", loss, LOSSES)
    _check_integers("labels", labels)
    _check_integers("other", other)
    shapes = f"labels have shape {tuple(labels.shape)} and the other ones {tuple(other.shape)}"
    if min(labels.ndim, other.ndim) == 0 or labels.shape[-1] != other.shape[-1] or labels.shape[-1] == 0:
        raise ValueError(f"{shapes}, but both must be [..., N] of the same points, at least one.")
    try:
        leading = np.broadcast_shapes(labels.shape[:-1], other.shape[:-1])
    except ValueError:
        raise ValueError(f"{shapes}, whose leading axes do not broadcast: pass x[:, None] for all pairs.") from None
    n_points, n_pairs = labels.shape[-1], math.prod(leading)
    sides = []
    for partitions in (labels, other):
        values, clusters = torch.unique(partitions, return_inverse=True)
        clusters = clusters.reshape(-1, n_points)
        row = torch.arange(len(clusters), device=labels.device).reshape(partitions.shape[:-1]).expand(leading).flatten()
        sides.append((clusters, _g(loss, _cluster_sizes(clusters), n_points), row, len(values)))
    (a, g_a, row_a, _), (b, g_b, row_b, n_values) = sides
    losses = torch.empty(n_pairs, dtype=torch.float64, device=labels.device)
    n_together = max(1, _BLOCK_SIZE // n_points)
    for low in range(0, n_pairs, n_together):
        pairs = slice(low, low + n_together)
        i, j = row_a[pairs], row_b[pairs]
        g_both = _g(loss, _cluster_sizes(a[i] * n_values + b[j]), n_points)
        losses[pairs] = (g_a[i] + g_b[j] - 2 * g_both).mean(-1)
    return losses.reshape(leading)


def _cluster_sizes(labels: Tensor) -> Tensor:
    """Size of the cluster of each point, int64 [B, N], of labels of at least 0."""
    if labels.numel() == 0:
        return labels
    row = torch.arange(len(labels), device=labels.device)[:, None]
    _, cluster, sizes = torch.unique(row * (labels.max() + 1) + labels, return_inverse=True, return_counts=True)
    of_point: Tensor = sizes[cluster]
    return of_point


def _check_integers(name: str, values: Tensor) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} is a {type(values).__name__}, but it must be a tensor: pass torch.as_tensor({name}).")
    if values.layout != torch.strided or values.is_nested or values.is_meta:
        raise TypeError(f"{name} is no dense tensor of numbers: convert it.")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"{name} is a tensor of {values.dtype}, but it must hold integers.")


def _check_draws(labels: Tensor) -> Tensor:
    _check_integers("labels", labels)
    if labels.ndim < 2 or 0 in labels.shape[:-1]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, but they must be [S, N] or [S, C, N] with at least one draw: "
            "pass x[None] for one partition [N]."
        )
    return labels
