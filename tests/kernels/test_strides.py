"""What must not matter to an operation: how its tensors lie in memory, and what the other models are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fastdens.kernels import Layout, em_steps
from torch import Tensor

from fastdens import kernels
from tests.problems import COVARIANCE_TYPES, CPU, GPU, INTERPRETER, REFERENCE, mixture_problem

SIZES, D, K = [5, 8, 4], 3, 2


def reversed_in_memory(tensor: Tensor) -> Tensor:
    order = tuple(reversed(range(tensor.ndim)))
    return tensor.permute(order).contiguous().permute(order)


def with_gaps(tensor: Tensor) -> Tensor:
    return torch.stack([tensor, torch.full_like(tensor, 99)], -1)[..., 0]


def expanded(tensor: Tensor) -> Tensor:
    return tensor[:1].expand_as(tensor)


def operations(backend: str, covariance_type: str = "full") -> dict[str, Callable[[dict[str, Tensor]], Any]]:
    """Every operation, of tensors by name."""

    def layout(t: dict[str, Tensor]) -> Layout:
        return Layout.from_ranges(t["ranges"], len(t["points"]))

    def mixtures(t: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        return t["weights"], t["means"], t["factors"]

    def analysers(t: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return t["weights"], t["means"], t["loadings"], t["noise_variances"]

    def sweep(t: dict[str, Tensor]) -> Any:
        start = (t["labels"][None], t["alpha"], t["keys"], t["prior_mean"], t["prior_scale"])
        options: dict[str, Any] = {"kappa0": 0.1, "nu0": t["points"].shape[1] + 2.0, "n_sweeps": 1}
        return kernels.gibbs_sweep(t["points"], layout(t), *start, **options, backend=backend)

    own: dict[str, Any] = {"backend": backend}
    typed: dict[str, Any] = own | {"covariance_type": covariance_type}
    steps: dict[str, Any] = {"n_steps": 2, "tol": 0.0, "reg_covar": 0.1}
    return {
        "gaussian_log_prob": lambda t: kernels.gaussian_log_prob(
            t["points"], t["means"][0], t["full_factors"][0], **own
        ),
        "mixture_log_prob": lambda t: kernels.mixture_log_prob(t["points"], *mixtures(t), **typed),
        "student_t_log_prob": lambda t: kernels.student_t_log_prob(
            t["points"], t["one_each"], t["weights"][:, 0], t["means"][:, 0], t["full_factors"][:, 0], t["dof"], **own
        ),
        "responsibilities": lambda t: kernels.responsibilities(t["points"], layout(t), *mixtures(t), **typed),
        "sufficient_statistics": lambda t: kernels.sufficient_statistics(
            t["points"], layout(t), t["resp"], t["means"], **typed
        ),
        "em_statistics": lambda t: kernels.em_statistics(t["points"], layout(t), *mixtures(t), **typed),
        "em_steps": lambda t: em_steps(t["points"], layout(t), *mixtures(t), t["bound"], **steps, **typed),
        "precision_cholesky": lambda t: kernels.precision_cholesky(t["covariances"], **typed),
        "kmeans_plusplus": lambda t: kernels.kmeans_plusplus(t["points"], layout(t), K, 5, **own),
        "kmeans": lambda t: kernels.kmeans(t["points"], layout(t), K, 5, **own),
        "random_rows": lambda t: kernels.random_rows(layout(t), K, 5),
        "niw_posterior": lambda t: kernels.niw_posterior(
            t["points"], layout(t), t["labels"], K, t["prior_mean"], t["prior_scale"], 0.1, **own
        ),
        "gibbs_sweep": sweep,
        "factor_mixture_log_prob": lambda t: kernels.factor_mixture_log_prob(t["points"], *analysers(t), **own),
        "factor_responsibilities": lambda t: kernels.factor_responsibilities(
            t["points"], layout(t), *analysers(t), **own
        ),
        "factor_statistics": lambda t: kernels.factor_statistics(t["points"], layout(t), *analysers(t), **own),
        "factor_update": lambda t: kernels.factor_update(
            kernels.FactorStatistics(*(t[name] for name in kernels.FactorStatistics._fields)),
            *analysers(t)[1:],
            min_noise_variance=1e-6,
            **own,
        ),
        "canonical_loadings": lambda t: kernels.canonical_loadings(*analysers(t)[2:], **own),
    }


def problem(
    rng: np.random.Generator, sizes: list[int], n_features: int, covariance_type: str = "full"
) -> dict[str, Tensor]:
    points, offsets, weights, means, factors = mixture_problem(rng, sizes, n_features, K, covariance_type)
    full = mixture_problem(rng, sizes, n_features, K, "full").precisions_cholesky
    resp = torch.from_numpy(rng.dirichlet([1.0] * K, sum(sizes)))
    loadings = torch.from_numpy(rng.normal(size=(len(sizes), K, n_features, min(2, n_features))))
    noise_variances = torch.from_numpy(rng.uniform(0.5, 2, (len(sizes), K, n_features)))
    sums = kernels.factor_statistics(points, offsets, weights, means, loadings, noise_variances, backend="reference")
    return {
        **sums._asdict(),
        "loadings": loadings,
        "noise_variances": noise_variances,
        "points": points,
        "ranges": torch.stack([offsets[:-1], offsets[1:]], 1),
        "one_each": torch.arange(len(sizes) + 1),
        "weights": weights,
        "means": means,
        "factors": factors,
        "full_factors": full,
        "covariances": full @ full.mT if covariance_type == "full" else factors**2,
        "dof": torch.from_numpy(rng.uniform(3, 9, len(sizes))),
        "resp": resp,
        "bound": torch.full((len(sizes),), -torch.inf, dtype=torch.float64),
        "labels": resp.argmax(1).int(),
        "alpha": torch.ones(len(sizes), 1, dtype=torch.float64),
        "keys": torch.arange(len(sizes))[:, None],
        "prior_mean": torch.from_numpy(rng.normal(size=(len(sizes), n_features))),
        "prior_scale": torch.ones(len(sizes), n_features, dtype=torch.float64),
    }


@pytest.fixture
def tensors(rng) -> dict[str, Tensor]:
    return problem(rng, SIZES, D)


@pytest.mark.parametrize("laid_out", [reversed_in_memory, with_gaps, expanded])
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU, REFERENCE])
def test_how_tensors_lie_does_not_matter(tensors, backend, device, laid_out):
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    if laid_out is expanded:
        same = ("points", "ranges", "one_each")
        tensors |= {name: laid_out(t).contiguous() for name, t in tensors.items() if name not in same}
        moved = tensors | {name: laid_out(t) for name, t in tensors.items() if name not in same}
    else:
        moved = {name: laid_out(t) for name, t in tensors.items()}
    for name, operation in operations(backend).items():
        results, expected = operation(moved), operation(tensors)
        for one, other in zip(*((r,) if isinstance(r, Tensor) else r for r in (results, expected)), strict=True):
            # Libraries of matrix products, which the reference calls, add in the order that suits the memory.
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, equal_nan=True, msg=name)


def of_others(result: Tensor, models: Tensor, rows: Tensor) -> Tensor:
    """A result for the models and rows of which these are True, along the axes of their lengths."""
    kept = {len(mask): mask.nonzero()[:, 0].to(result.device) for mask in (models, rows)}
    for axis, length in enumerate(result.shape):
        if length in kept:
            result = result.index_select(axis, kept[length])
    return result


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("lost_by", ["points", "parameters"])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("n_features", [1, 3, 5])
@pytest.mark.parametrize(("backend", "device"), [CPU, INTERPRETER, GPU, REFERENCE])
def test_a_lost_model_does_not_touch_the_others(rng, n_features, covariance_type, lost_by, backend, device):
    # One thread takes the models in turn, in the same scratch memory.
    sizes, lost = [7, 40, 6, 11], 1
    tensors = {name: t.to(device) for name, t in problem(rng, sizes, n_features, covariance_type).items()}
    spoilt = dict(tensors)
    models, rows = torch.arange(len(sizes)) != lost, torch.ones(sum(sizes), dtype=torch.bool)
    own = slice(*tensors["ranges"][lost].tolist())
    rows[own] = False
    for name, tensor in tensors.items():
        of_points = name in ("points", "resp")
        if of_points == (lost_by == "points") and tensor.is_floating_point():
            spoilt[name] = tensor.clone()
            spoilt[name][own if of_points else lost] = torch.nan
    touched = set()
    for name, operation in operations(backend, covariance_type).items():
        # Starts and chains take finite values, for which the estimators ask.
        if name in ("kmeans_plusplus", "kmeans", "gibbs_sweep"):
            continue
        for one, other in zip(
            *((r,) if isinstance(r, Tensor) else r for r in map(operation, (spoilt, tensors))), strict=True
        ):
            if not torch.equal(*(of_others(r, models, rows).nan_to_num(-7.0) for r in (one, other))):
                touched.add(name)
    assert not touched


def test_every_operation_is_among_them():
    no_points = {"as_layout", "random_responsibilities", "gaussian_parameters"}
    assert {name for name in kernels.__all__ if name.islower()} - no_points <= operations("auto").keys()
