"""What every operation shares: the choice of a backend, and checks that its tensors belong together."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar, cast

import torch
from fastdens.kernels.layout import Layout
from fastdens.kernels.options import BACKENDS, COVARIANCE_TYPES, MATMUL_PRECISIONS, check_choice
from fastdens.kernels.surroundings import is_differentiated, undisturbed
from torch import Tensor

R = TypeVar("R")


def resolve_backend(backend: str, points: Tensor) -> str:
    """The backend to run: "auto" is triton for CUDA tensors and cpu for CPU tensors.

    Raises
    ------
    ValueError
        If the name is unknown, or "cpu" is asked for on a CUDA tensor.
    RuntimeError
        If "triton" is asked for on a CPU tensor outside the interpreter.
    """
    check_choice("backend", backend, BACKENDS)
    if backend == "auto":
        return "triton" if points.is_cuda else "cpu"
    if backend == "cpu" and points.is_cuda:
        raise ValueError("backend is 'cpu', but the points are on a GPU: move them with x.cpu() or use backend='auto'.")
    if backend == "triton" and not points.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            "backend is 'triton', but the points are on the CPU: move them to a GPU, or set TRITON_INTERPRET=1 before "
            "fastdens is first used to run the kernels in Triton's interpreter."
        )
    return backend


class Backends(Generic[R]):
    """The implementations of one operation: functions of the same arguments, one for each backend.

    Parameters
    ----------
    triton, reference : callable
    cpu : str
        As ``"m_step:sufficient_statistics"``, a module of ``fastdens.kernels.cpu`` and its function: numba is imported
        when a CPU kernel first runs.
    prepare : callable, optional
        Of the arguments after the points, makes those that ``triton`` and ``cpu`` take in their place.
    in_dtype_of_points : bool
        Whether floating-point results are converted to the dtype of the points; if not, the implementations see to it.
    """

    def __init__(
        self,
        *,
        triton: Callable[..., R],
        cpu: str,
        reference: Callable[..., R],
        prepare: Callable[..., tuple[Any, ...]] | None = None,
        in_dtype_of_points: bool = True,
    ) -> None:
        self._triton = triton
        self._cpu_name = cpu
        self._reference = reference
        self._prepare = prepare
        self._in_dtype_of_points = in_dtype_of_points

    @functools.cached_property
    def _cpu(self) -> Callable[..., R]:
        module, _, name = self._cpu_name.partition(":")
        function: Callable[..., R] = getattr(importlib.import_module(f"fastdens.kernels.cpu.{module}"), name)
        return function

    @undisturbed
    def run(
        self, backend: str, points: Tensor, *arguments: Any, matmul_precision: str | None = None, **options: Any
    ) -> R:
        """Run the operation on the backend that ``backend`` means for these points.

        ``matmul_precision`` is handed to Triton, which alone has a choice. Floating-point results come in the dtype of
        the points, whatever the backend computes in, unless the implementations choose their own.

        Raises
        ------
        NotImplementedError
            If a derivative is asked for: operators of log-densities have some, and what they run has none.
        ValueError
            If a layout is on another device than the points.
        """
        for value in (*arguments, *options.values()):
            if isinstance(value, Layout) and value.ranges.device != points.device:
                raise ValueError(
                    f"the layout is on {value.ranges.device} and points are on {points.device}: move one of them."
                )
        if any(is_differentiated(value) for value in (points, *arguments) if isinstance(value, Tensor)):
            raise NotImplementedError(
                "a derivative in the arguments is asked for, but log-densities alone have derivatives, in the points: "
                "call log_prob of a density, gaussian_log_prob, mixture_log_prob or student_t_log_prob, or pass "
                "tensors that are detached."
            )
        chosen = resolve_backend(backend, points)
        if chosen == "reference":
            return self._convert(self._reference(points, *arguments, **options), points.dtype)
        if self._prepare is not None:
            arguments, options = self._prepare(*arguments, **options), {}
        if chosen == "cpu":
            return self._convert(self._cpu(points, *arguments, **options), points.dtype)
        if matmul_precision is not None:
            options["matmul_precision"] = matmul_precision
        with on_device_of(points):
            return self._convert(self._triton(points, *arguments, **options), points.dtype)

    def _convert(self, results: R, dtype: torch.dtype) -> R:
        return _in_dtype(results, dtype) if self._in_dtype_of_points else results


def on_device_of(points: Tensor) -> AbstractContextManager[object]:
    """Make the device of the points the current one, which is where Triton launches."""
    return torch.cuda.device(points.device) if points.is_cuda else nullcontext()


def _in_dtype(results: R, dtype: torch.dtype) -> R:
    converted: Any = results
    if isinstance(results, tuple):
        converted = tuple(_in_dtype(result, dtype) for result in results)
    elif isinstance(results, Tensor) and results.dtype != dtype and results.is_floating_point():
        converted = results.to(dtype)
    return cast("R", converted)


def check_points(points: Tensor) -> None:
    """Check that points are float32 or float64 [N, D].

    Raises
    ------
    TypeError
        If they are not.
    """
    if points.ndim != 2 or points.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"points are {points.dtype} of shape {tuple(points.shape)}, but must be float32 or float64 [N, D]."
        )


def check_gaussians(
    points: Tensor, means: Tensor, precisions_cholesky: Tensor, covariance_type: str, matmul_precision: str
) -> None:
    """Check Gaussians of shape [..., K, D] against points [N, D].

    Raises
    ------
    TypeError
        If dtypes differ or are not float32 or float64.
    ValueError
        If a shape, a device or an option is wrong.
    """
    check_choice("covariance_type", covariance_type, COVARIANCE_TYPES)
    check_choice("matmul_precision", matmul_precision, MATMUL_PRECISIONS)
    check_points(points)
    *batch, d = means.shape
    if d != points.shape[1]:
        raise ValueError(f"means have D = {d} and points D = {points.shape[1]}: they must agree.")
    shape = {"full": (*batch, d, d), "tied": (*batch[:-1], d, d), "diag": (*batch, d), "spherical": tuple(batch)}
    if tuple(precisions_cholesky.shape) != shape[covariance_type]:
        raise ValueError(
            f"precisions_cholesky has shape {tuple(precisions_cholesky.shape)}, but covariance_type "
            f"{covariance_type!r} with means {tuple(means.shape)} needs {shape[covariance_type]}."
        )
    check_alike(points, means=means, precisions_cholesky=precisions_cholesky)


def check_mixtures(
    points: Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    matmul_precision: str,
) -> None:
    """Check mixtures of weights [M, K] and means [M, K, D] against points; errors as of :func:`check_gaussians`."""
    if means.ndim != 3 or weights.shape != means.shape[:2]:
        raise ValueError(
            f"weights have shape {tuple(weights.shape)} and means {tuple(means.shape)}, but they must be [M, K] and "
            "[M, K, D]."
        )
    check_gaussians(points, means, precisions_cholesky, covariance_type, matmul_precision)
    check_alike(points, weights=weights)


def check_sample_weight(points: Tensor, sample_weight: Tensor) -> Tensor:
    """Weights [N] of the points, contiguous; errors as of :func:`check_alike`."""
    if sample_weight.shape != points.shape[:1]:
        raise ValueError(
            f"sample_weight has shape {tuple(sample_weight.shape)}, but there are {len(points)} points: pass one "
            "number for each."
        )
    check_alike(points, sample_weight=sample_weight)
    return sample_weight.contiguous()


def check_alike(points: Tensor, **others: Tensor) -> None:
    """Check that tensors have the dtype and the device of the points.

    Raises
    ------
    TypeError, ValueError
        If they do not.
    """
    for name, tensor in others.items():
        if tensor.dtype != points.dtype:
            raise TypeError(f"{name} is {tensor.dtype} and points are {points.dtype}: convert one of them.")
        if tensor.device != points.device:
            raise ValueError(f"{name} is on {tensor.device} and points are on {points.device}: move one of them.")
