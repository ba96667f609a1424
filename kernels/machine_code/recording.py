"""What operations launch on a GPU, written down instead of run: kernels, arguments, grids and options.

The operations run as they would on a GPU, on CPU tensors, but every launch of a Triton kernel leaves its outputs as
they are. So what is compiled is what the launchers ask for, with no second list of signatures to keep.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import fastdens.kernels
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_ALIGNMENT = 16
_POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int16: "*i16",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.bool: "*i1",
}
_UNFILLED = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")


@dataclass(frozen=True)
class Launch:
    """One launch of a Triton kernel.

    Attributes
    ----------
    kernel : JITFunction
    grid : tuple of int
        Programs along each axis.
    signature : dict
        Type of each argument; of a constant, "constexpr".
    constants : dict
        Values of the constants, among them arguments that are None or one, of which a launch makes constants.
    aligned : tuple of int
        Positions of the arguments that are multiples of 16, as the pointers of an allocator are.
    options : dict
        ``num_warps`` and what else the launcher hands to the compiler.
    n_bytes : int
        Bytes of all tensors that it was given, each counted once.
    """

    kernel: Any
    grid: tuple[int, ...]
    signature: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[int, ...]
    options: dict[str, Any]
    n_bytes: int

    @property
    def name(self) -> str:
        """Name of the kernel."""
        return str(self.kernel.__name__).strip("_")

    @property
    def variant(self) -> Hashable:
        """What the compiler sees of it: equal for launches that run the same machine code."""
        parts = (self.signature, self.constants, self.options)
        return (self.name, self.aligned, *(tuple((key, str(part[key])) for key in sorted(part)) for part in parts))


class _ZerosForEmpty(TorchFunctionMode):
    """Room that a kernel would have filled holds zeros, so that what follows it runs on numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result.zero_() if getattr(func, "__name__", "") in _UNFILLED else result


def define_all() -> list[str]:
    """Import every module of the kernels, and return their names: a kernel is defined when its module is imported."""
    own = __name__.rpartition(".")[0]
    modules = pkgutil.walk_packages(fastdens.kernels.__path__, "fastdens.kernels.")
    names = [
        module.name for module in modules if not f"{module.name}.".startswith((f"{own}.", "fastdens.kernels.cpu."))
    ]
    for name in names:
        importlib.import_module(name)
    return names


@contextmanager
def recorded(after_launch: Callable[[dict[str, Any]], None] | None = None) -> Iterator[list[Launch]]:
    """Write down the launches of what runs within, in order.

    Parameters
    ----------
    after_launch : callable, optional
        Of the arguments of each launch by name, as a stand-in for what the kernel would have written.

    Raises
    ------
    RuntimeError
        If the kernels are in Triton's interpreter, which compiles none.
    """
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    define_all()
    launches: list[Launch] = []

    def record(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        bound, launch = _bind(kernel, args, grid, options)
        launches.append(launch)
        if after_launch is not None:
            after_launch(bound)

    def refuse(kernel: Any, *args: Any, **options: Any) -> None:
        raise RuntimeError(
            f"the kernel {kernel.__name__} is in Triton's interpreter and has no machine code: unset TRITON_INTERPRET "
            "before fastdens.kernels is first imported."
        )

    with (
        mock.patch.object(JITFunction, "run", record),
        mock.patch.object(InterpretedFunction, "run", refuse),
        # Operations ask at each call whether CPU tensors may go to Triton; how a kernel runs was settled before.
        mock.patch.dict(os.environ, {"TRITON_INTERPRET": "1"}),
        _ZerosForEmpty(),
    ):
        yield launches


def _bind(kernel: Any, args: tuple[Any, ...], grid: Any, options: dict[str, Any]) -> tuple[dict[str, Any], Launch]:
    """The arguments of a launch by name, and the launch, with the specialisations that Triton makes."""
    own = {name: options.pop(name) for name in list(options) if name in kernel.arg_names}
    bound = inspect.signature(kernel.fn).bind(*args, **own)
    bound.apply_defaults()
    values = dict(bound.arguments)
    sizes = grid(values) if callable(grid) else grid
    signature, constants, aligned = {}, {}, []
    for at, parameter in enumerate(kernel.params):
        value, special = values[parameter.name], not parameter.do_not_specialize
        is_one = isinstance(value, int) and value == 1 and special
        if parameter.is_constexpr or value is None or is_one:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        signature[parameter.name] = _type_of(value)
        multiple = value.storage_offset() * value.element_size() if isinstance(value, Tensor) else value
        if isinstance(multiple, int) and multiple % _ALIGNMENT == 0 and special:
            aligned.append(at)
    tensors = {value.data_ptr(): value for value in values.values() if isinstance(value, Tensor)}
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    whole_grid = tuple(int(size) for size in (sizes if isinstance(sizes, tuple) else (sizes,)))
    launch = Launch(kernel, whole_grid, signature, constants, tuple(aligned), dict(options), n_bytes)
    return values, launch


@functools.singledispatch
def _type_of(value: Any) -> str:
    raise TypeError(f"a kernel was given {value!r}, of type {type(value).__name__}, which Triton does not take.")


@_type_of.register
def _(value: Tensor) -> str:
    return _POINTERS[value.dtype]


@_type_of.register
def _(value: bool) -> str:
    return "i1"


@_type_of.register
def _(value: int) -> str:
    return "i32" if -(2**31) <= value < 2**31 else "i64"


@_type_of.register
def _(value: float) -> str:
    return "fp32"
