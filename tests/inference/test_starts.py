"""Starts of chains: what each kind draws, for models of any size, each for itself."""

from __future__ import annotations

import pytest
import torch
from fastdens.kernels.counter_random import hashed_bits, uniform_of_bits
from scipy import stats
from sklearn.preprocessing import StandardScaler

from fastdens import kernels
from fastdens.inference.gibbs import stream_keys
from fastdens.inference.starts import INITS, fine_cluster_counts, fine_labels, random_labels, start_labels
from tests.problems import layout_of

SIZES = [1, 2, 40, 13, 700]


def problem(rng, n_chains, d=3, sizes=SIZES):
    points = torch.from_numpy(rng.normal(size=(sum(sizes), d)) * 10.0 ** rng.integers(-3, 4, size=d) + 5)
    layout = layout_of(torch.tensor([0, *sizes]).cumsum(0))
    seed = int(rng.integers(2**31))
    return points, layout, stream_keys(points, layout, n_chains, seed), seed


@pytest.fixture
def n_clusters(monkeypatch):
    """The numbers of clusters of every call of k-means, which finds as many or, seldom, leaves some empty."""
    calls, kmeans = [], kernels.kmeans

    def recorded(points, layout, n_clusters, seed, **options):
        calls.append(n_clusters.tolist())
        done = kmeans(points, layout, n_clusters, seed, **options)
        found = torch.stack([done.labels[a:b].max() + 1 for a, b in layout.ranges.tolist()])
        assert (found <= n_clusters).all() and (2 * found >= n_clusters).all()
        return done

    monkeypatch.setattr(kernels, "kmeans", recorded)
    return calls


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("d", [1, 4])
def test_a_model_starts_alike_in_any_company(rng, init, d):
    points, layout, keys, seed = problem(rng, 3, d)
    labels = start_labels(init, points, layout, keys, 5, seed)
    assert labels.shape == (3, len(points)) and labels.dtype == torch.int32
    for m, (a, b) in enumerate(layout.ranges.tolist()):
        own = layout_of(torch.tensor([0, b - a]))
        assert torch.equal(start_labels(init, points[a:b], own, keys[m : m + 1], 5, seed), labels[:, a:b])


def test_random_labels_are_those_of_the_streams(rng):
    points, layout, keys, seed = problem(rng, 2)
    labels = start_labels("random", points, layout, keys, 6, seed)
    assert torch.equal(labels, random_labels(keys, layout, 6))
    a, b = layout.ranges[4].tolist()
    draws = uniform_of_bits(hashed_bits(keys[4, 1], 3, torch.arange(b - a)))
    assert torch.equal(labels[1, a:b], (draws * 6).int())


def alike(labels, others):
    """Whether nearly all labels are the same: rounding decides about points halfway between two centres."""
    return float((labels == others).double().mean()) > 0.95


@pytest.mark.parametrize("n_chains", [1, 2, 4])
def test_overdispersed_starts_grow_from_one_cluster_to_very_many(rng, n_chains, n_clusters):
    points, layout, keys, seed = problem(rng, n_chains)
    labels = start_labels("overdispersed", points, layout, keys, 6, seed)
    assert (labels[0] == 0).all()
    assert n_clusters[0] == [1] * len(SIZES) and len(n_clusters) == n_chains
    if n_chains > 1:
        assert n_clusters[-1] == [1, 2, 7, 3, 100]
    if n_chains == 4:
        # 7^(1/3) = 1.9, 3^(2/3) = 2.1 and so on.
        assert n_clusters[1:3] == [[1, 1, 2, 1, 5], [1, 2, 4, 2, 22]]


def test_kmeans_starts_differ_between_chains_but_not_with_the_units(rng, n_clusters):
    points, layout, keys, seed = problem(rng, 3)
    labels = start_labels("kmeans", points, layout, keys, 5, seed)
    assert n_clusters == [[1, 2, 5, 5, 5]] * 3
    assert all(not torch.equal(labels[a], labels[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert not torch.equal(labels, start_labels("kmeans", points, layout, keys, 5, seed + 1))
    a, b = layout.ranges[4].tolist()
    scaled = torch.from_numpy(StandardScaler().fit_transform(points[a:b].numpy()))
    # The units of the features do not matter, nor does a feature without spread.
    again = start_labels("kmeans", scaled, layout_of(torch.tensor([0, b - a])), keys[4:], 5, seed)
    assert alike(again, labels[:, a:b])
    widened = torch.cat([points, torch.full((len(points), 1), 3.0)], 1)
    assert alike(start_labels("kmeans", widened, layout, keys, 5, seed), labels)


def test_fine_partitions_have_one_cluster_for_six_points(rng):
    sizes = torch.tensor([0, 1, 2, 6, 12, 13, 18, 19, 599, 600, 601, 10**6])
    assert fine_cluster_counts(sizes).tolist() == [0, 1, 2, 2, 2, 3, 3, 4, 100, 100, 100, 100]
    _, layout, keys, _ = problem(rng, 2, sizes=[1, 40, 60_000])
    labels = fine_labels(keys, layout)
    assert labels.dtype == torch.int32 and labels.min() == 0
    assert [int(labels[:, a:b].max()) for a, b in layout.ranges.tolist()] == [0, 6, 99]
    for own in labels[:, 41:]:
        assert stats.chisquare(torch.bincount(own, minlength=100)).pvalue > 1e-6
    joint = torch.bincount(labels[0, 41:] % 10 * 10 + labels[1, 41:] % 10, minlength=100)
    assert stats.chisquare(joint).pvalue > 1e-6


def test_rows_that_no_model_owns_are_left_out(rng):
    points = torch.from_numpy(rng.normal(size=(50, 2)))
    layout = kernels.Layout.from_ranges(torch.tensor([[3, 20], [25, 50]]), 50)
    keys = torch.tensor([[1, 2], [3, 4]])
    labels = start_labels("kmeans", points, layout, keys, 4, 0)
    alone = start_labels("kmeans", points[25:], layout_of(torch.tensor([0, 25])), keys[1:], 4, 0)
    assert torch.equal(labels[:, 25:], alone) and (labels[:, 20:25] == -1).all()


def test_an_unknown_start(rng):
    points, layout, keys, seed = problem(rng, 1)
    with pytest.raises(ValueError, match=r"init is 'overdispersd', but it must be one of .* 'overdispersed'"):
        start_labels("overdispersd", points, layout, keys, 6, seed)
