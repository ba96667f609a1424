"""E step, M step and log-densities of Gaussian mixtures on every backend against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from fastdens.kernels import reference

from fastdens import kernels
from tests.problems import (
    COVARIANCE_TYPES,
    CPU,
    GPU,
    INTERPRETER,
    TOLERANCE,
    layout_of,
    mixture_problem,
    ranges_of,
    relative_error,
)

# Ragged sizes with models of one point, tails of tiles and whole tiles; D and K of every kind.
SHAPES = [
    ([1], 1, 1),
    ([1, 5, 64], 2, 3),
    ([33, 1, 65], 3, 6),
    ([40, 7], 16, 2),
    ([70, 3, 1], 17, 3),
    ([66, 20], 65, 2),
    ([30], 100, 1),
]
LARGE_SHAPES = [([600, 1, 513, 1100], 64, 6), ([2500, 40], 5, 3), ([300], 300, 2), ([90, 400], 3, 256), ([80], 2048, 2)]


def check_all(problem, covariance_type, backend, dtype, matmul_precision="ieee", tolerance=None):
    x, offsets, weights, means, factor = problem
    options = {"covariance_type": covariance_type, "backend": backend, "matmul_precision": matmul_precision}
    tolerance = tolerance or TOLERANCE[dtype]
    layout = layout_of(offsets)
    e_step = kernels.responsibilities(x, layout, weights, means, factor, **options)
    expected = reference.responsibilities(x, layout, weights, means, factor, covariance_type=covariance_type)
    assert e_step.resp.dtype == e_step.log_prob_norm.dtype == dtype
    assert relative_error(e_step.log_prob_norm, expected[1]) < tolerance
    # A responsibility is the exponential of a difference of log-densities: their absolute error is its relative one.
    everywhere = reference.mixture_log_prob(x, weights, means, factor, covariance_type=covariance_type)
    magnitude = float(everywhere.abs().max())
    assert relative_error(e_step.resp, expected[0]) < max(tolerance, 10 * torch.finfo(dtype).eps * magnitude)
    sums = kernels.sufficient_statistics(x, layout, e_step.resp, means, **options)
    expected = reference.sufficient_statistics(x, layout, e_step.resp, means, covariance_type=covariance_type)
    for name, value, want in zip(sums._fields, sums, expected, strict=True):
        assert relative_error(value, want) < tolerance, name
    joint = kernels.em_statistics(x, offsets, weights, means, factor, **options)
    assert relative_error(joint.scatter, sums.scatter) == 0
    total = [float(e_step.log_prob_norm[a:b].double().sum()) for a, b in layout.ranges.tolist()]
    assert joint.log_likelihood.tolist() == pytest.approx(total, rel=1e-12)
    log_prob = kernels.mixture_log_prob(x, weights, means, factor, **options)
    want = reference.mixture_log_prob(x, weights, means, factor, covariance_type=covariance_type)
    assert relative_error(log_prob, want) < tolerance
    log_prob = kernels.gaussian_log_prob(x, means[-1], factor[-1], **options)
    want = reference.gaussian_log_prob(x, means[-1], factor[-1], covariance_type=covariance_type)
    assert relative_error(log_prob, want) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(("sizes", "n_features", "n_components"), SHAPES)
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_agrees_with_reference(rng, backend, device, sizes, n_features, n_components, covariance_type, dtype):
    problem = mixture_problem(rng, sizes, n_features, n_components, covariance_type, dtype, device=device)
    check_all(problem, covariance_type, backend, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(("sizes", "n_features", "n_components"), LARGE_SHAPES)
@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
@pytest.mark.unsanitized
def test_agrees_with_reference_on_large_shapes(
    rng, backend, device, sizes, n_features, n_components, covariance_type, dtype
):
    problem = mixture_problem(rng, sizes, n_features, n_components, covariance_type, dtype, device=device)
    check_all(problem, covariance_type, backend, dtype)


@pytest.mark.parametrize(
    ("sizes", "n_features", "n_components"), [([20, 9], 3, 256), ([10], 300, 2), ([1100, 3], 2, 2)]
)
def test_interpreter_on_many_components_dimensions_and_chunks(rng, sizes, n_features, n_components):
    problem = mixture_problem(rng, sizes, n_features, n_components, "full", torch.float32)
    check_all(problem, "full", "triton", torch.float32)


@pytest.mark.parametrize(("matmul_precision", "tolerance"), [("tf32x3", 1e-4), ("tf32", 2e-2)])
@pytest.mark.parametrize(("backend", "device"), [INTERPRETER, GPU])
def test_precisions(rng, backend, device, matmul_precision, tolerance):
    problem = mixture_problem(rng, [70, 3], 33, 2, "full", torch.float32, device=device)
    check_all(problem, "full", backend, torch.float32, matmul_precision, tolerance)


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_zero_weight_and_far_points(rng, backend, device):
    x, offsets, weights, means, factor = mixture_problem(rng, [9, 4], 3, 3, "full", torch.float32, device=device)
    weights[:, 0] = 0
    x[0] = 1e4
    got = kernels.responsibilities(x, offsets, weights, means, factor, backend=backend)
    want = reference.responsibilities(x, layout_of(offsets), weights, means, factor)
    assert (got.resp[:, 0] == 0).all()
    assert relative_error(got.log_prob_norm, want[1]) < 1e-4
    log_prob = kernels.mixture_log_prob(x, weights, means, factor, backend=backend)
    assert relative_error(log_prob, reference.mixture_log_prob(x, weights, means, factor)) < 1e-4
    weights[:] = 0
    assert (kernels.mixture_log_prob(x, weights, means, factor, backend=backend) == -torch.inf).all()


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_shifted_float32_data(rng, backend, device, covariance_type):
    problem = mixture_problem(rng, [80, 30], 5, 2, covariance_type, torch.float32, shift=1e4, device=device)
    check_all(problem, covariance_type, backend, torch.float32)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_same_bits_again_and_in_other_company(rng, backend, device, covariance_type):
    x, offsets, weights, means, factor = mixture_problem(
        rng, [50, 1030, 7], 4, 3, covariance_type, torch.float32, device=device
    )
    options = {"covariance_type": covariance_type, "backend": backend}
    first = kernels.em_statistics(x, offsets, weights, means, factor, **options)
    again = kernels.em_statistics(x, offsets, weights, means, factor, **options)
    own = layout_of(offsets).select(slice(1, 2))
    alone = kernels.em_statistics(x, own, weights[1:2], means[1:2], factor[1:2], **options)
    for a, b, c in zip(first, again, alone, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a[1:2], c)


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_a_poisoned_model_leaves_its_neighbours_alone(rng, backend, device):
    x, offsets, weights, means, factor = mixture_problem(rng, [50, 70, 7], 4, 3, "full", torch.float32, device=device)
    clean = kernels.em_statistics(x, offsets, weights, means, factor, backend=backend)
    x[60] = float("nan")
    x[61] = float("inf")
    poisoned = kernels.em_statistics(x, offsets, weights, means, factor, backend=backend)
    for a, b in zip(clean, poisoned, strict=True):
        assert torch.equal(a[[0, 2]], b[[0, 2]])
    assert poisoned.log_likelihood[1].isnan()


def test_errors_are_one_sentence(rng, monkeypatch):
    x, offsets, weights, means, factor = mixture_problem(rng, [6], 3, 2, "full")
    with pytest.raises(ValueError, match="did you mean 'triton'"):
        kernels.mixture_log_prob(x, weights, means, factor, backend="tritn")
    with pytest.raises(ValueError, match=r"covariance_type 'diag'.*needs"):
        kernels.mixture_log_prob(x, weights, means, factor, covariance_type="diag")
    with pytest.raises(TypeError, match="means is torch"):
        kernels.mixture_log_prob(x, weights, means.float(), factor)
    with pytest.raises(ValueError, match="means have D = 3"):
        kernels.mixture_log_prob(x[:, :2], weights, means, factor)
    with pytest.raises(ValueError, match="no range of 6 points"):
        kernels.responsibilities(x, offsets + 1, weights, means, factor)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET"):
        kernels.mixture_log_prob(x, weights, means, factor, backend="triton")


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_log_weights(rng, backend, device, dtype, covariance_type):
    x, offsets, weights, means, factor = mixture_problem(rng, [33, 1, 5], 3, 4, covariance_type, dtype, device=device)
    options = {"covariance_type": covariance_type, "backend": backend}
    # Numbers whose exponentials no dtype holds, in all of the first model and in one component of the others.
    log_weights = weights.log()
    log_weights[0] -= 3200
    log_weights[1:, 0] = -3200
    log_weights[2, 1] = -torch.inf
    got = kernels.responsibilities(x, offsets, log_weights, means, factor, log_weights=True, **options)
    for m, (start, stop) in enumerate(ranges_of(offsets).tolist()):
        joint = reference.gaussian_log_prob(x[start:stop], means[m], factor[m], covariance_type=covariance_type)
        joint = joint + log_weights[m].double()
        norm = joint.logsumexp(1)
        # In float32 a number near 3200 is rounded to 2e-4.
        tolerance = TOLERANCE[dtype] if m else max(TOLERANCE[dtype], 3200 * 4 * torch.finfo(dtype).eps)
        assert relative_error(got.log_prob_norm[start:stop], norm) < tolerance
        assert relative_error(got.resp[start:stop], (joint - norm[:, None]).exp()) < tolerance
    sums = kernels.sufficient_statistics(x, offsets, got.resp, means, **options)
    joint = kernels.em_statistics(x, offsets, log_weights, means, factor, log_weights=True, **options)
    assert all(torch.equal(a, b) for a, b in zip(joint[1:], sums, strict=True))
    assert joint.log_likelihood[0] < -3000
    plain = kernels.responsibilities(x, offsets, weights, means, factor, **options)
    same = kernels.responsibilities(x, offsets, weights.log(), means, factor, log_weights=True, **options)
    assert relative_error(same.resp, plain.resp) < TOLERANCE[dtype]
