"""Runs of somebody else's network, after which it is as it was before."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

# What wrappers call the network inside.
_INNER = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Passes:
    """Runs a model, pass by pass.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    gradients, eager : bool
        As of :func:`evaluating`.
    """

    def __init__(self, model: nn.Module, *, gradients: bool, eager: bool) -> None:
        self._model, self._gradients, self._eager = model, gradients, eager
        self._numbers = _OwnRandomNumbers()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output of the model."""
        recording = torch.is_grad_enabled() and self._gradients
        with self._numbers, torch.inference_mode(False), torch.set_grad_enabled(recording), _uncompiled(self._eager):
            return self._model(*args, **kwargs)

    def begin(self, number: int) -> None:
        """Let the random numbers of the passes that follow depend on a number, and not on the passes before.

        Parameters
        ----------
        number : int
            The number of the batch that comes next, from 0.
        """
        self._numbers.begin(number)


@contextmanager
def evaluating(model: nn.Module, *, gradients: bool = False, eager: bool = False) -> Iterator[Passes]:
    """Evaluation mode; yields what runs the model, which is given back as it was.

    What is restored: the mode of each module, buffers that a pass changes, how wrappers for several devices work, and
    the state of torch's random generators. A module may keep a cache that it makes in its first pass: its tensors are
    ordinary ones, which can be trained with, because no pass runs in inference mode.

    Parameters
    ----------
    model : nn.Module
        Any network.
    gradients : bool
        Leave it to the caller whether a pass records gradients; by default none does.
    eager : bool
        Run compiled modules as they were written, and replicated ones on one device: compiled code may skip hooks that
        are younger than itself, and each replica would call them.

    Yields
    ------
    Passes
        Call it with inputs to run the model.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5)).train()
    >>> with fd.activations.evaluating(model) as passes:
    ...     outputs = passes(torch.randn(4, 3))
    >>> outputs.requires_grad, model.training
    (False, True)
    """
    # `model.eval()` may do more than set the modes (merge weights, say) or be forbidden (in exported programs).
    modes = [(module, module.training) for module in model.modules()]
    buffers = [_ModuleState.of(module) for module, _ in modes]
    with _on_its_own(model, one_device=eager):
        try:
            for module, _ in modes:
                module.training = False
            yield Passes(model, gradients=gradients, eager=eager)
        finally:
            for module, training in modes:
                module.training = training
            for state in buffers:
                state.restore()


