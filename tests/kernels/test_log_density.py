"""Derivatives of log-densities in the points: every kind, of every operation and density, of orders one to three."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fastdens.kernels import reference
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import fastdens as fd
from fastdens import kernels
from tests.problems import COVARIANCE_TYPES, layout_of, mixture_problem, student_t_problem

Function = Callable[[Tensor], Tensor]
ROWS = torch.tensor([0, 1, 4])


def gaussians(rng, covariance_type: str) -> tuple[Tensor, Function, Function]:
    x, _, _, means, factors = mixture_problem(rng, [4], 3, 2, covariance_type)
    arguments, options = (means[0], factors[0]), {"covariance_type": covariance_type}
    return (
        x,
        lambda z: kernels.gaussian_log_prob(z, *arguments, **options),
        lambda z: reference.gaussian_log_prob(z, *arguments, **options),
    )


def mixtures(rng, covariance_type: str) -> tuple[Tensor, Function, Function]:
    x, _, *arguments = mixture_problem(rng, [2, 2], 3, 2, covariance_type)
    options = {"covariance_type": covariance_type}
    return (
        x,
        lambda z: kernels.mixture_log_prob(z, *arguments, **options),
        lambda z: reference.mixture_log_prob(z, *arguments, **options),
    )


def student_t(rng, rows: Tensor | None) -> tuple[Tensor, Function, Function]:
    x, *arguments = student_t_problem(rng, 4, 3, [2, 1])
    models = [(slice(0, 2), slice(0, 4)), (slice(2, 3), slice(0, 4))]
    if rows is not None:
        models = [(own, slice(*rows[m : m + 2].tolist())) for m, (own, _) in enumerate(models)]

    def formula(z: Tensor) -> Tensor:
        _, *parameters = arguments
        # One model at a time, written without assignments, which torch.func does not follow.
        columns = []
        for own, of in models:
            log_pi, mu, u, nu = (t[own] for t in parameters)
            form = ((z[of, None] - mu)[..., None, :] @ u)[..., 0, :].square().sum(-1)
            norm = torch.lgamma((nu + 3) / 2) - torch.lgamma(nu / 2) - 1.5 * (nu * torch.pi).log()
            norm = norm + log_pi + u.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            columns.append(torch.logsumexp(norm - (nu + 3) / 2 * torch.log1p(form / nu), 1))
        return torch.stack(columns, 1) if rows is None else torch.cat(columns)

    return x, lambda z: kernels.student_t_log_prob(z, *arguments, layout=rows), formula


def factor_analysers(rng) -> tuple[Tensor, Function, Function]:
    x, _, weights, means, _ = mixture_problem(rng, [2, 2], 3, 2, "full")
    loadings, noise = torch.from_numpy(rng.normal(size=(2, 2, 3, 2))), torch.from_numpy(rng.uniform(0.1, 1, (2, 2, 3)))
    factors, _ = reference.precision_cholesky(loadings @ loadings.mT + torch.diag_embed(noise))
    return (
        x,
        lambda z: kernels.factor_mixture_log_prob(z, weights, means, loadings, noise),
        lambda z: reference.mixture_log_prob(z, weights, means, factors),
    )


OPERATIONS = {
    **{f"gaussian {kind}": lambda rng, kind=kind: gaussians(rng, kind) for kind in COVARIANCE_TYPES},
    **{f"mixture {kind}": lambda rng, kind=kind: mixtures(rng, kind) for kind in COVARIANCE_TYPES},
    "factor analysers": factor_analysers,
    "student_t": lambda rng: student_t(rng, None),
    "student_t under its own model": lambda rng: student_t(rng, ROWS),
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS)


@every_operation
def test_finite_differences(rng, operation):
    x, function, _ = OPERATIONS[operation](rng)
    x.requires_grad_()
    everything = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(function, x, **everything)
    second = {"check_fwd_over_rev": True, "check_rev_over_rev": True, "check_batched_grad": True}
    assert torch.autograd.gradgradcheck(function, x, **second)


@every_operation
@pytest.mark.parametrize("order", [1, 2, 3])
def test_nested_derivatives_agree_with_those_of_the_formula(rng, operation, order):
    x, function, formula = OPERATIONS[operation](rng)
    v = torch.from_numpy(rng.normal(size=x.shape))
    steps: dict[str, Callable[[Function], Function]] = {
        "forward": lambda f: lambda z: jvp(f, (z,), (v,))[1],
        "reverse": lambda f: lambda z: (grad(f)(z) * v).sum(),
    }
    # The square makes the cotangents depend on the points.
    got, want = (lambda z, f=f: f(z).square().sum() for f in (function, formula))
    for chain in itertools.product(steps, repeat=order):
        pair = [got, want]
        for step in chain:
            pair = [steps[step](f) for f in pair]
        torch.testing.assert_close(pair[0](x), pair[1](x), msg=str(chain))


@every_operation
def test_transforms_of_torch_func(rng, operation):
    x, function, formula = OPERATIONS[operation](rng)
    batch = torch.from_numpy(rng.normal(size=(2, *x.shape)))
    transforms: dict[str, Callable[[Function], Tensor]] = {
        "jacrev": lambda f: jacrev(f)(x),
        "jacfwd": lambda f: jacfwd(f)(x),
        "hessian": lambda f: hessian(lambda z: f(z).square().sum())(x),
        "jacobian of a Hessian": lambda f: jacfwd(hessian(lambda z: f(z).square().sum()))(x),
        "vmap": lambda f: vmap(f)(batch),
        "vmap over the last axis": lambda f: vmap(f, in_dims=-1)(batch.movedim(0, -1)),
        "vmap of vmap": lambda f: vmap(vmap(f))(batch[None]),
        "vmap of a gradient": lambda f: vmap(grad(lambda z: f(z).square().sum()))(batch),
        "gradient of vmap": lambda f: grad(lambda z: vmap(f)(z).square().sum())(batch),
        "vmap of a Hessian": lambda f: vmap(hessian(lambda z: f(z).sum()))(batch),
    }
    for name, transform in transforms.items():
        torch.testing.assert_close(transform(function), transform(formula), msg=name)


def test_vmap_over_parameters(rng):
    x, _, weights, means, factors = mixture_problem(rng, [3], 2, 2, "full")
    shifted = torch.stack([means, means + 1])
    got = vmap(lambda mu: kernels.mixture_log_prob(x, weights, mu, factors))(shifted)
    want = torch.stack([kernels.mixture_log_prob(x, weights, mu, factors) for mu in shifted])
    assert torch.equal(got, want)


def test_a_derivative_in_a_parameter_is_refused(rng):
    x, _, weights, means, factors = mixture_problem(rng, [3], 2, 2, "full")

    def total(mu: Tensor) -> Tensor:
        return kernels.mixture_log_prob(x, weights, mu, factors).sum()

    for derivative in (
        lambda: total(means.clone().requires_grad_()),
        lambda: grad(total)(means),
        lambda: jvp(total, (means,), (means,)),
        lambda: jacfwd(total)(means),
        lambda: torch.autograd.functional.jvp(total, means, means),
    ):
        with pytest.raises(NotImplementedError, match="means requires a gradient, but"):
            derivative()


def test_other_operations_refuse_derivatives(rng):
    x, offsets, *parameters = mixture_problem(rng, [3, 4], 2, 2, "full")
    layout = layout_of(offsets)

    def total(z: Tensor) -> Tensor:
        return kernels.responsibilities(z, layout, *parameters).log_prob_norm.sum()

    for derivative in (
        lambda: total(x.clone().requires_grad_()),
        lambda: grad(total)(x),
        lambda: jvp(total, (x,), (x,)),
    ):
        with pytest.raises(NotImplementedError, match="log-densities alone have derivatives"):
            derivative()


def test_models_without_a_cotangent_do_not_matter(rng):
    x, _, weights, means, factors = mixture_problem(rng, [2, 3], 2, 2, "full")
    means[1] = torch.nan
    x.requires_grad_()
    assert torch.autograd.grad(kernels.mixture_log_prob(x, weights, means, factors)[:, 0].sum(), x)[0].isfinite().all()


def fitted_densities(rng: np.random.Generator) -> dict[str, object]:
    x = torch.from_numpy(rng.normal(size=(90, 3)))
    batch = fd.RaggedBatch.from_labels(x, torch.arange(90) % 3)
    gibbs = fd.DirichletProcessMixtures(burn_in=2, n_sweeps=4, thin=1, progress=False).fit(batch)
    gm = fd.GaussianMixtures(2, max_iter=3, tol=0, reg_covar=0.1).fit(batch)
    variational = fd.VariationalDirichletProcessMixtures(truncation=3, max_iter=3).fit(batch)
    fitted = {"gaussian": gm, "gibbs": gibbs, "variational": variational}
    return {**fitted, **{f"density of {name}": estimator.density() for name, estimator in fitted.items()}}


@pytest.mark.filterwarnings("ignore::fastdens.ConvergenceWarning")
@pytest.mark.parametrize("together", [True, False])
def test_densities_have_every_derivative(rng, monkeypatch, together):
    if not together:
        # One model at a time.
        monkeypatch.setattr("fastdens.inference.predictive._MAX_ELEMENTS", 1)
    x = torch.from_numpy(rng.normal(size=(3, 3))).requires_grad_()
    for density in fitted_densities(rng).values():
        # First of all, so that a predictive density is made inside a transform.
        assert jacfwd(density.log_prob)(x.detach()).isfinite().all()
        assert torch.autograd.gradcheck(density.log_prob, x, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(density.log_prob, x, check_fwd_over_rev=True)
        one = vmap(hessian(lambda z, density=density: density.log_prob(z[None])[0].sum()))(x.detach())
        whole = hessian(lambda z, density=density: density.log_prob(z).sum())(x.detach())
        torch.testing.assert_close(one, torch.stack([whole[i, :, i] for i in range(3)]))


@pytest.mark.filterwarnings("ignore::fastdens.ConvergenceWarning")
def test_batches_drop_no_derivative_silently(rng):
    x, v = (torch.from_numpy(rng.normal(size=(4, 3))) for _ in range(2))
    y = torch.tensor([0, 1, 1, 2])
    for density in fitted_densities(rng).values():

        def total(z: Tensor, density=density) -> Tensor:
            return density.score_samples(fd.RaggedBatch.from_labels(z, y)).sum()

        for derivative in (lambda total=total: grad(total)(x), lambda total=total: jvp(total, (x,), (v,))):
            with pytest.raises(NotImplementedError, match="x is differentiated, but its numbers are taken without"):
                derivative()


def test_projections_have_derivatives(rng):
    svd = fd.reduction.UncentredSVD(2).fit(rng.normal(size=(9, 3)))
    x = torch.from_numpy(rng.normal(size=(4, 3))).requires_grad_()
    assert torch.autograd.gradcheck(svd.transform, x, check_forward_ad=True, check_batched_grad=True)
    for dtype in (torch.float16, torch.bfloat16):
        z = x.detach().to(dtype).requires_grad_()
        assert svd.transform(z).dtype == torch.float32
        assert torch.autograd.grad(svd.transform(z).sum(), z)[0].dtype == dtype


class Scored(torch.nn.Module):
    def __init__(self, density) -> None:
        super().__init__()
        self.density = density

    def forward(self, x: Tensor) -> Tensor:
        return self.density.log_prob(x)


@pytest.mark.filterwarnings("ignore::fastdens.ConvergenceWarning")
def test_torch_compile_and_export_of_densities(rng):
    z, other = (torch.from_numpy(rng.normal(size=(n, 3))) for n in (5, 7))
    rows = torch.export.Dim("rows", min=2)
    for name, density in fitted_densities(rng).items():
        exported = torch.export.export(Scored(density), (z,), dynamic_shapes=({0: rows},)).module()
        torch.testing.assert_close(exported(other), density.log_prob(other), rtol=1e-12, atol=1e-12)
        torch._dynamo.reset()
        compiled = torch.compile(density.log_prob, backend="eager", fullgraph=True)
        assert torch.equal(compiled(z), density.log_prob(z)), name
        got = torch.compile(jacfwd(density.log_prob), backend="eager")(z)
        torch.testing.assert_close(got, jacrev(density.log_prob)(z))


@pytest.mark.filterwarnings("ignore::fastdens.ConvergenceWarning")
def test_torch_compile_of_densities_that_inference_mode_has_made(rng):
    x = torch.from_numpy(rng.normal(size=(5, 3))).requires_grad_()
    with torch.inference_mode():
        fitted = fitted_densities(rng)
    for density in fitted.values():
        torch._dynamo.reset()
        compiled = torch.compile(lambda z, density=density: density.log_prob(z).sum(), backend="aot_eager")
        (got,) = torch.autograd.grad(compiled(x), x)
        assert torch.equal(got, torch.autograd.grad(density.log_prob(x).sum(), x)[0])


@pytest.mark.filterwarnings("ignore::fastdens.ConvergenceWarning")
def test_export_of_a_density_that_is_not_made_yet(rng):
    z = torch.from_numpy(rng.normal(size=(5, 3)))
    batch = fd.RaggedBatch.from_list([rng.normal(size=(40, 3))])
    fitted = fd.VariationalDirichletProcessMixtures(truncation=3, max_iter=3).fit(batch)
    with pytest.raises(NotImplementedError, match=r"call density\(\) before"):
        torch.export.export(Scored(fitted), (z,))
    compiled = torch.compile(fitted.log_prob, backend="eager")
    assert torch.equal(compiled(z), fitted.log_prob(z))
