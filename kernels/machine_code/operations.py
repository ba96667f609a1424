"""The operations of this package at the shapes that machine code is made for, and their floating-point operations.

An operation is called with tensors of ones, since what it launches depends on their shapes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import torch
from fastdens.kernels.gibbs.status import DONE, NEEDS_MOVES, NEEDS_REFIT
from fastdens.kernels.machine_code.recording import Launch, recorded
from fastdens.kernels.mahalanobis import config
from torch import Tensor

from fastdens import kernels


@dataclass(frozen=True)
class Shape:
    """M models of N points in D dimensions with K components, and how they are computed."""

    n_models: int
    n_points: int
    n_features: int
    n_components: int
    dtype: torch.dtype = torch.float32
    matmul_precision: str = "ieee"
    covariance_type: str = "full"

    def __str__(self) -> str:
        sizes = f"{self.n_models}x{self.n_points}x{self.n_features} K={self.n_components}"
        return f"{sizes} {str(self.dtype).removeprefix('torch.')} {self.matmul_precision} {self.covariance_type}"

    @property
    def options(self) -> dict[str, Any]:
        """The options of operations on Gaussians."""
        return {
            "covariance_type": self.covariance_type,
            "backend": "triton",
            "matmul_precision": self.matmul_precision,
        }

    @property
    def points(self) -> Tensor:
        """[M N, D]."""
        return torch.ones(self.n_models * self.n_points, self.n_features, dtype=self.dtype, device="cpu")

    @property
    def layout(self) -> kernels.Layout:
        """Of models that lie one after the other."""
        offsets = torch.arange(self.n_models + 1, device="cpu") * self.n_points
        return kernels.Layout.from_offsets(offsets, self.n_models * self.n_points)

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights [M, K], means [M, K, D] and factors of precisions."""
        m, k, d = self.n_models, self.n_components, self.n_features
        weights = torch.full((m, k), 1 / k, dtype=self.dtype, device="cpu")
        factor = {
            "full": torch.eye(d, dtype=self.dtype, device="cpu").expand(m, k, d, d),
            "tied": torch.eye(d, dtype=self.dtype, device="cpu").expand(m, d, d),
            "diag": torch.ones(m, k, d, dtype=self.dtype, device="cpu"),
            "spherical": torch.ones(m, k, dtype=self.dtype, device="cpu"),
        }
        return weights, torch.ones(m, k, d, dtype=self.dtype, device="cpu"), factor[self.covariance_type].contiguous()


class Operation(NamedTuple):
    """An operation of the package: how it is called, and how many floating-point operations its formula takes."""

    run: Callable[[Shape], object]
    n_operations: Callable[[Shape], int] | None = None  # None where they depend on the values
    after_launch: Callable[[], Callable[[dict[str, Any]], None]] | None = None


def products(shape: Shape) -> int:
    """Of ``(x - mu) U`` for all points and their components: a triangle of multiplications and as many additions."""
    rows = shape.n_models * shape.n_points * shape.n_components
    is_matrix = shape.covariance_type in ("full", "tied")
    return rows * shape.n_features * (shape.n_features + 1 if is_matrix else 2)


def _em_step(shape: Shape) -> None:
    bound = torch.zeros(shape.n_models, dtype=torch.float64, device="cpu")
    start = shape.points, shape.layout, *shape.parameters, bound
    kernels.em_steps(*start, n_steps=1, tol=0.0, reg_covar=0.0, **shape.options)


def _log_prob(shape: Shape) -> None:
    kernels.mixture_log_prob(shape.points, *shape.parameters, **shape.options)


def _gaussian_log_prob(shape: Shape) -> None:
    _, means, factors = shape.parameters
    kernels.gaussian_log_prob(shape.points, means[0], factors[0], **shape.options)


def _student_t(own: bool) -> Callable[[Shape], None]:
    def run(shape: Shape) -> None:
        weights, means, factors = shape.parameters
        offsets = torch.arange(shape.n_models + 1, device="cpu") * shape.n_components
        kernels.student_t_log_prob(
            shape.points,
            offsets,
            weights.flatten().log(),
            means.flatten(0, 1),
            factors.flatten(0, 1),
            weights.flatten() + shape.n_features,
            layout=shape.layout if own else None,
            backend="triton",
            matmul_precision=shape.matmul_precision,
        )

    return run


def _cholesky(shape: Shape) -> None:
    *_, factors = shape.parameters
    kernels.precision_cholesky(factors, covariance_type=shape.covariance_type, backend="triton")


def _kmeans_plusplus(shape: Shape) -> None:
    kernels.kmeans_plusplus(shape.points, shape.layout, shape.n_components, 0, backend="triton")


