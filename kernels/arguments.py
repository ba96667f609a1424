"""Arguments of operations, checked by their annotations before anything computes on them."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import operator
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from fastdens.kernels.layout import Layout
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def dense(name: str, value: Any) -> Tensor:
    """``value`` if it is a tensor that holds its numbers one beside the other, else a TypeError."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, but it must be a tensor: pass torch.as_tensor({name}).")
    if value.is_nested or value.layout != torch.strided or value.is_quantized or value.is_meta:
        kind = "nested" if value.is_nested else "quantized" if value.is_quantized else str(value.layout)
        kind = "meta" if value.is_meta else kind.removeprefix("torch.")
        raise TypeError(f"{name} is a {kind} tensor, but it must be a dense one of numbers: convert it.")
    return value


def whole(name: str, value: Any) -> int:
    """``value`` as an integer of 64 bits, else a TypeError or ValueError."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {_shown(value)}, but it must be an integer.") from None
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{name} is {number}, but it must be an integer of 64 bits.")
    return number


def real(name: str, value: Any) -> float:
    """``value`` as a number of float64, infinity among them, else a TypeError or ValueError."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {_shown(value)}, but it must be a real number.")
    try:
        number = float(value)
    except OverflowError:
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{name} is {_shown(value)}, but it must be a number that float64 holds.")
    return number


def count(name: str, value: int) -> int:
    """``value`` if it is at least 1, else a ValueError."""
    if value < 1:
        raise ValueError(f"{name} is {value}, but it must be at least 1.")
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "Tensor": dense,
    "Layout | Tensor": lambda name, value: value if isinstance(value, Layout) else dense(name, value),
    "Tensor | int": lambda name, value: (dense if isinstance(value, Tensor) else whole)(name, value),
    "Tensor | float": lambda name, value: (dense if isinstance(value, Tensor) else real)(name, value),
    "int": whole,
    "float": real,
}


def checks_of(function: Callable[..., Any]) -> Callable[[list[Any], dict[str, Any]], None]:
    """A function that puts into the arguments of a call what they mean: dense tensors, integers, real numbers.

    It raises a TypeError or ValueError for an argument that means none.
    """
    parameters = inspect.signature(function).parameters
    kinds = {name: str(parameter.annotation).removesuffix(" | None") for name, parameter in parameters.items()}
    checks = {name: _CHECKS.get(kind) for name, kind in kinds.items()}
    may_lack = {name for name, parameter in parameters.items() if parameter.default is None}
    names = list(parameters)

    def check(values: list[Any], named: dict[str, Any]) -> None:
        for i, (name, value) in enumerate(zip(names, values, strict=False)):
            values[i] = check_one(name, value)
        for name, value in named.items():
            named[name] = check_one(name, value)

    def check_one(name: str, value: Any) -> Any:
        one = checks.get(name)
        return value if one is None or (value is None and name in may_lack) else one(name, value)

    return check


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The operation, which checks the kinds of its arguments first."""
    check = checks_of(function)

    @functools.wraps(function)
    def call(*values: P.args, **named: P.kwargs) -> R:
        given = list(values)
        check(given, named)
        return function(*given, **named)  # type: ignore[arg-type]

    return call


def _shown(value: object) -> str:
    return " ".join(repr(value).split())[:100]
