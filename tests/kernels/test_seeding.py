"""k-means++ and random rows: the same rows on every backend, all different, and as likely as they should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdens.kernels import seeding
from fastdens.kernels.counter_random import hashed_uniform
from torch.utils._python_dispatch import TorchDispatchMode

from fastdens import kernels
from tests.problems import GPU, INTERPRETER, layout_of


@pytest.mark.parametrize("kind", ["continuous", "ties", "equal points"])
def test_cpu_chooses_the_rows_of_the_reference(rng, kind):
    for sizes in ([9, 40, 2500], [300], [9] * 50):
        d, k, seed = int(rng.integers(1, 20)), int(rng.integers(1, 10)), int(rng.integers(2**40))
        x = torch.from_numpy(rng.normal(size=(sum(sizes), d)))
        x = {"continuous": x, "ties": x.round(), "equal points": torch.ones_like(x)}[kind]
        layout = layout_of(torch.tensor([0, *sizes]).cumsum(0))
        ranges = layout.ranges
        rows = kernels.kmeans_plusplus(x, layout, k, seed)
        assert torch.equal(rows, kernels.kmeans_plusplus(x, layout, k, seed, backend="reference"))
        assert ((rows >= ranges[:, :1]) & (rows < ranges[:, 1:])).all()
        assert all(len(set(own)) == k for own in rows.tolist())
        alone = kernels.kmeans_plusplus(x, layout.select([-1]), k, seed)
        assert torch.equal(alone, rows[-1:])


@pytest.mark.parametrize("one_program_rows", [4096, 20])
@pytest.mark.parametrize(("backend", "device"), [INTERPRETER, GPU])
def test_the_kernel_chooses_the_rows_of_the_reference(rng, monkeypatch, backend, device, one_program_rows):
    """In one launch, and in two for each centre; models of one chunk, and of several."""
    monkeypatch.setattr(seeding, "_CHUNK_ROWS", 100)
    monkeypatch.setattr(seeding, "_ONE_PROGRAM_ROWS", one_program_rows)
    for sizes, d, k, dtype, kind in (
        ([9, 230, 100], 3, 4, torch.float64, "continuous"),
        ([150], 17, 3, torch.float32, "continuous"),
        ([4, 101], 1, 3, torch.float32, "ties"),
        ([6, 8], 33, 5, torch.float64, "ties"),
        ([5, 110], 2, 4, torch.float64, "equal points"),
        ([1, 30], 1, 1, torch.float64, "continuous"),
    ):
        x, seed = torch.from_numpy(rng.normal(size=(sum(sizes), d))), int(rng.integers(2**40))
        x = {"continuous": x, "ties": x.round(), "equal points": torch.ones_like(x)}[kind].to(device, dtype)
        layout = layout_of(torch.tensor([0, *sizes], device=device).cumsum(0))
        rows = kernels.kmeans_plusplus(x, layout, k, seed, backend=backend)
        assert torch.equal(rows, kernels.kmeans_plusplus(x, layout, k, seed, backend="reference"))
        # Neither the other models nor the place in memory matter.
        strided = torch.stack([x, x], 2)[..., 0]
        assert torch.equal(rows[-1:], kernels.kmeans_plusplus(strided, layout.select([-1]), k, seed, backend=backend))


@pytest.mark.parametrize("n_clusters", [2, 7])
def test_launches_are_one_or_two_a_centre_and_torch_has_no_part_in_them(monkeypatch, n_clusters):
    launches, operations = [], []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            operations.append(function)
            return function(*args, **(kwargs or {}))

    class Launches:
        def __getitem__(self, grid):
            return lambda *arguments, **constants: launches.append(grid)

    monkeypatch.setattr(seeding, "_kmeans_plusplus_kernel", Launches())
    for sizes, expected in (([9, 4000], 1), ([9, 5000], 2 * n_clusters + 1)):
        layout = layout_of(torch.tensor([0, *sizes]).cumsum(0))
        launches.clear()
        operations.clear()
        with Count():
            kernels.kmeans_plusplus(torch.zeros(sum(sizes), 2), layout, n_clusters, 0, backend="triton")
        assert len(launches) == expected and len(operations) < 50


@pytest.mark.parametrize("backend", ["cpu", "triton", "reference"])
def test_models_with_too_few_points_and_no_models(backend):
    layout = kernels.Layout.from_ranges(torch.tensor([[0, 5], [5, 7]]), 7)
    with pytest.raises(ValueError, match=r"model 1 has 2 points, but k-means\+\+ is to choose 3"):
        kernels.kmeans_plusplus(torch.zeros(7, 2), layout, 3, 0, backend=backend)
    assert kernels.kmeans_plusplus(torch.zeros(7, 2), layout.select([]), 3, 0, backend=backend).shape == (0, 3)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_first_row_is_uniform_and_the_second_likelier_far_away(backend):
    # Two candidates a draw for K = 2: the far point is missed only if both candidates are near ones.
    x = torch.tensor([[0.0], [0.0], [1.0], [3.0]], dtype=torch.float64).repeat(4000, 1)
    layout = layout_of(4 * torch.arange(4001))
    # Models of equal points start alike by design, so every model is drawn with a seed of its own.
    rows = (
        torch.cat([kernels.kmeans_plusplus(x, layout.select([m]), 2, seed=m, backend=backend) for m in range(1500)])
        - layout.ranges[:1500, :1]
    )
    share = torch.bincount(rows[:, 0], minlength=4) / 1500
    assert (share - 0.25).abs().max() < 5 * np.sqrt(0.25 * 0.75 / 1500)
    second = rows[rows[:, 0] < 2][:, 1]
    # Near (weight 1) and far (weight 9): far wins unless both draws are near, 1 - 0.1^2.
    assert float((second == 3).double().mean()) == pytest.approx(0.99, abs=0.02)


def test_hashed_numbers_are_uniform_and_uncorrelated(seed):
    u = torch.stack([hashed_uniform(seed, draw, torch.arange(100_000)) for draw in range(3)])
    assert float(u.min()) > 0 and float(u.max()) < 1
    assert (u.mean(1) - 0.5).abs().max() < 5 / np.sqrt(12 * 100_000)
    assert (torch.corrcoef(u) - torch.eye(3)).abs().max() < 5 / np.sqrt(100_000)
    assert abs(float(torch.corrcoef(torch.stack([u[0, 1:], u[0, :-1]]))[0, 1])) < 5 / np.sqrt(100_000)


def test_random_responsibilities_and_rows(seed):
    ranges = torch.tensor([[2, 9], [9, 10], [12, 40]])
    layout = kernels.Layout.from_ranges(ranges, 45)
    resp = kernels.random_responsibilities(layout, 45, 3, seed, torch.float64)
    owned = torch.cat([torch.arange(a, b) for a, b in ranges.tolist()])
    torch.testing.assert_close(resp[owned].sum(1), torch.ones(len(owned), dtype=torch.float64))
    assert float(resp.sum()) == pytest.approx(len(owned))
    reference = kernels.random_responsibilities(layout, 45, 3, seed, torch.float64, backend="reference")
    torch.testing.assert_close(resp, reference, rtol=1e-14, atol=0)
    rows = kernels.random_rows(layout.select([0, 2]), 7, seed)
    assert all(len(set(own)) == 7 for own in rows.tolist())
    assert ((rows >= ranges[[0, 2], :1]) & (rows < ranges[[0, 2], 1:])).all()
