"""Every Triton kernel once on small ugly shapes, for the sanitizer to watch, beside the reference."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from fastdens.kernels import em_steps, reference

from fastdens import kernels
from tests.kernels.gibbs.chains import chain_start, clustered, run
from tests.kernels.launched import launched_kernels
from tests.problems import (
    COVARIANCE_TYPES,
    GPU,
    TOLERANCE,
    layout_of,
    mixture_problem,
    relative_error,
    student_t_problem,
)

pytestmark = pytest.mark.parametrize(("backend", "device"), [GPU])


@pytest.fixture(scope="module", autouse=True)
def launched():
    """Names of the kernels that the tests of this module launch."""
    from triton.runtime.jit import JITFunction

    names, run = set(), JITFunction.run

    def launch(kernel, *args, **options):
        names.add(kernel.__name__)
        return run(kernel, *args, **options)

    with mock.patch.object(JITFunction, "run", launch):
        yield names


@pytest.mark.parametrize(
    ("sizes", "n_features", "n_components", "covariance_type", "dtype", "matmul_precision"),
    [
        ([1, 70, 33], 17, 3, "full", torch.float32, "ieee"),
        ([1, 40], 33, 2, "full", torch.float32, "tf32x3"),
        ([1, 40], 17, 2, "full", torch.float64, "ieee"),
        ([1, 70, 33], 17, 3, "tied", torch.float32, "ieee"),
        ([1, 70, 33], 17, 3, "diag", torch.float32, "ieee"),
        ([5, 3], 1, 1, "spherical", torch.float64, "ieee"),
        # Several chunks of one model.
        ([1100, 3], 2, 2, "full", torch.float32, "ieee"),
    ],
)
def test_em(rng, backend, device, sizes, n_features, n_components, covariance_type, dtype, matmul_precision):
    problem = mixture_problem(rng, sizes, n_features, n_components, covariance_type, dtype, device=device)
    x, offsets, weights, means, factor = problem
    options = {"covariance_type": covariance_type, "backend": backend, "matmul_precision": matmul_precision}
    got = kernels.em_statistics(x, layout_of(offsets), weights, means, factor, **options)
    e_step = reference.responsibilities(x, layout_of(offsets), weights, means, factor, covariance_type=covariance_type)
    want = reference.sufficient_statistics(x, layout_of(offsets), e_step[0], means, covariance_type=covariance_type)
    for value, expected in zip(got[1:], want, strict=True):
        assert relative_error(value, expected) < TOLERANCE[dtype]
    everywhere = kernels.mixture_log_prob(x[:70], weights, means, factor, **options)
    want = reference.mixture_log_prob(x[:70], weights, means, factor, covariance_type=covariance_type)
    assert relative_error(everywhere, want) < TOLERANCE[dtype]


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
# Tiny models, a larger one, and one of several chunks.
@pytest.mark.parametrize(("sizes", "n_features"), [([5, 1, 9], 3), ([40, 1], 17), ([1030, 3], 2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_em_steps(rng, backend, device, sizes, n_features, covariance_type, weighted):
    problem = mixture_problem(rng, sizes, n_features, 3, covariance_type, device=device)
    bound = torch.zeros(len(sizes), dtype=torch.float64, device=device)
    options = {"n_steps": 2, "tol": 0.0, "reg_covar": 0.1, "covariance_type": covariance_type}
    x, offsets, *parameters = problem
    if weighted:
        options["sample_weight"] = torch.from_numpy(rng.random(len(x))).to(device)
    start = x, layout_of(offsets), *parameters, bound
    for got, want in zip(*(em_steps(*start, backend=b, **options) for b in (backend, "reference")), strict=True):
        assert relative_error(got, want) < TOLERANCE[x.dtype]


@pytest.mark.parametrize("own", [False, True])
def test_student_t(rng, backend, device, own):
    x, *parameters = student_t_problem(rng, 41, 5, [2, 1], torch.float32, device=device)
    layout = torch.tensor([0, 9, 41], device=device) if own else None
    got, want = (kernels.student_t_log_prob(x, *parameters, layout=layout, backend=b) for b in (backend, "reference"))
    assert relative_error(got, want) < 1e-4


@pytest.mark.parametrize("n_features", [1, 5, 33])
def test_cholesky_and_seeding(rng, backend, device, n_features):
    root = torch.from_numpy(rng.normal(size=(2, 3, n_features, n_features + 4))).to(device)
    covariances = root @ root.mT
    got, bad = kernels.precision_cholesky(covariances, backend=backend)
    want, _ = reference.precision_cholesky(covariances)
    assert relative_error(got, want) < 1e-10 and not bad.any()
    x = torch.from_numpy(rng.normal(size=(90, n_features))).to(device)
    offsets = torch.tensor([0, 3, 90], device=device)
    rows = [kernels.kmeans_plusplus(x, offsets, 3, 7, backend=b) for b in (backend, "reference")]
    assert torch.equal(*rows)


@pytest.mark.parametrize(
    ("sizes", "n_features", "n_labels", "scale", "moves"),
    [
        ([9, 1], 2, 3, 1.0, 0),
        # Every point founds a cluster of its own: more slots, and clusters that their points carry.
        ([7], 2, 3, 1e-9, 0),
        ([6], 2, 2, 1.0, 1),
        ([5], 2, 2, 1e-9, 1),
        ([5], 17, 2, 1.0, 1),
    ],
)
def test_sampler(rng, backend, device, sizes, n_features, n_labels, scale, moves):
    data = clustered(rng, sizes, n_features, scale)
    start = chain_start(rng, data, 1, n_labels)
    options = {"n_sweeps": 2, "split_merge": moves}
    want, got = run(data, *start, "reference", **options), run(data, *start, backend, device, **options)
    assert torch.equal(got.labels.cpu(), want.labels)
    torch.testing.assert_close(got.log_joint.cpu(), want.log_joint, rtol=1e-6, atol=1e-9)


def test_none_was_left_out(launched, backend, device):
    """After the tests above, in the same process."""
    assert launched == launched_kernels()
