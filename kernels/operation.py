"""What every operation shares: the choice of a backend, torch.library, and checks that its tensors belong together."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

import torch
from fastdens.kernels.layout import Layout, as_layout, ranges_of_offsets
from fastdens.kernels.options import BACKENDS, COVARIANCE_TYPES, MATMUL_PRECISIONS, check_choice
from torch import Tensor

P = ParamSpec("P")
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
    """

    def __init__(
        self,
        *,
        triton: Callable[..., R],
        cpu: str,
        reference: Callable[..., R],
        prepare: Callable[..., tuple[Any, ...]] | None = None,
    ) -> None:
        self._triton = triton
        self._cpu_name = cpu
        self._reference = reference
        self._prepare = prepare

    @functools.cached_property
    def _cpu(self) -> Callable[..., R]:
        module, _, name = self._cpu_name.partition(":")
        function: Callable[..., R] = getattr(importlib.import_module(f"fastdens.kernels.cpu.{module}"), name)
        return function

    def run(
        self, backend: str, points: Tensor, *arguments: Any, matmul_precision: str | None = None, **options: Any
    ) -> R:
        """Run the operation on the backend that ``backend`` means for these points.

        ``matmul_precision`` is handed to Triton, which alone has a choice. Floating-point results come in the dtype of
        the points, whatever the backend computes in.
        """
        chosen = resolve_backend(backend, points)
        if chosen == "reference":
            return _in_dtype(self._reference(points, *arguments, **options), points.dtype)
        if self._prepare is not None:
            arguments, options = self._prepare(*arguments, **options), {}
        if chosen == "cpu":
            return _in_dtype(self._cpu(points, *arguments, **options), points.dtype)
        if matmul_precision is not None:
            options["matmul_precision"] = matmul_precision
        return _in_dtype(self._triton(points, *arguments, **options), points.dtype)


def _in_dtype(results: R, dtype: torch.dtype) -> R:
    converted: Any = results
    if isinstance(results, tuple):
        converted = tuple(_in_dtype(result, dtype) for result in results)
    elif isinstance(results, Tensor) and results.dtype != dtype and results.is_floating_point():
        converted = results.to(dtype)
    return cast("R", converted)


def log_density(
    *, fake: Callable[..., Tensor], backward: Callable[..., Tensor]
) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]:
    """Make a log-density of points an operator of torch.library, differentiable in the points.

    The operator has the name of the decorated function and its parameters, in the same order and with the same
    defaults. The function runs inside the operator, checks included: torch.compile and autograd see no more than the
    operator. A layout crosses this border as row ranges, and is a :class:`~fastdens.kernels.Layout` again inside. Of
    the parameters, tensors come first, from the points to the layout, then strings.

    Parameters
    ----------
    fake : callable
        Given the arguments by name, returns an empty tensor of the result's shape and dtype.
    backward : callable
        Given ``grad``, ``result`` and the arguments by name, returns the gradient in the points.
    """

    def decorate(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
        signature = inspect.signature(function, eval_str=True)
        parameters = list(signature.parameters.values())
        names, defaults = [p.name for p in parameters], [p.default for p in parameters]
        n_positional = sum(p.kind is not p.KEYWORD_ONLY for p in parameters)
        n_tensors = sum(p.annotation is not str for p in parameters)
        # What may and what must be given by name after the first n arguments.
        possible = [frozenset(names[n:]) for n in range(n_positional + 1)]
        needed = [frozenset(p.name for p in parameters[n:] if p.default is p.empty) for n in range(n_positional + 1)]
        layout_at = names.index("layout") if "layout" in names else None

        def by_name(values: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
            return dict(zip(names, values, strict=False)) | named

        def run(*values: Any, **named: Any) -> Tensor:
            arguments = by_name(values, named)
            if arguments.get("layout") is not None:
                arguments["layout"] = Layout.from_ranges(arguments["layout"], len(arguments["points"]))
            return function(**arguments)  # type: ignore[call-arg]

        # torch.library reads this signature; it knows no Layout, and keyword-only tensors have no derivatives there.
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[
                p.replace(
                    kind=p.POSITIONAL_OR_KEYWORD, annotation=Tensor | None if p.name == "layout" else p.annotation
                )
                for p in parameters
            ]
        )
        operator = torch.library.custom_op(f"fastdens::{function.__name__}", run, mutates_args=())
        operator.register_fake(lambda *values, **named: fake(**by_name(values, named)))

        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            ctx.save_for_backward(output, *inputs[:n_tensors])
            ctx.options = inputs[n_tensors:]

        def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            result, *tensors = ctx.saved_tensors
            arguments = dict(zip(names, (*tensors, *ctx.options), strict=True))
            return backward(grad=grad, result=result, **arguments), *[None] * (len(names) - 1)

        operator.register_autograd(gradients, setup_context=setup_context)

        @functools.wraps(function)
        def call(*values: P.args, **named: P.kwargs) -> Tensor:
            n = len(values)
            if n > n_positional or not needed[n] <= named.keys() <= possible[n]:
                signature.bind(*values, **named)  # Raises Python's own TypeError.
            arguments: list[Any] = [*values, *map(named.get, names[n:], defaults[n:])]
            if layout_at is not None and arguments[layout_at] is not None:
                arguments[layout_at] = _as_ranges(arguments[layout_at], len(arguments[0]))
            _refuse_parameter_gradients(names, arguments)
            # By position: torch.library is slower to take arguments by name.
            result: Tensor = operator(*arguments)
            return result

        return call

    return decorate


def _as_ranges(layout: Layout | Tensor, n_points: int) -> Tensor:
    """Row ranges [M, 2] of a layout or of offsets, with no look at their values, which torch.compile does not know."""
    if isinstance(layout, Layout):
        return as_layout(layout, layout.n_models, n_points).ranges
    return ranges_of_offsets(layout)


def _refuse_parameter_gradients(names: list[str], values: list[Any]) -> None:
    """Raise rather than return no gradient for a parameter, after the points, that asks for one."""
    for name, value in zip(names[1:], values[1:], strict=True):
        if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
            raise NotImplementedError(
                f"{name} requires a gradient, but log-densities are differentiable in the points only: pass "
                f"{name}.detach()."
            )


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
