"""k-means in many models at once: a k-means++ start and Lloyd's iterations, in torch operations on any device.

A point belongs to the centre at the smallest sum of squared differences, added up in the order of the features. Matrix
products of centred points find it faster, with rounding that depends on their shapes: they decide wherever two centres
differ by more than rounding can, and the sums elsewhere. Sums run in the order of the rows. So the result of a model
depends neither on the models beside it nor on the origin of the data.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from fastdens.kernels.arguments import checked
from fastdens.kernels.layout import Layout, as_layout, bounded_runs
from fastdens.kernels.operation import check_points, check_sample_weight
from fastdens.kernels.races import copies_of_models, first_of_models
from fastdens.kernels.seeding import kmeans_plusplus
from torch import Tensor

_TILE_ROWS = 128
# Numbers in the points of a run of models, and in the distances that exist at a time: a few of these fit in a cache.
_MAX_POINT_ELEMENTS = 1 << 21
_MAX_DISTANCES = 1 << 18


class KMeans(NamedTuple):
    """Clusters of M models.

    Attributes
    ----------
    labels : Tensor
        int64 [N], the nearest centre of each point's model; -1 for rows that no model owns.
    centres : Tensor
        [M, K, D], in the dtype of the points, K the largest number of clusters; NaN for clusters that a model lacks.
    inertia : Tensor
        float64 [M], sum of the (weighted) squared distances of the points to their centres.
    n_iter : Tensor
        int64 [M], iterations of each model.
    """

    labels: Tensor
    centres: Tensor
    inertia: Tensor
    n_iter: Tensor


class _Tiles(NamedTuple):
    """The points of A models in T tiles of R rows, in order, those of the last tile of a model perhaps not valid."""

    model: Tensor  # int64 [T]
    row: Tensor  # int64 [T, R], in the batch
    valid: Tensor  # bool [T, R]
    x: Tensor  # float64 [T, R, D], about the origin of the model
    norm: Tensor  # float64 [T, R]
    weight: Tensor | None = None  # float64 [T, R]

    def select(self, models: Tensor) -> tuple[_Tiles, Tensor]:
        """The tiles of some of the models, by mask [A], and the mask [T] that selects them."""
        own = models[self.model]
        weight = None if self.weight is None else self.weight[own]
        model = (models.cumsum(0) - 1)[self.model[own]]
        return _Tiles(model, self.row[own], self.valid[own], self.x[own], self.norm[own], weight), own


def _tiles_of(points: Tensor, layout: Layout, sample_weight: Tensor | None) -> tuple[_Tiles, Tensor]:
    """The points about an origin of each model, and the origins float64 [A, D].

    The origin is the point nearest to the mean, so that subtracting it is exact where the points lie on a grid.
    """
    size = min(_TILE_ROWS, int(layout.sizes.max()))
    model, start, stop, _ = layout.tiles(size)
    row = start[:, None] + torch.arange(size, device=start.device)
    valid = row < stop[:, None]
    row = torch.minimum(row, stop[:, None] - 1)
    x = points[row].double()
    mean = layout.sum(points) / layout.sizes[:, None]
    # The largest difference of any feature: it does not depend on an order of summation.
    far = (x - mean[model][:, None]).abs_().amax(-1)
    central = first_of_models(far[valid], layout.rows.model, layout.sizes, row[valid])
    origin = points[central].double()
    x -= origin[model][:, None]
    weight = None if sample_weight is None else sample_weight[row].double()
    return _Tiles(model, row, valid, x, torch.linalg.vector_norm(x, dim=-1), weight), origin


def _row_sums(values: Tensor) -> Tensor:
    """Sum of each row of [P, E], its terms added one after the other."""
    lengths = torch.full((len(values),), values.shape[1], device=values.device)
    return torch.segment_reduce(values.reshape(-1, 1), "sum", lengths=lengths)[:, 0]


def _mean_variance(tiles: _Tiles, layout: Layout) -> Tensor:
    """Mean variance of the features of each model, float64 [A]."""
    x, total = tiles.x[tiles.valid], layout.sizes
    weight = None if tiles.weight is None else tiles.weight[tiles.valid][:, None]
    if weight is not None:
        total = torch.segment_reduce(weight, "sum", lengths=layout.sizes)[:, 0]

    def sums(values: Tensor) -> Tensor:
        return torch.segment_reduce(values if weight is None else weight * values, "sum", lengths=layout.sizes)

    mean = sums(x) / total[:, None]
    return _row_sums(sums((x - mean[layout.rows.model]).square_())) / (total * x.shape[1])


def _squared_distance(a: Tensor, a_row: tuple[Tensor, ...], b: Tensor, b_row: tuple[Tensor, ...]) -> Tensor:
    """Squared distances of rows of ``a`` [..., D] from as many rows of ``b``, given by their indices."""
    limit = max(1, _MAX_POINT_ELEMENTS // a.shape[-1])
    pieces = zip(*(index.split(limit) for index in (*a_row, *b_row)), strict=True)
    n = len(a_row)
    return torch.cat([_row_sums((a[piece[:n]] - b[piece[n:]]).square_()) for piece in pieces])


def _nearest(tiles: _Tiles, centres: Tensor, present: Tensor) -> Tensor:
    """The nearest centre of every point, int64 [T, R]; the first one of equals."""
    length = centres.square().sum(-1)
    longest = length.amax(1).sqrt()
    length = length.masked_fill(~present, math.inf)
    n_tiles = max(1, _MAX_DISTANCES // (tiles.norm.shape[1] * centres.shape[1]))
    pieces = zip(*(value.split(n_tiles) for value in tiles[:5]), strict=True)
    return torch.cat([_nearest_of_some(_Tiles(*piece), centres, length, longest) for piece in pieces])


def _nearest_of_some(tiles: _Tiles, centres: Tensor, length: Tensor, longest: Tensor) -> Tensor:
    model, n_features = tiles.model, tiles.x.shape[-1]
    # Squared distances less |x|^2.
    distance = torch.bmm(tiles.x, (-2 * centres)[model].mT).add_(length[model][:, None])
    best, label = distance.min(-1)
    # A product or a sum is wrong by less than this; two of each are compared.
    error = (n_features + 4) * torch.finfo(torch.float64).eps * (tiles.norm + longest[model][:, None]).square_()
    limit = best + 4 * error
    second = distance.scatter_(-1, label[..., None], math.inf).amin(-1)
    tile, row = ((second <= limit) & tiles.valid).nonzero(as_tuple=True)
    if len(tile):
        near = (distance[tile, row] <= limit[tile, row, None]).scatter_(1, label[tile, row, None], True)
        pair, cluster = near.nonzero(as_tuple=True)
        at = (tile[pair], row[pair])
        exact = torch.full_like(near, math.inf, dtype=torch.float64)
        exact[pair, cluster] = _squared_distance(tiles.x, at, centres, (model[at[0]], cluster))
        label[tile, row] = exact.argmin(1)
    return label


def _means(tiles: _Tiles, labels: Tensor, centres: Tensor, present: Tensor) -> Tensor:
    """The mean of every cluster [A, K, D]; the centre of a cluster that has no points stays where it was."""
    n_models, n_clusters, n_features = centres.shape
    n_all = n_models * n_clusters
    # The rows that are not valid are one more cluster, after all others.
    cluster = torch.where(tiles.valid, tiles.model[:, None] * n_clusters + labels, n_all)
    counts = torch.bincount(cluster.flatten(), minlength=n_all + 1)
    empty = (counts[:-1].reshape(n_models, n_clusters) == 0) & present
    if bool(empty.any()):
        cluster = _fill_empty(tiles, labels, cluster, centres, empty)
        counts = torch.bincount(cluster.flatten(), minlength=n_all + 1)
    x, total = tiles.x.flatten(0, 1), counts[:-1, None]
    if tiles.weight is None:
        sums = _sums_of_clusters(x, cluster.flatten(), counts)[:-1]
    else:
        weight = tiles.weight.reshape(-1, 1)
        sums = _sums_of_clusters(torch.cat([weight * x, weight], 1), cluster.flatten(), counts)[:-1]
        sums, total = sums[:, :-1], sums[:, -1:]
    means = torch.where(total > 0, sums / total, centres.flatten(0, 1))
    return means.reshape(n_models, n_clusters, n_features)


def _sums_of_clusters(x: Tensor, cluster: Tensor, counts: Tensor) -> Tensor:
    """Sum of the rows of ``x`` [P, D] of each cluster, added one after the other."""
    if not x.is_cuda:
        return x.new_zeros(len(counts), x.shape[1]).index_add_(0, cluster, x)
    return _sorted_sums(x, cluster, counts)


def _sorted_sums(x: Tensor, cluster: Tensor, counts: Tensor) -> Tensor:
    # On a GPU index_add_ adds in any order.
    return torch.segment_reduce(x[torch.argsort(cluster, stable=True)], "sum", lengths=counts)


def _fill_empty(tiles: _Tiles, labels: Tensor, cluster: Tensor, centres: Tensor, empty: Tensor) -> Tensor:
    """The clusters [T, R] after each empty one has taken the farthest point of its model that is left."""
    model, label = empty.nonzero(as_tuple=True)
    tile, row = (tiles.valid & empty.any(1)[tiles.model][:, None]).nonzero(as_tuple=True)
    owner = tiles.model[tile]
    distance = _squared_distance(tiles.x, (tile, row), centres, (owner, labels[tile, row]))
    farthest = torch.argsort(distance, descending=True, stable=True)
    farthest = farthest[torch.argsort(owner[farthest], stable=True)]
    first = torch.searchsorted(owner, model)
    rank = torch.arange(len(model), device=model.device) - torch.searchsorted(model, model)
    # Where every point lies on its centre, a point taken would leave all as it is.
    useful = distance[farthest[first]] > 0
    pick = farthest[(first + rank)[useful]]
    return cluster.index_put((tile[pick], row[pick]), (model * empty.shape[1] + label)[useful])


def _lloyd(tiles: _Tiles, centres: Tensor, present: Tensor, tol: Tensor, max_iter: int) -> tuple[Tensor, Tensor]:
    """Centres [A, K, D] and iterations [A] when no label changes any more, or the centres hardly move."""
    final, n_iter = centres.clone(), torch.zeros_like(tol, dtype=torch.int64)
    active = torch.arange(len(tol), device=tol.device)
    labels = torch.full_like(tiles.row, -1)
    for iteration in range(1, max_iter + 1):
        previous, labels = labels, _nearest(tiles, centres, present)
        means = _means(tiles, labels, centres, present)
        moving = _row_sums((means - centres).square_().flatten(1)) > tol
        changing = torch.zeros_like(moving)
        changing[tiles.model[((labels != previous) & tiles.valid).any(1)]] = True
        final[active], n_iter[active], centres = means, iteration, means
        keep = moving & changing
        if not bool(keep.all()):
            tiles, own = tiles.select(keep)
            active, labels, centres = active[keep], labels[own], centres[keep]
            present, tol = present[keep], tol[keep]
            if len(active) == 0:
                break
    return final, n_iter


def _cluster_counts(n_clusters: Tensor | int, layout: Layout, sample_weight: Tensor | None) -> Tensor:
    """Number of clusters of each model, int64 [M], checked."""
    counts = n_clusters if isinstance(n_clusters, Tensor) else torch.full_like(layout.sizes, n_clusters)
    counts = counts.to(layout.sizes.device)
    if counts.dtype != torch.int64 or counts.shape != layout.sizes.shape:
        raise ValueError(
            f"n_clusters is {counts.dtype} of shape {tuple(counts.shape)}, but must be an int or int64 "
            f"[{layout.n_models}], one for each model."
        )
    wrong = (counts > copies_of_models(layout, sample_weight)) | ((counts < 1) & (layout.sizes > 0)) | (counts < 0)
    if bool(wrong.any()):
        m = int(wrong.nonzero()[0])
        raise ValueError(
            f"n_clusters is {int(counts[m])} for model {m} of {int(layout.sizes[m])} points, but must be at least 1 "
            "and at most the number of points."
        )
    return counts


def start_rows(
    points: Tensor,
    layout: Layout,
    counts: Tensor,
    seed: int,
    backend: str,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Rows that k-means++ chooses in models of different numbers of clusters; a model's do not depend on the others.

    Parameters
    ----------
    points, layout, seed, backend, sample_weight
        As of :func:`kmeans`.
    counts : Tensor
        int64 [M], clusters of each model, at most its points.

    Returns
    -------
    Tensor
        int64 [M, K] rows of ``points``, K the largest count; zero for clusters that a model lacks.
    """
    rows = counts.new_zeros(layout.n_models, int(counts.max()) if len(counts) else 0)
    for k in counts.unique().tolist():
        if k:
            models = (counts == k).nonzero()[:, 0]
            own = layout.select(models)
            rows[models, :k] = kmeans_plusplus(points, own, k, seed, sample_weight=sample_weight, backend=backend)
    return rows


