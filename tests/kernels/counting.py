"""Counts of what a GPU would wait for: torch kernels, synchronisations and Triton launches of a piece of code.

They are taken on CPU tensors, with the kernels in Triton's interpreter, where the code runs as on a GPU. An operator
counts as one torch kernel if it is no view and does not just allocate; on a GPU some are several (a sort, a cumulative
sum). A synchronisation is a number that the host reads or a size that it must learn. Not seen: a tensor moved with
``.to(device)``, for here all devices are one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "resize_"}

READINGS = {"_local_scalar_dense", "is_nonzero"}


def masks_among(_: Tensor, indices: Sequence[Tensor | None], *rest: Any) -> int:
    """An index that is a mask is turned into row numbers, whose count the host must learn."""
    return sum(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


# Synchronisations of an operator on a GPU, from its positional and keyword arguments. Those of segment_reduce read the
# smallest length and whether the lengths sum to the rows.
SYNCHRONIZATIONS: dict[str, Callable[..., int]] = {
    "_local_scalar_dense": lambda *_, **__: 1,
    "_linalg_check_errors": lambda *_, **__: 1,
    "_unique2": lambda *_, **__: 1,
    "bincount": lambda *_, **__: 1,
    "equal": lambda *_, **__: 1,
    "is_nonzero": lambda *_, **__: 1,
    "index": masks_among,
    "index_put": masks_among,
    "index_put_": masks_among,
    "_index_put_impl_": masks_among,
    "linalg_cholesky_ex": lambda *_, check_errors=False, **__: int(check_errors),
    "linalg_inv_ex": lambda *_, check_errors=False, **__: int(check_errors),
    "masked_select": lambda *_, **__: 1,
    "nonzero": lambda *_, **__: 1,
    "repeat_interleave": lambda *_, output_size=None: int(output_size is None),
    "segment_reduce": lambda *_, unsafe=False, **__: 0 if unsafe else 2,
    "unique_consecutive": lambda *_, **__: 1,
    "unique_dim": lambda *_, **__: 1,
}
# Functions that copy between host and GPU, where the dispatcher sees nothing on a CPU.
HOST_COPIES = {Tensor.cpu: "cpu", Tensor.tolist: "tolist", Tensor.numpy: "numpy", Tensor.__array__: "numpy"}


@dataclass
class Counts:
    """How often each operator launched a kernel or held up the host, and each Triton kernel was launched, by name."""

    torch_kernels: Counter[str] = field(default_factory=Counter)
    synchronizations: Counter[str] = field(default_factory=Counter)
    triton_launches: Counter[str] = field(default_factory=Counter)

    def __sub__(self, other: Counts) -> Counts:
        """What was counted here beyond ``other``; of two runs, what the longer one did more."""
        names = ("torch_kernels", "synchronizations", "triton_launches")
        pairs = [(getattr(self, name), getattr(other, name)) for name in names]
        return Counts(*(Counter({key: a[key] - b[key] for key in a | b if a[key] != b[key]}) for a, b in pairs))

    @property
    def totals(self) -> tuple[int, int, int]:
        """Numbers of torch kernels, synchronisations and Triton launches."""
        return self.torch_kernels.total(), self.synchronizations.total(), self.triton_launches.total()


class CountOperators(TorchDispatchMode):
    """Counts the operators that reach a backend."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if func.namespace == "fastdens":
            # An operator of the library's own is as many kernels as what it calls.
            with self:
                return OPDEFS[func._schema.name]._init_fn(*args, **kwargs)
        if held := SYNCHRONIZATIONS.get(name, lambda *_, **__: 0)(*args, **kwargs):
            self.counts.synchronizations[name] += held
        if not (func.is_view or name in ALLOCATIONS or name in READINGS):
            self.counts.torch_kernels[name] += 1
        return func(*args, **kwargs)


class CountHostCopies(TorchFunctionMode):
    """Counts the calls that copy between host and GPU."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        to_device = func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None
        if to_device and not isinstance(args[0], Tensor):
            self.counts.synchronizations["tensor"] += 1
        elif func in HOST_COPIES:
            self.counts.synchronizations[HOST_COPIES[func]] += 1
        return func(*args, **kwargs)


@contextmanager
def counted() -> Iterator[Counts]:
    """Count what runs within: ``with counted() as counts: ...``."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    counts = Counts()

    def counting(run: Callable[..., Any]) -> Callable[..., Any]:
        def launch(kernel: Any, *args: Any, **kwargs: Any) -> Any:
            counts.triton_launches[kernel.__name__] += 1
            # What the interpreter does in place of a GPU is not counted.
            with torch.utils._python_dispatch._disable_current_modes(), torch._C.DisableTorchFunction():
                return run(kernel, *args, **kwargs)

        return launch

    with (
        mock.patch.object(InterpretedFunction, "run", counting(InterpretedFunction.run)),
        mock.patch.object(JITFunction, "run", counting(JITFunction.run)),
        CountHostCopies(counts),
        CountOperators(counts),
    ):
        yield counts
