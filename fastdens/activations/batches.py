"""What a loader yields, taken apart: arguments of the network, and labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fastdens.activations.evaluation import model_dtype, unwrapped
from fastdens.activations.outputs import parts_of
from fastdens.arrays import as_tensor

Inputs = str | int | Sequence[str | int] | Callable[[Any], Any] | None
Labels = str | int | Callable[[Any], Any] | bool | None

# What collections of data call their labels.
_LABELS = ("labels", "label", "targets", "target", "y")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Batch(NamedTuple):
    """Arguments of a pass of the network for ``n_inputs`` examples, and their labels, int64 [n_inputs] or None."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    n_inputs: int
    labels: np.ndarray | None

    def tensors(self) -> Iterator[Tensor]:
        """All tensors in the arguments."""
        return _tensors_in((self.args, self.kwargs))

    def described(self) -> str:
        """The arguments, for messages."""
        given = [_kind(value) for value in self.args]
        given += [f"{name} = {_kind(value)}" for name, value in self.kwargs.items()]
        return ", ".join(given)


class BatchReader:
    """Takes batches apart.

    Parameters
    ----------
    model : nn.Module
        The network, whose ``forward`` says what it takes.
    device : torch.device or str
    inputs : str, int, sequence of them, or callable, optional
    labels : str, int, callable or False, optional
    """

    def __init__(self, model: nn.Module, device: torch.device | str, inputs: Inputs, labels: Labels) -> None:
        keys = inputs if isinstance(inputs, Sequence) and not isinstance(inputs, str) else (inputs,)
        if not (inputs is None or callable(inputs) or (keys and all(map(_is_key, keys)))):
            raise ValueError(
                f"inputs is {inputs!r}, but it must be a key or index of a part of a batch, several of them, or a "
                "function of a batch."
            )
        if not (labels is None or labels is False or callable(labels) or _is_key(labels)):
            raise ValueError(
                f"labels is {labels!r}, but it must be the key or index of a part of a batch, a function of a batch, "
                "or False."
            )
        self._device, self._dtype = device, model_dtype(model)
        self._inputs, self._labels = inputs, labels
        self._forward = _Signature.of(unwrapped(model))

    def __call__(self, batch: Any) -> Batch:
        """Take one batch apart, and move the arguments to the device.

        Raises
        ------
        TypeError, ValueError
            If it cannot be told what the network takes of the batch, or what the labels are.
        """
        args, kwargs, rest = self._arguments(batch)
        if not self._forward.fits(args, kwargs):
            given = Batch(args, kwargs, 0, None).described() or "nothing"
            raise TypeError(
                f"the loader yielded {_kind(batch)}, of which the model would be given {given}, "
                f"but it takes {self._forward.names()}: pass as inputs the keys or indices of these, or a function of "
                "a batch."
            )
        # Inference tensors, which a caller in inference mode may yield, would resist layers that work in place.
        with torch.inference_mode(False):
            args, kwargs = tuple(map(self._moved, args)), {name: self._moved(value) for name, value in kwargs.items()}
        n_inputs = next((n for n in map(_n_examples, (*args, *kwargs.values())) if n is not None), None)
        if n_inputs is None:
            raise TypeError(
                f"the loader yielded {_kind(batch)}, in which there is no tensor of inputs: a batch is a tensor of "
                "inputs, a tuple (inputs, labels) or a dict; or pass as inputs a function of a batch that makes what "
                "the model takes."
            )
        return Batch(args, kwargs, n_inputs, self._read_labels(batch, rest, n_inputs))

    def _arguments(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
        """Arguments by position and by name, and what is left, in which the labels are."""
        is_tuple = isinstance(batch, tuple | list) and not isinstance(batch, PackedSequence)
        if callable(self._inputs):
            made = self._inputs(batch)
            rest = batch[1:] if is_tuple else batch
            if isinstance(made, Mapping):
                return (), dict(made), rest
            return (tuple(made) if _is_plain_tuple(made) else (made,)), {}, rest
        if self._inputs is not None:
            keys = [self._inputs] if isinstance(self._inputs, str | int) else list(self._inputs)
            if is_tuple:
                taken = {key % len(batch) for key in keys if isinstance(key, int) and batch}
                return *self._chosen(batch, keys), [part for at, part in enumerate(batch) if at not in taken]
            return *self._chosen(batch, keys), batch
        if isinstance(batch, Mapping):
            return *self._of_mapping(batch), batch
        if not is_tuple or not batch:
            return (batch,), {}, None
        if isinstance(batch[0], Mapping):
            # Labels may lie beside the dict, or in it.
            beside = any(_label(part) is not None for part in batch[1:])
            return *self._of_mapping(batch[0]), batch[1:] if beside else batch[0]
        n = max(len(self._forward.required), 1)
        if not all(map(_is_input, batch[:n])):
            raise TypeError(
                f"the loader yielded {_kind(batch)}, but the model takes {self._forward.names()}: pass as inputs the "
                "indices of tensors for these, or a function of a batch."
            )
        return tuple(batch[:n]), {}, batch[n:]

    def _chosen(self, batch: Any, keys: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        parts = [_part(batch, key, "inputs") for key in keys]
        if len(parts) == 1:
            return ((), dict(parts[0])) if isinstance(parts[0], Mapping) else (tuple(parts), {})
        if all(isinstance(key, str) and self._forward.takes(key) for key in keys):
            return (), dict(zip(keys, parts, strict=True))
        return tuple(parts), {}

    def _of_mapping(self, batch: Mapping[Any, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The entries that the network takes by name; or else the only input, by position."""
        forward = self._forward
        entries = {
            key: value for key, value in batch.items() if key not in (*_LABELS, self._labels) or key in forward.required
        }
        numbers = {key: value for key, value in entries.items() if _has_numbers(value)}
        named = {key: value for key, value in entries.items() if key in forward.by_name}
        # Names that nothing speaks for would be lost among the others, or raise deep inside.
        if forward.takes_any_name and (named or not forward.by_name):
            named |= {key: value for key, value in numbers.items() if isinstance(key, str)}
        missing = [name for name in forward.required if name not in named]
        if named and not missing:
            return (), named
        if not named and len(forward.required) <= 1:
            # An index of the examples, [B], is no input beside images or tokens.
            several = [value for value in numbers.values() if getattr(value, "ndim", 2) > 1]
            only = list(numbers.values()) if len(numbers) == 1 else several
            if len(only) == 1:
                return (only[0],), {}
        raise TypeError(
            f"the loader yielded {_kind(batch)}, but the model takes {forward.names()}: pass as inputs the keys of "
            "these, or a function of a batch."
        )

    def _moved(self, value: Any) -> Any:
        """A copy of the value, on the device, with floating-point numbers in the type of the model.

        A copy, because a layer that works in place must not change what belongs to the loader.
        """
        if isinstance(value, np.ndarray) and _has_numbers(value):
            value = as_tensor(value, "the batch")
        if isinstance(value, Tensor):
            dtype = self._dtype if value.is_floating_point() and self._dtype is not None else value.dtype
            return value.detach().to(self._device, dtype, copy=True)
        if isinstance(value, Mapping):
            return {key: self._moved(part) for key, part in value.items()}
        if _is_plain_tuple(value):
            return type(value)(map(self._moved, value))
        if isinstance(value, tuple) and not isinstance(value, PackedSequence):
            return type(value)(*map(self._moved, value))
        return value.to(self._device) if callable(getattr(value, "to", None)) else value

    def _read_labels(self, batch: Any, rest: Any, n_inputs: int) -> np.ndarray | None:
        if self._labels is False:
            return None
        if callable(self._labels):
            return _checked_labels(self._labels(batch), n_inputs)
        if self._labels is not None:
            return _checked_labels(_part(batch, self._labels, "labels"), n_inputs)
        parts = parts_of(rest)
        found = [key for key, value in parts.items() if _label(value) is not None]
        if not isinstance(rest, tuple | list):
            found = [key for key in found if key in _LABELS]
        # After the inputs come the labels, and then whatever else there is.
        if len(found) > 1 and not (self._inputs is None and isinstance(rest, tuple | list)):
            raise ValueError(
                f"the loader yielded {_kind(batch)}, in which several parts may be labels: say by labels= where they "
                "are, or pass labels=False to do without."
            )
        return _checked_labels(parts[found[0]], n_inputs) if found else None


class _Signature(NamedTuple):
    """What the ``forward`` of a network takes: required arguments, all that have a name, and whether any name is."""

    required: tuple[str, ...]
    by_name: tuple[str, ...]
    takes_any_name: bool
    whole: inspect.Signature | None

    @classmethod
    def of(cls, model: nn.Module) -> _Signature:
        try:
            whole = inspect.signature(model.forward)
        except (TypeError, ValueError):
            # Compiled code does not tell.
            return cls((), (), False, None)
        parameters = list(whole.parameters.values())
        required = tuple(p.name for p in parameters if p.default is p.empty and p.kind in (*_POSITIONAL, *_BY_NAME))
        by_name = tuple(p.name for p in parameters if p.kind in _BY_NAME)
        return cls(required, by_name, any(p.kind is p.VAR_KEYWORD for p in parameters), whole)

    def fits(self, args: tuple[Any, ...], kwargs: Mapping[Any, Any]) -> bool:
        """Whether the network can be called with these arguments."""
        if self.whole is None:
            return True
        try:
            self.whole.bind(*args, **kwargs)
        except TypeError:
            return False
        return True

    def takes(self, name: str) -> bool:
        """Whether there is an argument of the name."""
        return self.takes_any_name or name in self.by_name

    def names(self) -> str:
        """Required arguments, or else all of them, for messages."""
        return ", ".join(map(repr, self.required or self.by_name)) or "arguments without names"


def _is_key(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_input(value: Any) -> bool:
    """A tensor, or several of them in a plain container."""
    if isinstance(value, tuple | list) and not isinstance(value, PackedSequence):
        return bool(value) and all(isinstance(part, Tensor) for part in value)
    return _has_numbers(value)


def _is_plain_tuple(value: Any) -> bool:
    return isinstance(value, tuple | list) and (type(value) in (tuple, list) or not hasattr(value, "_fields"))


def _has_numbers(value: Any) -> bool:
    """Whether a tensor or an array of numbers, or something that holds them."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    if isinstance(value, Tensor | PackedSequence):
        return True
    return isinstance(value, Mapping | tuple | list) and any(map(_has_numbers, parts_of(value).values()))


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for part in parts_of(value).values():
            yield from _tensors_in(part)


def _n_examples(value: Any) -> int | None:
    """Length of the first tensor in a value, or of a list of tensors, which are one example each."""
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0])
    if isinstance(value, Tensor):
        return len(value) if value.ndim else None
    if isinstance(value, list) and value and all(isinstance(part, Tensor) for part in value):
        return len(value)
    if isinstance(value, Mapping | tuple | list):
        return next((n for n in map(_n_examples, parts_of(value).values()) if n is not None), None)
    return None


def _part(batch: Any, key: str | int, option: str) -> Any:
    parts = parts_of(batch)
    if key in parts:
        return parts[key]
    if isinstance(key, str) and not isinstance(batch, Mapping) and hasattr(batch, key):
        return getattr(batch, key)
    if isinstance(key, int) and isinstance(batch, tuple | list) and -len(batch) <= key < len(batch):
        return batch[key]
    raise ValueError(f"{option} is {key!r}, but the loader yielded {_kind(batch)}: pass a key or index that is there.")


def _label(value: Any) -> Any:
    """What may be labels, that is, neither text nor nothing; or None."""
    if isinstance(value, str | bytes) or value is None or (isinstance(value, np.ndarray) and value.dtype.kind in "SUO"):
        return None
    if isinstance(value, Mapping | tuple | list) and all(_label(part) is None for part in parts_of(value).values()):
        return None
    return value


def _checked_labels(found: Any, n_inputs: int) -> np.ndarray:
    try:
        if not isinstance(found, Tensor):
            found = as_tensor(found, "labels")
    except (TypeError, ValueError):
        raise TypeError(
            f"the loader yielded {_kind(found)} in the place of labels, but labels are one integer per input: say by "
            "labels= where they are, or pass labels=False to do without."
        ) from None
    labels: Tensor = found
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (n_inputs,) or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"the loader yielded labels of shape {tuple(labels.shape)} and dtype {labels.dtype} for "
            f"{n_inputs} inputs: labels are one integer per input; pass labels=False to do without, or say by labels= "
            "where they are."
        )
    return labels.detach().cpu().long().numpy()


def _kind(value: Any) -> str:
    """The type of a batch, with those of its parts, for messages."""
    if isinstance(value, Tensor):
        return f"{type(value).__name__} {list(value.shape)} of {value.dtype}"
    name = type(value).__name__
    if isinstance(value, Mapping):
        return f"{name} of {', '.join(f'{key!r} ({type(part).__name__})' for key, part in value.items())}"
    if isinstance(value, tuple | list):
        kinds = [type(part).__name__ for part in value[:4]] + ["..."] * (len(value) > 4)
        return f"{name} of {', '.join(kinds) or 'nothing'}"
    return name
