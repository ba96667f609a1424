"""Log-densities of points as operators of torch.library with derivatives of any order in the points.

Autograd and torch.compile see two operators, the log-density and its gradient. Forward-mode derivatives, torch.func
and second derivatives come from :mod:`fastdens.kernels.derivatives`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ParamSpec

import torch
from fastdens.kernels import derivatives, portable
from fastdens.kernels.arguments import checks_of
from fastdens.kernels.far_points import with_far_points
from fastdens.kernels.layout import Layout, as_layout, ranges_of_offsets
from fastdens.kernels.mixture import Components
from fastdens.kernels.surroundings import is_transformed, outside_inference, undisturbed
from torch import Tensor
from torch.autograd import forward_ad

P = ParamSpec("P")

_GRADS = ("grad", "result")
_NOT_PREPARED = ("points", "backend", "matmul_precision")


@dataclass(frozen=True)
class _Operation:
    """A log-density: its operators, and what they are differentiated by. No tuple, which torch.vmap would open."""

    names: list[str]  # of the arguments: tensors, from the points to the layout, then strings
    n_tensors: int
    layout_at: int | None
    operator: Callable[..., Tensor]  # of the arguments
    gradient: Callable[..., Tensor]  # of cotangents, log-densities and the arguments
    prepare: Callable[..., tuple[Any, ...]]

    def components_and_layout(self, arguments: tuple[Any, ...]) -> tuple[Components, Layout | None]:
        by_name = dict(zip(self.names, arguments, strict=True))
        if by_name.get("layout") is not None:
            by_name["layout"] = Layout.from_ranges(by_name["layout"], len(by_name["points"]))
        components, *layout = self.prepare(**{k: v for k, v in by_name.items() if k not in _NOT_PREPARED})
        return components, layout[0] if layout else None


def log_density(
    *, fake: Callable[..., Tensor], gradient: Callable[..., Tensor], prepare: Callable[..., tuple[Any, ...]]
) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]:
    """Make a log-density of points an operator of torch.library, differentiable in the points.

    A program that is exported holds plain operations of torch in its place, so that it runs without this library,
    unless a backend is asked for by name, or a layout is given.

    The operator has the name of the decorated function and its parameters, in the same order and with the same
    defaults. The function runs inside the operator, checks included: torch.compile and autograd see no more than the
    operator. A layout crosses this border as row ranges, and is a :class:`~fastdens.kernels.Layout` again inside. Of
    the parameters, tensors come first, from the points to the layout, then strings.

    Parameters
    ----------
    fake : callable
        Given the arguments by name, returns an empty tensor of the result's shape and dtype.
    gradient : callable
        Given ``grad``, ``result`` and the arguments by name, in float64, returns the gradient in the points. It is an
        operator too. Products of float32 matrices would have bits that depend on the number of threads.
    prepare : callable
        Given the arguments by name, without the points and the options of backends, returns the components and, of an
        operation that has one, the layout: all other derivatives follow from them.
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
        check = checks_of(function)
        layout_at = names.index("layout") if "layout" in names else None
        backend_at = names.index("backend")

        def run(**arguments: Any) -> Tensor:
            if arguments.get("layout") is not None:
                arguments["layout"] = Layout.from_ranges(arguments["layout"], len(arguments["points"]))
            return with_far_points(lambda **own: (function(**own),), arguments)[0]  # type: ignore[call-arg]

        def run_gradient(points: Tensor, **arguments: Any) -> Tensor:
            for name, value in arguments.items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    arguments[name] = value.double()
            return gradient(points=points.double(), **arguments).to(points.dtype)

        operator = _operator(function.__name__, run, parameters, fake)
        grads = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Tensor) for name in _GRADS]
        gradient_operator = _operator(
            f"{function.__name__}_backward",
            undisturbed(run_gradient),
            [*grads, *parameters],
            lambda **arguments: torch.empty_like(arguments["points"]),
        )
        operation = _Operation(names, n_tensors, layout_at, operator, gradient_operator, prepare)
        _register_autograd(operator, operation, _LogDensity)
        _register_autograd(gradient_operator, operation, _PointGradient)

        @functools.wraps(function)
        def call(*given: P.args, **named: P.kwargs) -> Tensor:
            values: list[Any] = list(given)
            check(values, named)
            n = len(values)
            if n > n_positional or not needed[n] <= named.keys() <= possible[n]:
                signature.bind(*values, **named)  # Raises Python's own TypeError.
            arguments: list[Any] = [*values, *map(named.get, names[n:], defaults[n:])]
            if layout_at is not None and arguments[layout_at] is not None:
                arguments[layout_at] = _as_ranges(arguments[layout_at], len(arguments[0]))
            _refuse_parameter_gradients(names, arguments)
            if torch.compiler.is_exporting() and arguments[backend_at] == "auto":
                components, layout = operation.components_and_layout(tuple(arguments))
                if layout is None:
                    return portable.log_prob(arguments[0], components)
            transformed = is_transformed()
            if transformed or arguments[0].requires_grad:
                arguments[1:n_tensors] = [t if t is None else outside_inference(t) for t in arguments[1:n_tensors]]
            if transformed:
                return _LogDensity.apply(operation, *arguments)  # type: ignore[no-any-return]
            # By position: torch.library is slower to take arguments by name.
            result: Tensor = operator(*arguments)
            return result

        return call

    return decorate