def _gibbs(split_merge: int) -> Callable[[Shape], None]:
    """16 sweeps of one chain of each model, as the schedule of a fit asks for at once."""

    def run(shape: Shape) -> None:
        points = shape.points
        ones = torch.ones(shape.n_models, shape.n_features, dtype=torch.float64, device="cpu")
        kernels.gibbs_sweep(
            points,
            shape.layout,
            torch.arange(len(points), device="cpu")[None] % shape.n_components,
            ones[:, :1],
            torch.arange(shape.n_models, device="cpu")[:, None],
            ones,
            ones,
            kappa0=0.1,
            nu0=shape.n_features + 1.0,
            first_sweep=32,
            n_sweeps=16,
            thin=4,
            split_merge=split_merge,
            backend="triton",
        )

    return run


def _all_variants() -> Callable[[dict[str, Any]], None]:
    """Chains that stop once for each variant of the kernel that goes on with them."""
    stops = iter((NEEDS_REFIT, NEEDS_MOVES))

    def stop(arguments: dict[str, Any]) -> None:
        if "status_ptr" in arguments:
            arguments["status_ptr"].fill_(next(stops, DONE).value)

    return stop


GAUSSIANS = {
    "E and M step": Operation(_em_step, lambda shape: 2 * products(shape)),
    "log_prob of mixtures": Operation(_log_prob, lambda shape: shape.n_models * products(shape)),
}
STUDENT_T = {
    "log_prob of Student-t": Operation(_student_t(False), lambda shape: shape.n_models * products(shape)),
    "own log_prob of Student-t": Operation(_student_t(True), products),
}
STARTS = {
    "k-means++": Operation(_kmeans_plusplus),
    # The factor of a matrix takes a third of D cubed, and so does its inverse.
    "Cholesky factors": Operation(_cholesky, lambda s: 2 * s.n_models * s.n_components * s.n_features**3 // 3),
}
SAMPLER = {
    f"16 sweeps{label}": Operation(_gibbs(moves), None, _all_variants) for label, moves in (("", 0), (" with moves", 1))
}


class Recorded(NamedTuple):
    """The launches of one operation at one shape."""

    operation: str
    shape: Shape
    launches: list[Launch]
    n_operations: int | None


def record(operations: dict[str, Operation], shape: Shape) -> Iterator[Recorded]:
    """Run operations at a shape and write down what they launch."""
    for name, operation in operations.items():
        after_launch = operation.after_launch() if operation.after_launch else None
        with recorded(after_launch) as launches:
            operation.run(shape)
        yield Recorded(name, shape, launches, operation.n_operations and operation.n_operations(shape))


def benchmark_shapes() -> Iterator[Recorded]:
    """Every operation at the shapes of the benchmarks, of large ones fewer models."""
    for n_features in (16, 64):
        paper = Shape(100, 500, n_features, 6)
        for precision in ("ieee", "tf32x3"):
            yield from record(GAUSSIANS | STUDENT_T, replace(paper, matmul_precision=precision))
        yield from record(GAUSSIANS, replace(paper, covariance_type="diag"))
        yield from record(STARTS | SAMPLER, paper)
    yield from record(GAUSSIANS, Shape(100, 500, 16, 6, torch.float64))
    yield from record(GAUSSIANS, Shape(2, 500, 512, 6))
    yield from record({"E and M step": GAUSSIANS["E and M step"]}, Shape(1, 200_000, 64, 64, torch.float32, "tf32x3"))
    yield from record({"E and M step": GAUSSIANS["E and M step"]}, Shape(100_000, 20, 2, 2))


def dimensions_of_tiers(largest: int = 2048) -> list[int]:
    """The first and the last D of every tier of block sizes, tiers of one block of dimensions and of many apart."""

    def tier(n_features: int) -> tuple[Any, ...]:
        sizes = [config(n_features, dtype) for dtype in (torch.float32, torch.float64)]
        return tuple(size._replace(num_d_blocks=min(size.num_d_blocks, 2)) for size in sizes)

    tiers = [list(group) for _, group in groupby(range(1, largest + 1), tier)]
    # At D = 1 a launch makes a constant of the number of features.
    return sorted({1, *(d for group in tiers for d in (group[0], group[-1]))})


def density_tiers(dimensions: Iterable[int]) -> Iterator[Recorded]:
    """What densities, EM and its starts launch at some dimensions: every dtype, precision and kind of covariance."""
    # Enough points for several chunks of a model.
    yield from record(GAUSSIANS, Shape(1, 1100, 1, 2))
    # Few enough for all steps in one launch.
    yield from record(GAUSSIANS, Shape(2, 20, 2, 2))
    for d in dimensions:
        for dtype, precision in ((torch.float32, "ieee"), (torch.float32, "tf32x3"), (torch.float64, "ieee")):
            small = Shape(2, 40, d, 2, dtype, precision)
            for covariance_type in ("full", "tied", "diag"):
                yield from record(GAUSSIANS | STARTS, replace(small, covariance_type=covariance_type))
            yield from record(STUDENT_T, small)


def sampler_tiers(dimensions: Iterable[int]) -> Iterator[Recorded]:
    """What the sampler launches at some dimensions; the number of clusters makes no other code."""
    for d in dimensions:
        yield from record(SAMPLER, Shape(2, 40, d, 2))