def model_device(model: nn.Module) -> torch.device:
    """The device on which a model runs.

    Parameters
    ----------
    model : nn.Module
        Any network.

    Returns
    -------
    torch.device
        That of its first parameter, or else of its first buffer; the CPU if it has neither.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> fd.activations.model_device(torch.nn.Linear(3, 2))
    device(type='cpu')
    """
    return next((own.device for own in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def model_dtype(model: nn.Module) -> torch.dtype | None:
    """The floating-point type in which a model takes inputs.

    Parameters
    ----------
    model : nn.Module
        Any network.

    Returns
    -------
    torch.dtype or None
        That of its first floating-point parameter; None if it has none.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> fd.activations.model_dtype(torch.nn.Linear(3, 2).half())
    torch.float16
    """
    return next((parameter.dtype for parameter in model.parameters() if parameter.dtype in _FLOATING), None)


def plain_name(name: str) -> str:
    """The name of a module without those that wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in (*_INNER, "module"))


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside torch's wrappers for compilation, for several devices, for averages and for checkpoints.

    Parameters
    ----------
    model : nn.Module
        A network, wrapped or not, any number of times.

    Returns
    -------
    nn.Module
        The network inside.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> network = torch.nn.Linear(3, 2)
    >>> fd.activations.unwrapped(torch.nn.DataParallel(network)) is network
    True
    """
    while True:
        known = isinstance(model, DataParallel | DistributedDataParallel | AveragedModel)
        inner = [child for name, child in model.named_children() if known or name in _INNER]
        if not inner:
            return model
        model = inner[0]


class _ModuleState(NamedTuple):
    """A module, its own buffers with copies of them, and its attributes that are numbers."""

    module: nn.Module
    buffers: dict[str, tuple[Tensor, Tensor]]
    numbers: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> _ModuleState:
        own = dict(module.named_buffers(recurse=False, remove_duplicate=False))
        kept = {name: (buffer, buffer.detach().clone()) for name, buffer in own.items() if has_bits(buffer)}
        return cls(module, kept, _numbers(module))

    @torch.no_grad()
    def restore(self) -> None:
        """Give the buffers their values back.

        If an attribute such as a flag or a length has changed too, it tells the module about its buffers: they are then
        a cache that must stay.
        """
        if _numbers(self.module) != self.numbers:
            return
        for name, (buffer, before) in self.buffers.items():
            if buffer.shape != before.shape or not _same_bits(buffer, before):
                with torch.inference_mode(buffer.is_inference()):
                    (buffer if buffer.shape == before.shape else buffer.resize_(before.shape)).copy_(before)
            # A scripted module hands out a new tensor each time.
            if not isinstance(self.module, torch.jit.ScriptModule) and self.module._buffers.get(name) is not buffer:
                self.module._buffers[name] = buffer


def _numbers(module: nn.Module) -> dict[str, Any]:
    own = vars(module).items()
    return {name: value for name, value in own if isinstance(value, int | float | str) and name != "training"}


def has_bits(buffer: Tensor) -> bool:
    """Whether a tensor has values of its own, one after the other in memory."""
    if is_lazy(buffer) or buffer.layout != torch.strided:
        return False
    return not (buffer.is_meta or buffer.is_quantized or buffer.is_nested)


def _same_bits(left: Tensor, right: Tensor) -> bool:
    if left.element_size() == 1:
        # Types of eight bits need not know how to compare.
        left, right = left.view(torch.uint8), right.view(torch.uint8)
    return torch.equal(left, right)


class _OwnRandomNumbers:
    """Random numbers for the passes of a model, which go on from pass to pass.

    They begin where torch's global generators stand, and leave those there.
    """

    def __init__(self) -> None:
        self._inside: list[Tensor] | None = None
        self._outside: list[Tensor] = []
        self._start = torch.default_generator.get_state().numpy().tobytes()
        self._number: int | None = None

    def begin(self, number: int) -> None:
        """Go on with numbers that follow from a number and from where torch's global generator stood at first."""
        self._number = number

    def __enter__(self) -> None:
        self._outside = [generator.get_state() for generator in _generators()]
        if self._number is None:
            self._set(self._inside)
        else:
            key = hashlib.blake2b(self._start + str(self._number).encode(), digest_size=8)
            for generator in _generators():
                generator.manual_seed(int.from_bytes(key.digest(), "little"))
            self._number = None

    def __exit__(self, *_: object) -> None:
        self._inside = [generator.get_state() for generator in _generators()]
        self._set(self._outside)

    @staticmethod
    def _set(states: list[Tensor] | None) -> None:
        # The list is shorter if CUDA has been initialized since.
        for generator, state in zip(_generators(), states or (), strict=False):
            generator.set_state(state)


def _generators() -> list[torch.Generator]:
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        generators += torch.cuda.default_generators
    return generators


@contextmanager
def _on_its_own(model: nn.Module, *, one_device: bool) -> Iterator[None]:
    """Without exchange between processes, and without replicas if ``one_device``."""
    changed: list[tuple[nn.Module, str, Any]] = []
    for module in model.modules():
        if isinstance(module, DistributedDataParallel):
            # As in its `no_sync`, but from the first pass: other processes need not take part.
            names = ("require_forward_param_sync", "require_backward_grad_sync")
            changed += [(module, name, getattr(module, name)) for name in names]
        elif isinstance(module, DataParallel) and one_device:
            changed.append((module, "device_ids", module.device_ids))
    try:
        for module, name, value in changed:
            setattr(module, name, value[:1] if name == "device_ids" else False)
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)


def _uncompiled(eager: bool) -> Any:
    """A context in which torch.compile does nothing; torch's compiler is not imported for it."""
    return torch.compiler.set_stance("force_eager") if eager and "torch._dynamo" in sys.modules else nullcontext()