def _operator(
    name: str, function: Callable[..., Tensor], parameters: list[inspect.Parameter], fake: Callable[..., Tensor]
) -> Any:
    """An operator of torch.library; ``fake`` is given its arguments by name."""
    names = [p.name for p in parameters]
    # The dispatcher leaves out arguments that are equal to their defaults.
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}

    def by_name(values: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        return defaults | dict(zip(names, values, strict=False)) | named

    def run(*values: Any, **named: Any) -> Tensor:
        return function(**by_name(values, named))

    # torch.library reads this signature; it knows no Layout, and keyword-only tensors have no derivatives there.
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            p.replace(kind=p.POSITIONAL_OR_KEYWORD, annotation=Tensor | None if p.name == "layout" else p.annotation)
            for p in parameters
        ],
        return_annotation=Tensor,
    )
    operator = torch.library.custom_op(f"fastdens::{name}", run, mutates_args=())
    operator.register_fake(lambda *values, **named: fake(**by_name(values, named)))
    return operator


def _register_autograd(operator: Any, operation: _Operation, function: type[_Differentiable]) -> None:
    """Give the operator itself, which torch.compile meets, the derivatives of an autograd function."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        function.setup_context(ctx, (operation, *inputs), output)

    def backward(ctx: Any, grad: Tensor) -> Any:
        return function.backward(ctx, grad)[1:]

    operator.register_autograd(backward, setup_context=setup_context)


class _Differentiable(torch.autograd.Function):
    """An operator of a log-density; the arguments follow its operation and tensors of one row for each point."""

    @classmethod
    def _vmap(cls, info: Any, in_dims: tuple[int | None, ...], *values: Any, n_rows: int) -> tuple[Tensor, int]:
        """Rows of a batch lie beside each other: points [N, B, D] are N x B points, models keep theirs together."""
        operation, size = values[0], info.batch_size
        rows = slice(1, 1 + n_rows)
        if any(dim is not None for dim in in_dims[rows.stop :]):
            # A batch of parameters: one call for each.
            calls = (
                [v if dim is None else v.select(dim, b) for v, dim in zip(values, in_dims, strict=True)]
                for b in range(size)
            )
            return torch.stack([cls.apply(*one) for one in calls]), 0
        arguments = list(values)
        for at, (tensor, dim) in enumerate(zip(values[rows], in_dims[rows], strict=True), 1):
            beside = tensor.movedim(dim, 1) if dim is not None else tensor[:, None].expand(-1, size, *tensor.shape[1:])
            arguments[at] = beside.flatten(0, 1)
        layout_at = None if operation.layout_at is None else operation.layout_at + n_rows
        if layout_at is not None and arguments[layout_at] is not None:
            arguments[layout_at] = arguments[layout_at] * size
        result = cls.apply(*arguments)
        return result.unflatten(0, (-1, size)), 1


class _LogDensity(_Differentiable):
    """The log-densities of points."""

    @staticmethod
    def forward(operation: _Operation, *arguments: Any) -> Tensor:
        return operation.operator(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        operation, *arguments = inputs
        tensors = arguments[: operation.n_tensors]
        ctx.save_for_backward(*tensors, output)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.operation, ctx.options = operation, arguments[operation.n_tensors :]

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        operation = ctx.operation
        rest = [None] * (len(operation.names) - 1)
        if grad is None:
            return None, None, *rest
        *tensors, result = ctx.saved_tensors
        arguments = (grad, result, *tensors, *ctx.options)
        return None, _PointGradient.apply(operation, *arguments), *rest

    @staticmethod
    def jvp(ctx: Any, _: None, tangent: Tensor | None, *rest: Tensor | None) -> Tensor | None:
        _refuse_parameter_tangents(ctx.operation.names[1:], rest)
        if tangent is None:
            return None
        with _higher_tangents():
            points, *others = map(_primal, ctx.saved_tensors[: ctx.operation.n_tensors])
            components, layout = ctx.operation.components_and_layout((points, *others, *ctx.options))
            return derivatives.directional(points, tangent, components, layout)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *values: Any) -> tuple[Tensor, int]:
        return _LogDensity._vmap(info, in_dims, *values, n_rows=1)


class _PointGradient(_Differentiable):
    """The gradient in the points, of cotangents and log-densities; the latter are functions of the points."""

    @staticmethod
    def forward(operation: _Operation, *arguments: Any) -> Tensor:
        return operation.gradient(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        operation, grad, _, *arguments = inputs
        tensors = grad, *arguments[: operation.n_tensors]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.operation, ctx.options = operation, arguments[operation.n_tensors :]

    @staticmethod
    def backward(ctx: Any, vector: Tensor | None) -> tuple[Tensor | None, ...]:
        rest = [None] * (len(ctx.operation.names) - 1)
        if vector is None:
            return None, None, None, None, *rest
        grad, points, *_ = ctx.saved_tensors
        components, layout = ctx.operation.components_and_layout((*ctx.saved_tensors[1:], *ctx.options))
        of_grad = derivatives.directional(points, vector, components, layout)
        of_points = derivatives.hessian_product(points, grad, vector, components, layout)
        return None, of_grad, None, of_points, *rest

    @staticmethod
    def jvp(
        ctx: Any, _: None, of_grad: Tensor | None, __: Tensor | None, tangent: Tensor | None, *rest: Tensor | None
    ) -> Tensor | None:
        _refuse_parameter_tangents(ctx.operation.names[1:], rest)
        terms = []
        with _higher_tangents():
            grad, points, *others = map(_primal, ctx.saved_tensors)
            components, layout = ctx.operation.components_and_layout((points, *others, *ctx.options))
            if of_grad is not None:
                terms.append(derivatives.gradient(points, of_grad, components, layout))
            if tangent is not None:
                terms.append(derivatives.hessian_product(points, grad, tangent, components, layout))
            return sum(terms[1:], terms[0]) if terms else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *values: Any) -> tuple[Tensor, int]:
        return _PointGradient._vmap(info, in_dims, *values, n_rows=3)


def _higher_tangents() -> AbstractContextManager[None]:
    """Inside a rule of forward mode, which runs without: tangents of the levels around it go on, as of jvp in jvp."""
    return forward_ad._set_fwd_grad_enabled(True)


def _primal(tensor: Tensor | None) -> Any:
    """A saved tensor without its own tangent, which the rule is given beside it."""
    return None if tensor is None else forward_ad.unpack_dual(tensor, level=0).primal


def _as_ranges(layout: Layout | Tensor, n_points: int) -> Tensor:
    """Row ranges [M, 2] of a layout or of offsets, with no look at their values, which torch.compile does not know."""
    if isinstance(layout, Layout):
        return as_layout(layout, layout.n_models, n_points).ranges
    return ranges_of_offsets(layout)


def _refuse_parameter_gradients(names: list[str], values: list[Any]) -> None:
    """Raise rather than return no gradient for a parameter, after the points, that asks for one."""
    for name, value in zip(names[1:], values[1:], strict=True):
        if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
            raise _no_derivative(name)


def _refuse_parameter_tangents(names: list[str], tangents: tuple[Tensor | None, ...]) -> None:
    for name, tangent in zip(names, tangents, strict=True):
        if tangent is not None:
            raise _no_derivative(name)


def _no_derivative(name: str) -> NotImplementedError:
    return NotImplementedError(
        f"{name} requires a gradient, but log-densities are differentiable in the points only: pass {name}.detach()."
    )
