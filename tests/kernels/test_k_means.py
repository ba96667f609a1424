"""k-means: the clusters of scikit-learn from the same start, for models of any size, in any company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdens.kernels import k_means
from sklearn.cluster import KMeans

from fastdens import kernels
from tests.problems import layout_of


def clusters(rng: np.random.Generator, sizes: list[int], d: int) -> torch.Tensor:
    """Points of three separate clouds in every model."""
    centres = 4 * rng.normal(size=(3, d))
    n = sum(sizes)
    return torch.from_numpy(centres[rng.integers(0, 3, n)] + rng.normal(size=(n, d)))


def layout_of_sizes(sizes: list[int]) -> kernels.Layout:
    return layout_of(torch.tensor([0, *sizes]).cumsum(0))


def scikit_learn(points: torch.Tensor, start: torch.Tensor, max_iter: int, tol: float = 1e-4) -> KMeans:
    model = KMeans(len(start), init=points[start].numpy(), n_init=1, max_iter=max_iter, tol=tol, algorithm="lloyd")
    return model.fit(points.numpy())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("max_iter", "tol"), [(1, 1e-4), (3, 0.0), (20, 1e-4), (100, 0.3), (300, 0.0)])
@pytest.mark.parametrize("d", [1, 2, 17, 64])
def test_agrees_with_scikit_learn(rng, d, max_iter, tol):
    sizes = [300, 1, 40, 7, 129, 128]
    n_clusters = torch.tensor([int(rng.integers(1, min(n, 30) + 1)) for n in sizes])
    n_clusters[3] = 7
    points, layout, seed = clusters(rng, sizes, d), layout_of_sizes(sizes), int(rng.integers(2**40))
    done = kernels.kmeans(points, layout, n_clusters, seed, max_iter=max_iter, tol=tol)
    assert done.labels.dtype == torch.int64 and done.inertia.dtype == torch.float64
    for m, (a, b) in enumerate(layout.ranges.tolist()):
        k = int(n_clusters[m])
        start = kernels.kmeans_plusplus(points, layout.select([m]), k, seed)[0] - a
        theirs = scikit_learn(points[a:b], start, max_iter, tol)
        assert torch.equal(done.labels[a:b], torch.from_numpy(theirs.labels_).long())
        assert float(done.inertia[m]) == pytest.approx(theirs.inertia_, rel=1e-10, abs=1e-20)
        np.testing.assert_allclose(done.centres[m, :k], theirs.cluster_centers_, rtol=1e-10, atol=1e-10)
        assert done.centres[m, k:].isnan().all()
        assert done.n_iter[m] == theirs.n_iter_


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spacing", [1, 2**-8])
def test_data_far_from_the_origin_have_the_same_labels(rng, dtype, spacing):
    # Points on a grid, which float32 holds wherever they lie; the coarse one has many ties.
    sizes = [200, 30]
    points = ((clusters(rng, sizes, 5) / spacing).round() * spacing).to(dtype)
    layout = layout_of_sizes(sizes)
    near, far = kernels.kmeans(points, layout, 9, 5), kernels.kmeans(points + 1e4, layout, 9, 5)
    assert torch.equal(near.labels, far.labels) and far.centres.dtype == dtype
    torch.testing.assert_close(far.inertia, near.inertia, rtol=1e-9, atol=0)
    torch.testing.assert_close(far.centres - 1e4, near.centres, rtol=0, atol=1e4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("kind", ["continuous", "lattice", "equal points"])
def test_a_model_is_the_same_bits_in_any_company(rng, kind, monkeypatch):
    sizes = [90, 1, 257, 12, 64, 500]
    d, seed = int(rng.integers(1, 6)), int(rng.integers(2**40))
    points = clusters(rng, sizes, d)
    points = {"continuous": points, "lattice": (points / 3).round() / 3, "equal points": torch.ones_like(points)}[kind]
    layout = layout_of_sizes(sizes)
    n_clusters = torch.tensor([int(rng.integers(1, min(n, 40) + 1)) for n in sizes])
    whole = kernels.kmeans(points, layout, n_clusters, seed)
    for m, (a, b) in enumerate(layout.ranges.tolist()):
        k = int(n_clusters[m])
        alone = kernels.kmeans(points[a:b].clone(), torch.tensor([0, b - a]), k, seed)
        assert torch.equal(alone.labels, whole.labels[a:b])
        assert torch.equal(alone.centres[0], whole.centres[m, :k])
        assert torch.equal(alone.inertia[0], whole.inertia[m]) and alone.n_iter[0] == whole.n_iter[m]
    # Nor does it depend on how the work is cut to bound memory, on the number of threads, or on how a GPU adds.
    monkeypatch.setattr(k_means, "_sums_of_clusters", k_means._sorted_sums)
    monkeypatch.setattr(k_means, "_TILE_ROWS", 16)
    monkeypatch.setattr(k_means, "_MAX_POINT_ELEMENTS", 300)
    monkeypatch.setattr(k_means, "_MAX_DISTANCES", 100)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        again = kernels.kmeans(points, layout, n_clusters, seed)
    finally:
        torch.set_num_threads(n_threads)
    for mine, theirs in zip(again, whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


def test_ties_go_to_the_first_of_the_nearest_centres(rng):
    # Many squared distances on a lattice agree, up to the rounding of thirds: differences are exact, squares are not.
    points = torch.from_numpy(rng.integers(-1, 2, size=(300, 7)) / 3)
    done = kernels.kmeans(points, torch.tensor([0, 300]), 40, 0, max_iter=0)
    distance = torch.zeros(300, 40, dtype=torch.float64)
    for x, c in zip(points.T, done.centres[0].T, strict=True):
        distance += (x[:, None] - c) ** 2
    assert torch.equal(done.labels, distance.argmin(1))
    assert done.n_iter.tolist() == [0]


def test_as_many_clusters_as_points_or_more_than_different_points(rng):
    points = torch.from_numpy(rng.normal(size=(23, 4)))
    layout = layout_of_sizes([22, 1])
    done = kernels.kmeans(points, layout, layout.sizes, 1)
    assert sorted(done.labels.tolist()) == [0, *range(22)]
    assert done.inertia.max() < 1e-25
    repeated = points[:5].repeat(8, 1)
    done = kernels.kmeans(repeated, torch.tensor([0, 40]), 12, 1)
    assert torch.equal(done.labels, done.labels[:5].repeat(8)) and len(done.labels.unique()) == 5
    assert done.inertia.max() < 1e-25 and done.centres.isfinite().all()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_empty_cluster_takes_the_farthest_point(rng, monkeypatch):
    found = 0
    for _ in range(30):
        points = torch.from_numpy(np.concatenate([rng.normal(size=(60, 2)), 30 + rng.normal(size=(10, 2))]))
        # Starts that come twice leave the second of the two without points.
        start = torch.from_numpy(rng.permutation(60)[:6]).repeat_interleave(torch.tensor([1, 2, 1, 1, 1, 1]))[:6]
        start = torch.cat([start, start[-2:]])
        monkeypatch.setattr(k_means, "kmeans_plusplus", lambda *_, start=start, **__: start[None])
        done = kernels.kmeans(points, torch.tensor([0, 70]), 8, 0, max_iter=1)
        theirs = scikit_learn(points, start, 1)
        found += len(np.unique(theirs.labels_)) > 5
        # Of several empty clusters, scikit-learn's take the farthest points in no particular order.
        assert done.inertia[0] == pytest.approx(theirs.inertia_, rel=1e-10)
        ours = torch.zeros(70, 8).scatter_(1, done.labels[:, None], 1)
        other = torch.zeros(70, 8).scatter_(1, torch.from_numpy(theirs.labels_).long()[:, None], 1)
        assert torch.equal(ours @ ours.T, other @ other.T)
    assert found


def test_rows_that_lie_apart_and_models_without_points(rng):
    points = torch.from_numpy(rng.normal(size=(60, 3)))
    layout = kernels.Layout.from_ranges(torch.tensor([[40, 55], [7, 7], [2, 30]]), 60)
    done = kernels.kmeans(points, layout, torch.tensor([4, 0, 6]), 3)
    alone = kernels.kmeans(points[2:30], torch.tensor([0, 28]), 6, 3)
    assert torch.equal(done.labels[2:30], alone.labels)
    assert (done.labels[30:40] == -1).all() and (done.labels[40:55] >= 0).all()
    assert done.centres[1].isnan().all() and done.n_iter[1] == 0 and done.inertia[1] == 0
    nothing = kernels.kmeans(points[:0], torch.tensor([0]), 3, 0)
    assert nothing.labels.shape == (0,) and nothing.inertia.shape == (0,)


def test_surroundings_do_not_matter(rng):
    points, offsets = clusters(rng, [50, 20], 3).float(), torch.tensor([0, 50, 70])
    expected = kernels.kmeans(points, offsets, 6, 2)
    with torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        done = kernels.kmeans(points.requires_grad_(), offsets, 6, 2)
    with torch.inference_mode():
        again = kernels.kmeans(points, offsets, 6, 2)
    for a, b, c in zip(done, again, expected, strict=True):
        assert torch.equal(a, c) and torch.equal(b, c) and not a.requires_grad


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.unsanitized
def test_a_gpu_finds_the_same_clusters(rng, dtype):
    sizes = [300, 1, 40, 129]
    points, layout = clusters(rng, sizes, 9).to(dtype), layout_of_sizes(sizes)
    n_clusters = layout.sizes.clamp_max(20)
    expected = kernels.kmeans(points, layout, n_clusters, 4)
    done = kernels.kmeans(points.cuda(), layout_of(torch.tensor([0, *sizes]).cumsum(0).cuda()), n_clusters, 4)
    assert torch.equal(done.labels.cpu(), expected.labels)
    torch.testing.assert_close(done.inertia.cpu(), expected.inertia, rtol=1e-10, atol=0)
    torch.testing.assert_close(done.centres.cpu(), expected.centres, equal_nan=True)


def test_one_absurd_row_has_a_cluster_of_its_own(rng):
    points = clusters(rng, [100], 3).float()
    points[17] = 1e15
    done = kernels.kmeans(points, torch.tensor([0, 100]), 4, 0)
    assert (done.labels == done.labels[17]).sum() == 1


@pytest.mark.parametrize(
    ("n_clusters", "message"),
    [
        (6, "n_clusters is 6 for model 1 of 5 points, but must be at least 1 and at most the number of points"),
        (0, "n_clusters is 0 for model 0 of 10 points"),
        (torch.tensor([3]), r"n_clusters is torch.int64 of shape \(1,\), but must be an int or int64 \[2\]"),
        (torch.tensor([3.0, 3.0]), "n_clusters is torch.float32"),
    ],
)
def test_numbers_of_clusters_that_do_not_fit(n_clusters, message):
    with pytest.raises(ValueError, match=message):
        kernels.kmeans(torch.zeros(15, 2), torch.tensor([0, 10, 15]), n_clusters, 0)
