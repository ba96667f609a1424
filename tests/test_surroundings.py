"""Results have the same bits and dtypes whatever a program has switched on around the call."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import fastdens as fd
from fastdens import kernels
from fastdens.analysis.pairwise_distance import mean_pairwise_distance
from fastdens.convergence import bulk_effective_sample_size, rank_normalised_rhat
from fastdens.partitions import co_clustering, variation_of_information
from tests.problems import mixture_problem, student_t_problem

pytestmark = pytest.mark.filterwarnings("ignore::fastdens.ConvergenceWarning")

# A cluster of one far point has a variance.
EM = {"max_iter": 6, "tol": 0, "reg_covar": 0.05}
SETTINGS = {"burn_in": 4, "n_sweeps": 8, "thin": 2, "n_chains": 2, "progress": False}


@contextlib.contextmanager
def changed(get: Callable[[], object], change: Callable, value: object) -> Iterator[None]:
    before = get()
    change(value)
    try:
        yield
    finally:
        change(before)


@contextlib.contextmanager
def everything() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for surrounding in ("autocast", "float64", "deterministic", "3 threads", "flushed"):
            stack.enter_context(SURROUNDINGS[surrounding]())
        yield


SURROUNDINGS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda: changed(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "bfloat16": lambda: changed(torch.get_default_dtype, torch.set_default_dtype, torch.bfloat16),
    "meta": lambda: torch.device("meta"),
    "deterministic": lambda: changed(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "1 thread": lambda: changed(torch.get_num_threads, torch.set_num_threads, 1),
    "3 threads": lambda: changed(torch.get_num_threads, torch.set_num_threads, 3),
    "flushed": lambda: changed(lambda: False, torch.set_flush_denormal, True),
    "everything": everything,
}
DIFFERENTIATING = [name for name in SURROUNDINGS if name not in ("inference", "no_grad")]


class Data:
    """Points of three classes, as arrays: what is made of them is made inside the surroundings."""

    def __init__(self, rng: np.random.Generator, dtype: type = np.float32) -> None:
        self.y = np.repeat([0, 1, 2], [60, 45, 70])
        self.x = (rng.normal(size=(175, 4)) + 3 * rng.integers(0, 2, size=(175, 1)) + self.y[:, None]).astype(dtype)
        self.z = rng.normal(size=(10, 4)).astype(dtype)
        # Far enough for responsibilities that are denormal numbers of float32.
        self.x[::7] *= 4
        self.chains = rng.normal(size=(3, 4, 40))
        self.labels = rng.integers(0, 3, size=(6, 30))

    def batch(self) -> fd.RaggedBatch:
        return fd.RaggedBatch.from_labels(self.x, self.y)

    def points(self) -> Tensor:
        return torch.from_numpy(self.z)


def generator() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(3)


def of_density(data: Data, density) -> list[Tensor]:
    return [
        density.log_prob(data.points()),
        density.log_prob(data.z),
        density.score_samples(data.batch()),
        *density.sample_components(20, generator()),
        *density.entropy(50, generator()),
        *density.kl_matrix(50, generator()),
        *density.relative_entropy(data.batch(), 50, generator()),
    ]


def gaussian(data: Data, covariance_type: str, **options) -> list[Tensor]:
    batch = data.batch()
    gm = fd.GaussianMixtures(2, covariance_type=covariance_type, **EM, **options).fit(batch)
    fitted = [gm.weights_, gm.means_, gm.covariances_, gm.precisions_cholesky_, gm.lower_bound_, gm.n_iter_]
    scores = [gm.score_samples(batch), gm.score(batch), gm.predict_proba(batch), gm.predict(batch)]
    scores += [gm.log_prob(data.points()), gm.bic(batch), gm.aic(batch), *gm.sample(20, generator())]
    return [*fitted, *scores, *of_density(data, gm.density())]


def variational(data: Data) -> list[Tensor]:
    batch = data.batch()
    vdp = fd.VariationalDirichletProcessMixtures(truncation=4, max_iter=6, tol=0).fit(batch)
    found = [vdp.labels_, vdp.n_components_, vdp.alpha_, vdp.log_prob(data.points()), vdp.score_samples(batch)]
    return [*found, *of_density(data, vdp.density())]


def gibbs(data: Data) -> list[Tensor]:
    batch = data.batch()
    dp = fd.DirichletProcessMixtures(**SETTINGS).fit(batch)
    found = [dp.labels_, dp.n_components_, dp.alpha_, dp.prior_.mean, dp.prior_.scale_diagonal, dp.convergence_.rhat]
    scores = [dp.log_prob(data.points()), dp.score_samples(batch), dp.leave_one_out()]
    return [*found, *scores, *of_density(data, dp.density("published"))]


def projection(data: Data) -> list[Tensor]:
    svd = fd.reduction.UncentredSVD(3).fit(data.x)
    wide = fd.reduction.UncentredSVD(3).fit(data.x[:8].reshape(4, 8))
    return [svd.components_, svd.singular_values_, svd.explained_energy_ratio_, svd.transform(data.x), wide.components_]


def diagnostics(data: Data) -> list[Tensor]:
    labels = torch.from_numpy(data.labels)
    chains = [rank_normalised_rhat(data.chains), bulk_effective_sample_size(data.chains)]
    partitions = [co_clustering(labels), variation_of_information(labels, labels[:1])]
    return [*chains, *partitions, *mean_pairwise_distance(data.batch())]


OPERATIONS: dict[str, Callable[[Data], list[Tensor]]] = {
    **{name: lambda data, name=name: gaussian(data, name) for name in ("full", "tied", "diag", "spherical")},
    "full from the reference": lambda data: gaussian(data, "full", backend="reference"),
    "variational": variational,
    "gibbs": gibbs,
    "projection": projection,
    "diagnostics": diagnostics,
}


def assert_same(got: list[Tensor], want: list[Tensor]) -> None:
    assert len(got) == len(want)
    for at, (inside, outside) in enumerate(zip(got, want, strict=True)):
        assert (inside.dtype, inside.device, inside.shape) == (outside.dtype, outside.device, outside.shape), at
        assert inside.numpy().tobytes() == outside.numpy().tobytes(), at


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_same_bits_inside_and_outside(rng, operation, surrounding):
    data = Data(rng)
    want = OPERATIONS[operation](data)
    with SURROUNDINGS[surrounding]():
        got = OPERATIONS[operation](data)
    assert_same(got, want)


def densities(data: Data) -> dict[str, object]:
    batch = data.batch()
    return {
        "gaussian": fd.GaussianMixtures(2, **EM).fit(batch),
        "diagonal": fd.GaussianMixtures(2, covariance_type="diag", **EM).fit(batch),
        "variational": fd.VariationalDirichletProcessMixtures(truncation=3, max_iter=3).fit(batch),
        "gibbs": fd.DirichletProcessMixtures(**SETTINGS).fit(batch),
    }


def derivatives(fitted, z: Tensor) -> list[Tensor]:
    """Gradients, products of a gradient's norm, forward derivatives and Hessians in the points."""
    z = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(fitted.log_prob(z).sum(), z, create_graph=True)
    (penalty,) = torch.autograd.grad(gradient.square().sum(), z)
    forward = torch.func.jvp(fitted.log_prob, (z.detach(),), (torch.ones_like(z),))
    hessian = torch.func.hessian(lambda q: fitted.log_prob(q[None])[0, 0])(z.detach()[0])
    return [gradient.detach(), penalty, *forward, hessian]