@checked
def kmeans(
    points: Tensor,
    layout: Layout | Tensor,
    n_clusters: Tensor | int,
    seed: int,
    *,
    sample_weight: Tensor | None = None,
    max_iter: int = 20,
    tol: float = 1e-4,
    backend: str = "auto",
) -> KMeans:
    """Cluster the points of every model by k-means, from the rows that greedy k-means++ chooses.

    An iteration assigns each point to its nearest centre, the first one of equals, and moves each centre to the mean
    of its points. As in scikit-learn, a cluster without points takes the point farthest from its centre instead, unless
    every point of the model lies on its centre. Models that have converged leave the work.

    Parameters
    ----------
    points : Tensor
        [N, D], float32 or float64, finite. Distances and means are computed in float64.
    layout : Layout or Tensor
        The rows of each model: a layout, or offsets int64 [M + 1].
    n_clusters : Tensor or int
        int64 [M] or the same for all models: at least 1 and at most the number of points, 0 for a model without points.
    seed : int
        Of :func:`fastdens.kernels.kmeans_plusplus`.
    sample_weight : Tensor, optional
        [N], positive, in the dtype of the points: how often each counts, in the start and in the means.
    max_iter : int
        Iterations at most.
    tol : float
        A model has converged when no label changes, or when the sum of the squared movements of its centres is at most
        ``tol`` times the mean variance of its features.
    backend : {"auto", "triton", "cpu", "reference"}
        Of :func:`fastdens.kernels.kmeans_plusplus`; the iterations are torch operations on the device of the points.

    Returns
    -------
    KMeans
        The clusters of each model, and what is known of them.

    Raises
    ------
    TypeError
        If the points are not float32 or float64 [N, D].
    ValueError
        If the layout or the number of clusters does not fit.

    References
    ----------
    Lloyd, Least squares quantization in PCM, IEEE Transactions on Information Theory 28, 1982.

    Examples
    --------
    >>> import torch
    >>> from fastdens.kernels import kmeans
    >>> points = torch.tensor([[0.0], [0.2], [9.0], [5.0], [5.4], [-4.0]])
    >>> kmeans(points, torch.tensor([0, 3, 6]), n_clusters=2, seed=0).centres[:, :, 0].sort(1).values
    tensor([[ 0.1000,  9.0000],
            [-4.0000,  5.2000]])
    """
    check_points(points)
    layout = as_layout(layout, layout.n_models if isinstance(layout, Layout) else len(layout) - 1, len(points))
    if sample_weight is not None:
        check_sample_weight(points, sample_weight)
    counts = _cluster_counts(n_clusters, layout, sample_weight)
    points = points.detach()
    starts = start_rows(points, layout, counts, seed, backend, sample_weight)
    occupied = layout.sizes.nonzero()[:, 0]
    result = KMeans(
        torch.full((len(points),), -1, device=points.device),
        points.new_full((*starts.shape, points.shape[1]), math.nan),
        torch.zeros(layout.n_models, dtype=torch.float64, device=points.device),
        torch.zeros_like(layout.sizes),
    )
    runs = bounded_runs(layout.sizes[occupied].tolist(), max(1, _MAX_POINT_ELEMENTS // points.shape[1]))
    for models in (occupied[begin:end] for begin, end in runs if begin < end):
        own = layout.select(models)
        tiles, origin = _tiles_of(points, own, sample_weight)
        present = torch.arange(int(counts[models].max()), device=points.device) < counts[models, None]
        rows = starts[models, : present.shape[1]]
        start = (points[rows].double() - origin[:, None]).masked_fill_(~present[..., None], 0.0)
        tolerance = tol * _mean_variance(tiles, own)
        centres, n_iter = _lloyd(tiles, start, present, tolerance, max_iter)
        labels = _nearest(tiles, centres, present)
        result.labels[tiles.row[tiles.valid]] = labels[tiles.valid]
        placed = (centres + origin[:, None]).masked_fill_(~present[..., None], math.nan)
        result.centres[models, : rows.shape[1]] = placed.to(points.dtype)
        error = (tiles.x - centres[tiles.model[:, None], labels])[tiles.valid].square_()
        if tiles.weight is not None:
            error *= tiles.weight[tiles.valid][:, None]
        result.inertia[models] = _row_sums(torch.segment_reduce(error, "sum", lengths=own.sizes))
        result.n_iter[models] = n_iter
    return result
