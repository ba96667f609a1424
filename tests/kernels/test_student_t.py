"""The Student-t mixture on every backend against the float64 reference, and the reference against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from fastdens.kernels import reference

from fastdens import kernels
from tests.problems import (
    CPU,
    GPU,
    INTERPRETER,
    REFERENCE,
    TOLERANCE,
    StudentTProblem,
    layout_of,
    ranges_of,
    relative_error,
    student_t_problem,
)

# Rows of each model, D, components of each model: a model without rows, one of one row, tails of tiles, whole tiles.
SHAPES = [
    ([1], 1, [1]),
    ([1, 5, 64], 2, [3, 1, 2]),
    ([33, 0, 65], 3, [1, 6, 2]),
    ([40, 7], 16, [2, 5]),
    ([66, 20], 65, [1, 2]),
    ([30], 100, [1]),
]
LARGE_SHAPES = [
    ([600, 1, 513, 1100], 64, [6, 40, 1, 3]),
    ([700, 40], 5, [70, 2]),
    ([300], 300, [2]),
    ([80], 600, [2]),
]


def every_form(problem: StudentTProblem, sizes: list[int], backend: str, **options):
    """Log-densities and what the reference says, under all models and under the own one."""
    rows = torch.tensor([0, *sizes]).cumsum(0).to(problem.points.device)
    for own, layout in ((None, None), (rows, layout_of(rows))):
        got = kernels.student_t_log_prob(*problem, layout=own, backend=backend, **options)
        yield got, reference.student_t_log_prob(*problem, layout=layout)


def check(problem: StudentTProblem, sizes: list[int], backend: str, tolerance: float | None = None, **options) -> None:
    tolerance = tolerance or TOLERANCE[problem.points.dtype]
    for got, want in every_form(problem, sizes, backend, **options):
        assert got.dtype == problem.points.dtype
        assert relative_error(got, want) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("sizes", "n_features", "n_components"), SHAPES)
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_agrees_with_reference(rng, backend, device, sizes, n_features, n_components, dtype):
    check(student_t_problem(rng, sum(sizes), n_features, n_components, dtype, device=device), sizes, backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("sizes", "n_features", "n_components"), LARGE_SHAPES)
@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
@pytest.mark.unsanitized
def test_agrees_with_reference_on_large_shapes(rng, backend, device, sizes, n_features, n_components, dtype):
    check(student_t_problem(rng, sum(sizes), n_features, n_components, dtype, device=device), sizes, backend)


def test_reference_agrees_with_scipy(rng):
    problem = student_t_problem(rng, 12, 3, [2, 4])
    x, offsets, log_weights, locations, factor, dof = problem
    scale = torch.linalg.inv(factor @ factor.mT).numpy()
    log_prob = reference.student_t_log_prob(*problem)
    for m, (begin, end) in enumerate(ranges_of(offsets).tolist()):
        density = sum(
            float(log_weights[g].exp()) * scipy.stats.multivariate_t(locations[g], scale[g], float(dof[g])).pdf(x)
            for g in range(begin, end)
        )
        np.testing.assert_allclose(log_prob[:, m], np.log(density), rtol=1e-10)


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU, REFERENCE])
def test_agrees_with_scipy_in_one_dimension(rng, backend, device):
    problem = student_t_problem(rng, 20, 1, [1], device=device)
    x, factor, dof = problem.points[:, 0].cpu(), problem.scale_precisions_cholesky[0, 0, 0], problem.degrees_of_freedom
    want = scipy.stats.t(float(dof), loc=float(problem.locations), scale=1 / float(factor)).logpdf(x)
    np.testing.assert_allclose(kernels.student_t_log_prob(*problem, backend=backend)[:, 0].cpu(), want, rtol=1e-10)


@pytest.mark.parametrize(("matmul_precision", "tolerance"), [("tf32x3", 1e-4), ("tf32", 2e-2)])
@pytest.mark.parametrize(("backend", "device"), [INTERPRETER, GPU])
def test_precisions(rng, backend, device, matmul_precision, tolerance):
    problem = student_t_problem(rng, 70, 33, [2], torch.float32, device=device)
    check(problem, [70], backend, tolerance, matmul_precision=matmul_precision)


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_shifted_float32_data(rng, backend, device):
    check(student_t_problem(rng, 80, 5, [2, 3], torch.float32, shift=1e4, device=device), [50, 30], backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_degrees_of_freedom_from_near_none_to_near_gaussian(rng, backend, device, dtype):
    problem = student_t_problem(rng, 40, 4, [1] * 7, dtype, device=device)
    problem = problem._replace(degrees_of_freedom=torch.tensor([1e-2, 0.5, 1, 2, 1e3, 1e6, 1e8]).to(problem.points))
    for m in range(7):
        one = problem._replace(offsets=problem.offsets[m : m + 2])
        check(one, [40], backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_far_points(rng, backend, device, dtype):
    problem = student_t_problem(rng, 40, 3, [3, 1], dtype, device=device)
    problem.points[:20] *= 10.0 ** torch.arange(20, device=device).to(dtype)[:, None].clamp_max(17)
    check(problem, [25, 15], backend)
    # Past the largest square of float32 it is that of float64, past that of float64 it is zero.
    problem.points[3] = torch.finfo(dtype).max / 4
    found = kernels.student_t_log_prob(*problem, backend=backend)[3]
    if dtype == torch.float64:
        assert (found == -torch.inf).all()
    else:
        in_double = (value.double() if value.is_floating_point() else value for value in problem)
        torch.testing.assert_close(
            found.double(), kernels.student_t_log_prob(*in_double, backend=backend)[3], rtol=1e-5, atol=0
        )


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU, REFERENCE])
def test_components_that_add_nothing(rng, backend, device):
    problem = student_t_problem(rng, 30, 3, [3, 0, 2, 1], device=device)
    x, _, log_weights, locations, factor, dof = problem
    without = kernels.student_t_log_prob(
        x, torch.tensor([0, 2], device=device), log_weights[1:3], locations[1:3], factor[1:3], dof[1:3], backend=backend
    )
    for g in (0, 3, 4):
        log_weights[g] = -torch.inf
    # Whatever the parameters of such a component are.
    locations[0] = torch.nan
    rows = torch.tensor([0, 7, 14, 20, 25], device=device)
    everywhere = kernels.student_t_log_prob(*problem, backend=backend)
    own = kernels.student_t_log_prob(*problem, layout=rows, backend=backend)
    assert torch.equal(everywhere[:, :1], without)
    assert everywhere[:, 1].isnan().all() and own[7:14].isnan().all()
    assert (everywhere[:, 2] == -torch.inf).all() and (own[14:20] == -torch.inf).all()
    assert everywhere[:, 3].isfinite().all()
    assert (own[25:] == 0).all()


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU, REFERENCE])
def test_nothing_in_nothing_out(rng, backend, device):
    problem = student_t_problem(rng, 0, 3, [2, 1], device=device)
    assert kernels.student_t_log_prob(*problem, backend=backend).shape == (0, 2)
    rows = torch.zeros(3, dtype=torch.int64, device=device)
    assert kernels.student_t_log_prob(*problem, layout=rows, backend=backend).shape == (0,)
    x, offsets, *parameters = student_t_problem(rng, 4, 3, [1], device=device)
    none = [t[:0] for t in parameters]
    assert kernels.student_t_log_prob(x, offsets[:1], *none, backend=backend).shape == (4, 0)
    assert kernels.student_t_log_prob(x, 0 * offsets, *none, backend=backend).isnan().all()


@pytest.mark.parametrize("n_features", [3, 40])
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_same_bits_again_and_in_other_company(rng, backend, device, n_features):
    sizes = [50, 90, 7]
    problem = student_t_problem(rng, sum(sizes), n_features, [2, 5, 1], torch.float32, device=device)
    x, offsets, *parameters = problem
    rows = torch.tensor([0, *sizes]).cumsum(0).to(device)
    everywhere = kernels.student_t_log_prob(*problem, backend=backend)
    own = kernels.student_t_log_prob(*problem, layout=rows, backend=backend)
    assert torch.equal(everywhere, kernels.student_t_log_prob(*problem, backend=backend))
    alone = offsets[1:3] - offsets[1]
    parameters = [t[offsets[1] : offsets[2]] for t in parameters]
    assert torch.equal(everywhere[:, 1:2], kernels.student_t_log_prob(x, alone, *parameters, backend=backend))
    part = kernels.student_t_log_prob(x, alone, *parameters, layout=layout_of(rows).select([1]), backend=backend)
    assert torch.equal(own[50:140], part[50:140])
    assert (part[:50] == 0).all() and (part[140:] == 0).all()


def test_same_bits_on_any_number_of_threads(rng):
    problem = student_t_problem(rng, 300, 5, [3] * 9, torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            results.append(kernels.student_t_log_prob(*problem, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU])
def test_poison_stays_where_it_is(rng, backend, device):
    problem = student_t_problem(rng, 70, 4, [3, 2], torch.float32, device=device)
    clean = kernels.student_t_log_prob(*problem, backend=backend)
    problem.points[5] = torch.nan
    problem.locations[1] = torch.nan
    poisoned = kernels.student_t_log_prob(*problem, backend=backend)
    others = torch.arange(70, device=device) != 5
    assert torch.equal(poisoned[others, 1], clean[others, 1])
    assert poisoned[5].isnan().all() and poisoned[:, 0].isnan().all()


@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU, REFERENCE])
def test_gradients_in_the_points(rng, backend, device):
    x, *rest = student_t_problem(rng, 5, 3, [2, 1], device=device)
    x.requires_grad_()
    rows = kernels.Layout.from_ranges(torch.tensor([[1, 3], [3, 5]], device=device), 5)
    assert torch.autograd.gradcheck(lambda p: kernels.student_t_log_prob(p, *rest, backend=backend), x)
    assert torch.autograd.gradcheck(lambda p: kernels.student_t_log_prob(p, *rest, layout=rows, backend=backend), x)
    rest[2].requires_grad_()
    with pytest.raises(NotImplementedError, match="locations requires a gradient"):
        kernels.student_t_log_prob(x, *rest, backend=backend)


def test_gradient_in_float32_agrees_with_float64(rng):
    problem = student_t_problem(rng, 40, 6, [3, 2], torch.float32)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        x, offsets, *parameters = (t if t.dtype == torch.int64 else t.to(dtype) for t in problem)
        x = x.clone().requires_grad_()
        kernels.student_t_log_prob(x, offsets, *parameters).square().sum().backward()
        gradients.append(x.grad)
    assert relative_error(*gradients) < 1e-4


@pytest.mark.parametrize("ranges", [None, torch.tensor([[0, 2], [2, 6]])])
def test_operators_are_registered_as_torch_library_wants(rng, ranges):
    problem = student_t_problem(rng, 6, 3, [2, 1])
    problem.points.requires_grad_()
    layout = None if ranges is None else kernels.Layout.from_ranges(ranges, 6)
    output = kernels.student_t_log_prob(*problem, layout=layout)
    torch.library.opcheck(torch.ops.fastdens.student_t_log_prob, (*problem, ranges, "cpu", "ieee"))
    gradient = (torch.ones_like(output), output, *problem)
    options = (ranges, "cpu", "ieee")
    torch.library.opcheck(torch.ops.fastdens.student_t_log_prob_backward, (*(t.detach() for t in gradient), *options))


@pytest.mark.parametrize("rows", [None, torch.tensor([0, 2, 6])])
def test_torch_compile_traces_them(rng, rows):
    x, *rest = student_t_problem(rng, 6, 3, [2, 1])
    compiled = torch.compile(
        lambda p: kernels.student_t_log_prob(p, *rest, layout=rows).sum(), fullgraph=True, backend="aot_eager"
    )
    x.requires_grad_()
    compiled(x).backward()
    got, x.grad = x.grad, None
    kernels.student_t_log_prob(x, *rest, layout=rows).sum().backward()
    assert torch.equal(got, x.grad)


def test_errors_are_one_sentence(rng, monkeypatch):
    x, offsets, log_weights, locations, factor, dof = student_t_problem(rng, 6, 3, [2, 1])
    call = kernels.student_t_log_prob
    with pytest.raises(ValueError, match="did you mean 'triton'"):
        call(x, offsets, log_weights, locations, factor, dof, backend="tritn")
    with pytest.raises(ValueError, match="matmul_precision is 'fp16'"):
        call(x, offsets, log_weights, locations, factor, dof, matmul_precision="fp16")
    with pytest.raises(TypeError, match="points are torch"):
        call(x.long(), offsets, log_weights, locations, factor, dof)
    with pytest.raises(TypeError, match="locations is torch"):
        call(x, offsets, log_weights, locations.float(), factor, dof)
    with pytest.raises(ValueError, match=r"locations have shape \(3, 3\), but points with D = 2"):
        call(x[:, :2], offsets, log_weights, locations, factor, dof)
    with pytest.raises(ValueError, match=r"degrees_of_freedom has shape \(2,\)"):
        call(x, offsets, log_weights, locations, factor, dof[:2])
    with pytest.raises(ValueError, match=r"component_offsets are torch.int32"):
        call(x, offsets.int(), log_weights, locations, factor, dof)
    with pytest.raises(ValueError, match=r"components of model 1 are \[3, 4\], no range of 3 components"):
        call(x, offsets + 1, log_weights, locations, factor, dof)
    with pytest.raises(ValueError, match=r"layout is of 1 models and 6 points, but there are 2 models and 6 points"):
        call(x, offsets, log_weights, locations, factor, dof, layout=torch.tensor([0, 6]))
    with pytest.raises(ValueError, match=r"layout is of 2 models and 5 points, but there are 2 models and 6 points"):
        call(x, offsets, log_weights, locations, factor, dof, layout=layout_of(torch.tensor([0, 2, 5])))
    with pytest.raises(ValueError, match=r"rows of model 1 are \[2, 7\], no range of 6 points"):
        call(x, offsets, log_weights, locations, factor, dof, layout=torch.tensor([0, 2, 7]))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET"):
        call(x, offsets, log_weights, locations, factor, dof, backend="triton")
