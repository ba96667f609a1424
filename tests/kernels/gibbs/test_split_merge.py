"""Chains with split-merge moves: against the reference, in other company, in two launches, and what they are for."""

from __future__ import annotations

import pytest
import torch
from fastdens.kernels import reference

from tests.kernels.gibbs.chains import chain_start, clustered, planted, run
from tests.kernels.gibbs.posterior import KAPPA0, NU0_OVER_D, Data


def assert_same_chain(got, want):
    assert torch.equal(got.labels, want.labels)
    assert torch.equal(got.n_components, want.n_components)
    assert torch.equal(got.split_merge, want.split_merge)
    torch.testing.assert_close(got.alpha, want.alpha, rtol=1e-10, atol=0)
    torch.testing.assert_close(got.log_joint, want.log_joint, rtol=1e-10, atol=1e-9)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("start", ["one cluster", "every point alone", "random"])
def test_same_chain_as_reference(rng, d, start):
    data = clustered(rng, [1, 2, 3, 12], d)
    _, alpha, keys = chain_start(rng, data, 2, 1)
    sizes = data.offsets.diff()
    labels = {
        "one cluster": torch.zeros(2, 18, dtype=torch.int32),
        "every point alone": torch.cat([torch.arange(n) for n in sizes]).int().repeat(2, 1),
        "random": chain_start(rng, data, 2, 4)[0],
    }[start]
    options = {"n_sweeps": 3, "first_sweep": 5, "split_merge": torch.tensor([9, 0, 8])}
    options["inverse_temperature"] = torch.tensor([0.3, 1.0, 0.7], dtype=torch.float64)
    want, got = (run(data, labels, alpha, keys, backend, **options) for backend in ("reference", "cpu"))
    assert_same_chain(got, want)
    proposed, accepted = got.split_merge[..., ::2].sum(-1), got.split_merge[..., 1::2]
    # A model of one point has no pair of anchors.
    assert (proposed[0] == 0).all() and (proposed[1:] > 0).all() and (proposed <= 17).all()
    assert (accepted >= 0).all() and (accepted <= got.split_merge[..., ::2]).all()


@pytest.mark.usefixtures("one_thread")
def test_same_splits_and_merges_as_reference(rng):
    """Models small enough that many moves are accepted."""
    data = clustered(rng, [2, 3, 4, 3, 2], 2, separation=1.0)
    start = chain_start(rng, data, 3, 2)
    want, got = (run(data, *start, backend, n_sweeps=4, split_merge=12) for backend in ("reference", "cpu"))
    assert_same_chain(got, want)
    assert (got.split_merge.sum((0, 1)) > 20).all()


@pytest.mark.usefixtures("one_thread")
def test_points_that_carry_their_side(rng):
    """A prior so narrow that without a far point almost nothing of its side's scatter is left: the point stays."""
    data = clustered(rng, [10], 2, scale=1e-9)
    start = chain_start(rng, data, 1, 3)
    want, got = (run(data, *start, backend, n_sweeps=2, split_merge=8) for backend in ("reference", "cpu"))
    assert torch.equal(got.labels, want.labels) and torch.equal(got.split_merge, want.split_merge)
    torch.testing.assert_close(got.log_joint, want.log_joint, rtol=1e-6, atol=0)


def test_drift_of_many_moves_in_one_launch(rng):
    """2,000 moves without rebuilding: the log-joint is still that of the labels, worked out anew."""
    data = clustered(rng, [80], 6, separation=1.0)
    labels, alpha, keys = chain_start(rng, data, 1, 6, alpha=5.0)
    got = run(data, labels, alpha, keys, "cpu", n_sweeps=100, thin=100, alpha_prior=None, split_merge=20)
    assert (got.split_merge[0, 0, 1::2] > 0).all()
    prior = (data.prior_scale[0], KAPPA0, 5 + NU0_OVER_D, (0.0, 0.0))
    want = reference.log_joint(data.points - data.prior_mean, got.labels[0, 0], 5.0, *prior)
    assert float(got.log_joint[0, 0, -1]) == pytest.approx(want, rel=1e-9)


