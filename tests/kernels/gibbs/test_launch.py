"""Chains that stop inside a launch: for more slots, for a cluster to be fitted anew, for want of a factor."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from fastdens.kernels.gibbs.problem import SingularScatterError, SweepProblem
from fastdens.kernels.layout import Layout

from tests.kernels.gibbs.chains import CPU, GPU, INTERPRETER, chain_start, clustered, run
from tests.kernels.gibbs.posterior import KAPPA0, NU0_OVER_D, Data

pytest.importorskip("triton")
from fastdens.kernels.gibbs import launch
from fastdens.kernels.gibbs.kernel import blocks


def far_apart(rng, sizes):
    """Every point far from all others under a narrow prior: with a large alpha each opens a cluster."""
    points = torch.from_numpy(rng.normal(size=(sum(sizes), 2)) * 1e3)
    means = torch.stack([part.mean(0) for part in points.split(sizes)])
    return Data(points, torch.tensor([0, *sizes]).cumsum(0), means, torch.full_like(means, 1e-3))


def launched(data, labels, alpha, keys, n_slots, device="cpu", n_sweeps=2, split_merge=0, kappa0=KAPPA0):
    points, offsets, labels, alpha, keys, mean, scale = (
        t.to(device) for t in (data.points, data.offsets, labels, alpha, keys, *data[2:])
    )
    layout = Layout.from_offsets(offsets, len(points))
    nu0 = points.shape[1] - 1 + NU0_OVER_D
    temperature = torch.ones(len(alpha), n_sweeps, dtype=torch.float64, device=device)
    moves = torch.full((len(alpha), n_sweeps), split_merge, dtype=torch.int32, device=device)
    prior = (mean, scale, kappa0, nu0, (0.0, 0.0))
    problem = SweepProblem(points, layout, keys, *prior, 0, n_sweeps, 1, temperature, moves)
    return launch.sweep_chains(problem, labels, alpha, n_slots)


def with_turns(turns, n_features, refit, moves):
    """Block sizes of a launch that weighs so many points side by side, where it does not fit clusters anew."""
    sizes = blocks(n_features, refit, moves)
    return sizes if refit else sizes._replace(turns=turns)


def assert_slots_change_nothing(data, labels, alpha, keys, slots, device, n_sweeps):
    """The draws with few slots are those with many, and the labels those of the other backends."""
    few, many = (launched(data, labels, alpha, keys, n_slots, device, n_sweeps=n_sweeps) for n_slots in slots)
    for a, b in zip(few, many, strict=True):
        assert torch.equal(a, b)
    for backend in ("cpu", "reference"):
        want = run(data, labels, alpha, keys, backend, n_sweeps=n_sweeps, alpha_prior=None)
        assert torch.equal(few.labels.cpu(), want.labels)
    return few


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.unsanitized
def test_a_chain_that_grows_is_the_chain_that_had_the_slots(rng, device):
    """Models of different sizes, some of which stop several times: 2 slots become 8, and no bit differs."""
    data = far_apart(rng, [1, 7, 3])
    labels, alpha, keys = chain_start(rng, data, 2, 2, alpha=1e100)
    few = assert_slots_change_nothing(data, labels, alpha, keys, (2, 8), device, n_sweeps=1)
    assert few.n_components[..., -1].tolist() == [[1, 1], [7, 7], [3, 3]]


@pytest.mark.parametrize("scale", [1.0, 1e-9])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_points_weighed_side_by_side_are_the_chain_of_one_after_the_other(rng, monkeypatch, device, scale):
    """Chains that begin with many movers, grow, or have clusters that points carry: no bit depends on the turns."""
    data = clustered(rng, [1, 18], 3, scale)
    start = chain_start(rng, data, 1, 5)
    draws = []
    for turns in (1, 32):
        monkeypatch.setattr(launch, "blocks", partial(with_turns, turns))
        draws.append(launched(data, *start, n_slots=6, device=device, n_sweeps=2, split_merge=1))
    for a, b in zip(*draws, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.unsanitized
def test_chains_that_stop_for_different_reasons(rng, device):
    """Some points carry their cluster, and there are fewer slots than clusters: chains go on each in its own way."""
    data = clustered(rng, [5, 9], 2, scale=1e-9)
    labels, alpha, keys = chain_start(rng, data, 1, 2, alpha=3.0)
    assert_slots_change_nothing(data, labels, alpha, keys, (2, 16), device, n_sweeps=2)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.unsanitized
def test_a_split_for_which_no_slot_is_free(rng, device):
    """Blobs far apart, two labels and two slots: of 200 chains, one with a third cluster only if there are moves."""
    points = torch.from_numpy(rng.normal(size=(16, 1)) + 100 * (np.arange(16) % 4)[:, None])
    data = Data(points, torch.tensor([0, 16]), points.mean(0)[None], torch.ones(1, 1, dtype=torch.float64))
    labels, alpha, keys = chain_start(rng, data, 200, 2, alpha=1e-4)
    options = {"n_sweeps": 1, "kappa0": 1e-4, "split_merge": 5}
    chains = run(data, labels, alpha, keys, "cpu", alpha_prior=None, **options)
    still = run(data, labels, alpha, keys, "cpu", alpha_prior=None, **{**options, "split_merge": 0})
    grows = (chains.n_components[0, :, 0] > 2) & (still.n_components[0, :, 0] <= 2)
    assert bool(grows.any())
    c = int(grows.int().argmax())
    few, many = (
        launched(data, labels[c : c + 1], alpha[:, c : c + 1], keys[:, c : c + 1], n_slots, device, **options)
        for n_slots in (2, 16)
    )
    for a, b in zip(few, many, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(few.labels[:, 0].cpu(), chains.labels[:, c])
    assert torch.equal(few.split_merge[:, 0].cpu(), chains.split_merge[:, c])


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_singular_scale_matrices_are_an_error(rng, backend, device):
    """Points on a line, and a prior too narrow to be seen beside them."""
    line = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None].expand(-1, 3).contiguous()
    origin = torch.zeros(2, 3, dtype=torch.float64)
    scale = torch.stack([torch.ones(3), torch.full((3,), 1e-40)]).double()
    data = Data(torch.cat([line, line]), torch.tensor([0, 8, 16]), origin, scale)
    _, alpha, keys = chain_start(rng, data, 1, 1)
    with pytest.raises(SingularScatterError, match="model 1, chain 0"):
        run(data, torch.zeros(1, 16, dtype=torch.int32), alpha, keys, backend, device)
