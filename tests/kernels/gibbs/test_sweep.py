"""The sampler against the reference, and itself on other backends and in other company."""

from __future__ import annotations

import pytest
import torch
from fastdens.kernels import gibbs_sweep, reference

from tests.kernels.gibbs.chains import CPU, GPU, INTERPRETER, chain_start, clustered, liveliest_chain, run
from tests.kernels.gibbs.posterior import KAPPA0, NU0_OVER_D, Data


@pytest.mark.parametrize(
    ("sizes", "d", "n_chains", "n_labels", "n_sweeps"),
    [
        ([1], 1, 1, 1, 2),
        ([1, 9, 14], 1, 2, 3, 3),
        ([12, 1], 2, 1, 12, 3),
        ([20], 7, 1, 3, 2),
        ([9], 33, 1, 2, 2),
    ],
)
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_same_chain_as_reference(rng, backend, device, sizes, d, n_chains, n_labels, n_sweeps):
    data = clustered(rng, sizes, d)
    start = chain_start(rng, data, n_chains, n_labels)
    options = {"n_sweeps": n_sweeps, "first_sweep": 7}
    want = run(data, *start, "reference", **options)
    got = run(data, *start, backend, device, **options)
    assert torch.equal(got.labels.cpu(), want.labels)
    assert torch.equal(got.n_components.cpu(), want.n_components)
    torch.testing.assert_close(got.alpha.cpu(), want.alpha, rtol=1e-10, atol=0)
    torch.testing.assert_close(got.log_joint.cpu(), want.log_joint, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(("sizes", "d", "n_labels", "n_sweeps"), [([90, 40], 20, 5, 4), ([150], 2, 60, 2)])
def test_cpu_same_chain_as_reference_on_larger_models(rng, sizes, d, n_labels, n_sweeps):
    data = clustered(rng, sizes, d)
    start = chain_start(rng, data, 1, n_labels)
    want, got = (run(data, *start, backend, n_sweeps=n_sweeps) for backend in ("reference", "cpu"))
    assert torch.equal(got.labels, want.labels)
    torch.testing.assert_close(got.log_joint, want.log_joint, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(
    ("sizes", "d", "n_labels", "scale"),
    [([1, 2, 9], 1, 2, 1.0), ([7, 1, 10], 3, 2, 1.0), ([10], 17, 2, 1.0), ([12], 2, 3, 1e-9)],
)
@pytest.mark.parametrize(("backend", "device"), [INTERPRETER, GPU])
@pytest.mark.unsanitized
def test_moves_and_temperatures_are_those_of_the_cpu(rng, backend, device, sizes, d, n_labels, scale):
    """Splits and merges that succeed, models of one point and of more, and clusters that their points carry."""
    data = clustered(rng, sizes, d, scale)
    options = {
        "n_sweeps": 3,
        "first_sweep": 5,
        "inverse_temperature": torch.tensor([0.4, 0.9, 1.0], dtype=torch.float64),
        "split_merge": torch.tensor([3, 0, 2]),
    }
    start = liveliest_chain(rng, data, n_labels, **options)
    want = run(data, *start, "cpu", **options)
    options["inverse_temperature"] = options["inverse_temperature"].to(device)
    got = run(data, *start, backend, device, **options)
    assert torch.equal(got.labels.cpu(), want.labels)
    assert torch.equal(got.split_merge.cpu(), want.split_merge)
    assert torch.equal(got.n_components.cpu(), want.n_components)
    torch.testing.assert_close(got.alpha.cpu(), want.alpha, rtol=1e-10, atol=0)
    torch.testing.assert_close(got.log_joint.cpu(), want.log_joint, rtol=1e-10 if scale == 1 else 1e-6, atol=1e-9)
    splits, merges = want.split_merge.sum((0, 1))[[1, 3]].tolist()
    # Splits of clusters that their points carry hardly ever succeed.
    assert merges > 0 and (splits > 0 or scale < 1)


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_points_that_carry_their_cluster(rng, backend, device):
    """A prior a billion times too narrow: without a far point almost nothing of its cluster's scatter is left."""
    data = clustered(rng, [14], 2, scale=1e-9)
    start = chain_start(rng, data, 1, 3)
    want, got = run(data, *start, "reference", n_sweeps=2), run(data, *start, backend, device, n_sweeps=2)
    assert torch.equal(got.labels.cpu(), want.labels)
    torch.testing.assert_close(got.log_joint.cpu(), want.log_joint, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
@pytest.mark.unsanitized
def test_drift_of_many_sweeps_in_one_launch(rng, backend, device):
    """200 sweeps of updates without rebuilding: the log-joint is still that of the labels, worked out anew."""
    data = clustered(rng, [120], 24)
    start = chain_start(rng, data, 1, 6)
    got = run(data, *start, backend, device, n_sweeps=200, thin=200)
    want = reference.log_joint(
        data.points - data.prior_mean,
        got.labels[0, 0].cpu(),
        float(got.alpha[0, 0, -1]),
        data.prior_scale[0],
        KAPPA0,
        23 + NU0_OVER_D,
        (1.0, 1.0),
    )
    assert float(got.log_joint[0, 0, -1]) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
@pytest.mark.unsanitized
def test_more_clusters_than_slots(rng, backend, device):
    """Points far apart under a large alpha: every point founds a cluster, from two at the start to all of 300."""
    points = torch.from_numpy(rng.normal(size=(300, 2)) * 1e3)
    data = Data(points, torch.tensor([0, 300]), points.mean(0)[None], torch.full((1, 2), 1e-3, dtype=torch.float64))
    labels, alpha, keys = chain_start(rng, data, 1, 2, alpha=1e100)
    got = run(data, labels, alpha, keys, backend, device, n_sweeps=2, alpha_prior=None)
    assert got.n_components.flatten().tolist() == [300, 300]
    assert got.labels[-1, 0].cpu().sort().values.tolist() == list(range(300))
    # And back again: with a tiny alpha and a wide prior one cluster takes them all.
    wide = data._replace(prior_scale=torch.full((1, 2), 1e7, dtype=torch.float64))
    tiny = torch.full_like(alpha, 1e-30)
    got = run(wide, got.labels[-1].cpu(), tiny, keys, backend, device, n_sweeps=60, alpha_prior=None)
    assert int(got.n_components[0, 0, -1]) < 5


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
@pytest.mark.unsanitized
def test_same_bits_again_and_in_other_company(rng, backend, device):
    data = clustered(rng, [8, 15, 5], 3)
    labels, alpha, keys = chain_start(rng, data, 2, 3)
    first, again = (run(data, labels, alpha, keys, backend, device, n_sweeps=2) for _ in range(2))
    alone = Data(data.points[8:23], torch.tensor([0, 15]), data.prior_mean[1:2], data.prior_scale[1:2])
    own = run(alone, labels[:, 8:23], alpha[1:2], keys[1:2], backend, device, n_sweeps=2)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first.labels[..., 8:23], own.labels)
    for a, b in zip(first[1:], own[1:], strict=True):
        assert torch.equal(a[1:2], b)


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
@pytest.mark.unsanitized
def test_float32_points_far_from_the_origin(rng, backend, device):
    data = clustered(rng, [30], 3)
    start = chain_start(rng, data, 1, 3)
    shifted = data._replace(points=(data.points + 4096).float(), prior_mean=data.prior_mean + 4096)
    rounded = data._replace(points=shifted.points.double() - 4096)
    want = run(rounded, *start, "reference", n_sweeps=2)
    got = run(shifted, *start, backend, device, n_sweeps=2)
    assert torch.equal(got.labels.cpu(), want.labels)


def test_errors_name_what_is_wrong(rng):
    data = clustered(rng, [8, 5], 2)
    labels, alpha, keys = chain_start(rng, data, 1, 3)
    with pytest.raises(ValueError, match="labels has shape"):
        run(data, labels[:, :-1], alpha, keys, "cpu")
    with pytest.raises(ValueError, match="alpha must be positive"):
        run(data, labels, -alpha, keys, "cpu")
    with pytest.raises(ValueError, match="multiple of thin"):
        run(data, labels, alpha, keys, "cpu", n_sweeps=3, thin=2)
    with pytest.raises(ValueError, match="leave out some points"):
        run(data._replace(offsets=torch.tensor([0, 8, 12])), labels, alpha, keys, "cpu")
    with pytest.raises(TypeError, match="keys is"):
        run(data, labels, alpha, keys.int(), "cpu")
    with pytest.raises(ValueError, match="nu0"):
        gibbs_sweep(data.points, data.offsets, labels, alpha, keys, *data[2:], kappa0=0.1, nu0=1.0, backend="cpu")
