"""What layers put out while a network runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fastdens.activations.evaluation import plain_name, unwrapped
from fastdens.activations.outputs import (
    Part,
    Pool,
    Pooling,
    check_pool,
    choose_part,
    choose_tokens,
    may_be_sequence_first,
)
from fastdens.io.activation_files import LABELS
from fastdens.kernels.options import suggest

Calls = str | int | None
T = TypeVar("T")

_NAMED_CALLS = {"first": 0, "last": -1}


class Recorder:
    """A forward hook that pools what a layer puts out in a pass, call by call.

    It pools at once, because later layers may work in place.

    Parameters
    ----------
    layer : str
    pooling : Pooling
    calls : {"first", "last", "all"} or int, optional
        Which of its calls to keep; None if there must be one.
    part : str, int, tuple or callable, optional
        Which part of an output to keep.
    """

    def __init__(self, layer: str, pooling: Pooling, calls: Calls, part: Part) -> None:
        named = _NAMED_CALLS.get(calls, calls) if isinstance(calls, str) else calls
        if isinstance(named, bool) or not (named is None or named == "all" or isinstance(named, int)):
            raise ValueError(f"calls is {calls!r}, but it must be 'first', 'last', 'all' or the index of a call.")
        self._layer, self._pooling, self._part = layer, pooling, part
        self._call = named
        self._n_calls, self._n_inputs = 0, 0
        from_end = isinstance(named, int) and named < 0
        self._kept: deque[Tensor] = deque(maxlen=-named if from_end and isinstance(named, int) else None)

    def begin(self, n_inputs: int) -> None:
        """Forget the pass before."""
        self._n_calls, self._n_inputs = 0, n_inputs
        self._kept.clear()

    def __call__(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        """Take the output of a call."""
        at, call = self._n_calls, self._call
        self._n_calls += 1
        if call == "all" or at == (call or 0) or (isinstance(call, int) and call < 0):
            self._kept.append(self._pooling(choose_part(output, self._part, self._pooling.owner), self._n_inputs))

    def rows(self) -> np.ndarray:
        """What was kept of the pass, float32 [B, D]; of several calls side by side.

        Raises
        ------
        ValueError
            If the layer did not run, or not as often as ``calls`` says.
        """
        n = self._n_calls
        if n == 0:
            raise ValueError(
                f"layer {self._layer!r} did not run in a pass of the model: choose a module that is called itself, "
                "in a model that is not scripted."
            )
        if self._call is None and n > 1:
            raise ValueError(
                f"layer {self._layer!r} ran {n} times in one pass of the model: say which call to keep, by "
                "calls='first', 'last', 'all' or an index, or choose a module that runs once."
            )
        if isinstance(self._call, int) and not -n <= self._call < n:
            raise ValueError(
                f"layer {self._layer!r} ran {n} times in one pass of the model, so there is no call {self._call}: pass "
                f"calls from {-n} to {n - 1}."
            )
        kept = torch.cat(tuple(self._kept), 1) if self._call == "all" else self._kept[0]
        rows: np.ndarray = kept.cpu().numpy()
        return rows


def make_recorders(
    model: nn.Module,
    layers: Sequence[str],
    pool: Pool,
    tokens: str,
    calls: Calls | Mapping[str, Calls],
    output: Part | Mapping[str, Part],
) -> dict[str, tuple[nn.Module, Recorder]]:
    """The layers of the given names, each with its recorder."""
    check_pool(pool)
    chosen_tokens = choose_tokens(unwrapped(model), tokens, pool)
    modules = _find_layers(model, layers)
    chosen_calls, parts = _by_layer(calls, modules, "calls"), _by_layer(output, modules, "output")
    sequence_first = may_be_sequence_first(model)
    return {
        name: (
            module,
            Recorder(
                name,
                Pooling(name, module, pool, chosen_tokens, sequence_first=sequence_first),
                chosen_calls[name],
                parts[name],
            ),
        )
        for name, module in modules.items()
    }


@contextmanager
def recording(recorders: Mapping[str, tuple[nn.Module, Recorder]]) -> Iterator[None]:
    """Let the recorders see the outputs of their layers."""
    with ExitStack() as stack:
        for name, (module, recorder) in recorders.items():
            try:
                handle = module.register_forward_hook(recorder)
            except RuntimeError as error:
                raise ValueError(
                    f"layer {name!r} cannot be recorded ({error}): extract from the model before it is scripted."
                ) from None
            stack.callback(handle.remove)
        yield


def _find_layers(model: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    layers = [layers] if isinstance(layers, str) else list(layers)
    for name in layers:
        if not isinstance(name, str):
            raise TypeError(
                f"layers holds {type(name).__name__}, but layers are given by their names in model.named_modules()."
            )
    # A module that has two names is found under both.
    exact = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    known: dict[str, nn.Module] = {}
    for name, module in exact.items():
        known.setdefault(plain_name(name), module)
    known.pop("", None)
    if not layers:
        raise ValueError(f"layers is empty: pass names of modules, e.g. {suggest('layer', known)}.")
    found = {name: exact.get(name, known.get(plain_name(name))) for name in layers}
    for name, module in found.items():
        if module is None:
            raise ValueError(f"the model has no layer {name!r}: the nearest names are {suggest(name, known)}.")
    if LABELS in layers:
        raise ValueError(f"a layer named {LABELS!r} cannot be told from the labels: rename the module.")
    if len(set(layers)) < len(layers):
        raise ValueError(f"layers names a layer twice: {', '.join(map(repr, layers))}; pass each once.")
    return {name: module for name, module in found.items() if module is not None}


def _by_layer(option: T | Mapping[str, T], layers: Mapping[str, nn.Module], name: str) -> dict[str, T | None]:
    """An option for each layer, from one for all or from a mapping."""
    if not isinstance(option, Mapping):
        return dict.fromkeys(layers, option)
    for layer in option:
        if layer not in layers:
            raise ValueError(
                f"{name} names the layer {layer!r}, which is not extracted: the nearest names are "
                f"{suggest(layer, layers)}."
            )
    return {layer: option.get(layer) for layer in layers}