def without_denormals(values: Tensor) -> Tensor:
    """Second derivatives are summed up by the program that asks for them, which may flush denormal numbers to zero."""
    return values.masked_fill(values.abs() < torch.finfo(values.dtype).tiny, 0.0)


@pytest.mark.parametrize("surrounding", DIFFERENTIATING)
def test_same_bits_of_derivatives_inside_and_outside(rng, surrounding):
    data = Data(rng)
    for fitted in densities(data).values():
        want = derivatives(fitted, data.points())
        with SURROUNDINGS[surrounding]():
            got = derivatives(fitted, data.points())
        assert_same(*(list(map(without_denormals, values)) for values in (got, want)))


def test_what_inference_mode_has_made_is_differentiated_and_fitted_later(rng):
    data = Data(rng)
    with torch.inference_mode():
        batch, fitted = data.batch(), densities(data)
        svd = fd.reduction.UncentredSVD(2).fit(data.x)
    for made, usual in zip(fitted.values(), densities(data).values(), strict=True):
        assert_same([made.score_samples(batch)], [usual.score_samples(data.batch())])
        assert_same(derivatives(made, data.points()), derivatives(usual, data.points()))
    again = fd.GaussianMixtures(2, **EM).fit(batch)
    assert_same([again.means_, again.score_samples(batch)], [made_means(data), fitted["gaussian"].score_samples(batch)])
    x = torch.from_numpy(data.x).requires_grad_()
    assert torch.autograd.grad(svd.transform(x).sum(), x)[0].isfinite().all()
    # The layout of a batch as well.
    x, offsets, *parameters = student_t_problem(rng, 6, 2, [2, 1])
    with torch.inference_mode():
        layout = kernels.Layout.from_offsets(torch.tensor([0, 2, 6]), 6)
    x.requires_grad_()
    own = kernels.student_t_log_prob(x, offsets, *parameters, layout=layout)
    assert torch.autograd.grad(own.sum(), x)[0].isfinite().all()


def made_means(data: Data) -> Tensor:
    return densities(data)["gaussian"].means_


def test_half_precision_is_worked_out_in_the_dtype_of_the_density(rng):
    data = Data(rng)
    gm = fd.GaussianMixtures(2, **EM).fit(data.batch())
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        z = data.points().to(dtype).requires_grad_()
        value = gm.log_prob(z)
        assert value.dtype == torch.float32
        assert_same([value.detach()], [gm.log_prob(z.detach().float())])
        assert torch.autograd.grad(value.sum(), z)[0].dtype == dtype


def test_layouts_are_made_in_any_surroundings(rng):
    problem = mixture_problem(rng, [5, 3], 2, 2, "full", torch.float32)
    x, offsets, *parameters = problem
    want = kernels.responsibilities(x, offsets, *parameters)
    with everything(), torch.device("meta"):
        assert_same([*kernels.responsibilities(x, offsets, *parameters)], [*want])


# Functions of torch that make tensors on the default device; those of a dtype follow the default one.
FACTORIES = {
    *("arange", "as_tensor", "asarray", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "normal"),
    *("ones", "rand", "randint", "randn", "randperm", "range", "scalar_tensor", "tensor", "zeros"),
}
FLOATING = {"empty", "eye", "linspace", "logspace", "normal", "ones", "rand", "randn", "zeros"}


def test_tensors_are_made_on_a_named_device_and_in_a_named_dtype():
    found = []
    for folder in ("fastdens", "kernels"):
        for path in sorted((Path(__file__).parents[1] / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("torch."):
                    continue
                name, named = ast.unparse(node.func).removeprefix("torch."), {key.arg for key in node.keywords}
                if (name in FACTORIES and "device" not in named) or (name in FLOATING and "dtype" not in named):
                    found.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
    assert not found
