"""What a program may have switched on around this library, kept out of its arithmetic.

Autocast would run matrix products in half precision. A processor that flushes denormal numbers to zero would do so in
the calling thread, and not in the others.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

P = ParamSpec("P")
R = TypeVar("R")

_AUTOCAST_DEVICES = ("cpu", "cuda")
_DENORMAL = 5e-324


def undisturbed(function: Callable[P, R], *, lasting: bool = False) -> Callable[P, R]:
    """Make the results of a function, bits and dtypes, independent of autocast and of flushed denormal numbers.

    With ``lasting``, inference mode leaves no mark on tensors that are kept: autograd may use them later.
    """

    @functools.wraps(function)
    def call(*values: P.args, **named: P.kwargs) -> R:
        # Where denormal numbers are flushed, the comparison takes them for zero.
        if (
            _DENORMAL != 0.0
            and not torch.is_autocast_enabled("cpu")
            and not torch.is_autocast_enabled("cuda")
            # Tracing knows no inference mode.
            and not (lasting and not torch.compiler.is_compiling() and torch.is_inference_mode_enabled())
        ):
            return function(*values, **named)
        if torch.compiler.is_compiling():
            # Tracing follows plain blocks only.
            with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
                return function(*values, **named)
        with _undisturbed(lasting):
            return function(*values, **named)

    return call


@contextmanager
def _undisturbed(lasting: bool) -> Iterator[None]:
    flushed = _DENORMAL == 0.0
    with ExitStack() as stack:
        if lasting and torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        for device in _AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if flushed:
            torch.set_flush_denormal(False)
            stack.callback(torch.set_flush_denormal, True)
        yield


class Undisturbed:
    """Base of classes whose public methods are :func:`undisturbed`, those of subclasses too."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, member in list(vars(cls).items()):
            if inspect.isfunction(member) and not name.startswith("_"):
                setattr(cls, name, undisturbed(member, lasting=name in ("fit", "partial_fit", "refit", "density")))


def outside_inference(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that was made in inference mode, which autograd does not save."""
    inside = not torch.compiler.is_compiling() and tensor.is_inference() and not torch.is_inference_mode_enabled()
    return tensor.clone() if inside else tensor


def is_transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def outside_transforms() -> AbstractContextManager[object]:
    """Where tensors are plain ones: those that are made inside a transform of torch.func are wrapped.

    While torch.compile traces, transforms are not left: it looks at wrapped tensors afterwards.
    """
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return nullcontext()
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    return temporarily_clear_interpreter_stack()


def is_differentiated(tensor: Tensor) -> bool:
    """Whether a derivative in the tensor is asked for, in reverse or in forward mode."""
    if tensor.requires_grad and torch.is_grad_enabled():
        return True
    return torch._C._is_fwd_grad_enabled() and is_transformed() and forward_ad.unpack_dual(tensor).tangent is not None