def test_same_bits_again_and_in_other_company(rng):
    data = clustered(rng, [8, 25, 1, 5], 3)
    labels, alpha, keys = chain_start(rng, data, 2, 3)
    first, again = (run(data, labels, alpha, keys, "cpu", n_sweeps=5, split_merge=6) for _ in range(2))
    alone = Data(data.points[8:33], torch.tensor([0, 25]), data.prior_mean[1:2], data.prior_scale[1:2])
    own = run(alone, labels[:, 8:33], alpha[1:2], keys[1:2], "cpu", n_sweeps=5, split_merge=6)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first.labels[..., 8:33], own.labels)
    for a, b in zip(first[1:], own[1:], strict=True):
        assert torch.equal(a[1:2], b)


def test_two_launches_are_one(rng):
    """Of chains whose clusters only become more: where a number falls free, launches differ in who takes it next."""
    data, _ = planted(rng, 1, 40, 3, 4, separation=300.0)
    labels, alpha, keys = chain_start(rng, data, 40, 1, alpha=1e-6)
    moves = torch.from_numpy(rng.integers(1, 9, size=9))
    options = {"alpha_prior": None, "n_sweeps": 9, "split_merge": moves}
    whole = run(data, labels, alpha, keys, "cpu", **options)
    first = run(data, labels, alpha, keys, "cpu", **options | {"n_sweeps": 2, "split_merge": moves[:2]})
    rest = {"n_sweeps": 7, "first_sweep": 2, "split_merge": moves[2:]}
    second = run(data, first.labels[-1], alpha, keys, "cpu", **options | rest)
    _, splits, _, merges = whole.split_merge[0].T
    grows = (merges == 0) & (splits > 0) & (whole.n_components[0, :, -1] == 1 + splits)
    assert bool(grows.any())
    assert torch.equal(torch.cat([first.labels, second.labels])[:, grows], whole.labels[:, grows])
    assert torch.equal((first.split_merge + second.split_merge)[:, grows], whole.split_merge[:, grows])
    log_joint = torch.cat([first.log_joint, second.log_joint], -1)
    torch.testing.assert_close(log_joint[:, grows], whole.log_joint[:, grows], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("d", "separation"), [(4, 3.0), (4, 6.0), (16, 3.0)])
def test_moves_find_the_clusters(rng, d, separation):
    """From one cluster, most chains become as likely as the planted labels with moves; without, most stay far below."""
    data, labels = planted(rng, 10, 500, d, 8, separation)
    _, alpha, keys = chain_start(rng, data, 1, 1, alpha=1.0)

    def log_joint(labels, n_sweeps, split_merge):
        options = {"n_sweeps": n_sweeps, "thin": n_sweeps, "kappa0": 0.01, "split_merge": split_merge}
        return run(data, labels, alpha, keys, "cpu", **options).log_joint[:, 0, -20:].mean(-1)

    planted_start, one_cluster = log_joint(labels, 40, 0), torch.zeros_like(labels)
    assert (log_joint(one_cluster, 100, 2) > planted_start - 10).sum() >= 6
    assert (log_joint(one_cluster, 100, 0) < planted_start - 100).sum() >= 6


def test_errors_name_what_is_wrong(rng):
    data = clustered(rng, [8, 5], 2)
    start = chain_start(rng, data, 1, 3)
    with pytest.raises(ValueError, match="split_merge must be at least 0"):
        run(data, *start, "cpu", n_sweeps=2, split_merge=torch.tensor([1, -1]))
    with pytest.raises(ValueError, match=r"split_merge has shape \(2, 3\)"):
        run(data, *start, "cpu", n_sweeps=2, split_merge=torch.ones(3, dtype=torch.int32))
