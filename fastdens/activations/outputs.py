"""One tensor of what a layer puts out, and one vector an example of the tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fastdens.kernels.options import check_choice

Key = str | int
Part = Key | tuple[Key, ...] | Callable[[Any], Any] | None
Pool = str | Callable[[Tensor], Tensor]

TOKENS = ("all", "class", "patches")
# What networks call the parameter that is the class token.
_CLASS_TOKENS = ("class_token", "cls_token", "class_embedding")

# Modules of torch that put out [tokens, batch, channels] unless they are told otherwise.
_SEQUENCE = (
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.Transformer,
)
# The part that a network computes, among those that it derives from it.
_MAIN = "last_hidden_state"


def choose_part(output: Any, part: Part, owner: str) -> Tensor:
    """The tensor of an output that ``part`` names; of a tensor it is the tensor, whatever the name.

    Raises
    ------
    ValueError
        If there is no such part, or if it holds several tensors.
    """
    if callable(part):
        output = part(output)
    elif part is not None and not isinstance(output, Tensor):
        for key in part if isinstance(part, tuple) else (part,):
            output = _get(output, key, owner)
    tensor = only_tensor(output)
    if tensor is not None:
        return tensor
    parts = parts_of(output)
    if not any(map(_holds_tensors, parts.values())) or isinstance(output, PackedSequence):
        raise ValueError(
            f"{owner} gives {type(output).__name__}, not a tensor: choose another module, or pass as output a function "
            "that makes a tensor of it."
        )
    example = next(key for key, value in parts.items() if _holds_tensors(value))
    raise ValueError(
        f"{owner} gives {type(output).__name__} of {_describe(parts)}: say which part to keep, by output={example!r}, "
        "for example."
    )


def only_tensor(output: Any) -> Tensor | None:
    """The tensor that is meant by an output where nobody said which; None where that is not plain.

    It is the tensor itself; the first element of a tuple or list; the only tensor of a dict, a dataclass or another
    object, losses left aside; ``last_hidden_state`` if there is one.

    Parameters
    ----------
    output : object
        What a module returned.

    Returns
    -------
    Tensor or None
        A part of the output, or the output itself.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> fd.activations.only_tensor({"loss": torch.tensor(0.5), "logits": torch.zeros(2, 10)}).shape
    torch.Size([2, 10])
    """
    if isinstance(output, Tensor):
        return output
    parts = parts_of(output)
    if not parts or isinstance(output, PackedSequence):
        return None
    if isinstance(output, Sequence) and _holds_tensors(parts[0]):
        return only_tensor(parts[0])
    holding = [value for value in parts.values() if _holds_tensors(value)]
    tensors = [value for value in holding if isinstance(value, Tensor)]
    if len(tensors) == 1:
        return tensors[0]
    if len(holding) == 1:
        return only_tensor(holding[0])
    main = parts.get(_MAIN)
    return main if isinstance(main, Tensor) else None


def parts_of(value: Any) -> dict[Any, Any]:
    """The parts of a container, or of an object with attributes, by key, index or name; empty for anything else."""
    if isinstance(value, Mapping):
        return dict(value.items())
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    if isinstance(value, type) or callable(value):
        return {}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    return {name: part for name, part in getattr(value, "__dict__", {}).items() if not name.startswith("_")}


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim > 0
    if isinstance(value, Mapping | tuple | list) or is_dataclass(value):
        return any(_holds_tensors(part) for part in parts_of(value).values())
    return False


def _get(output: Any, key: Key, owner: str) -> Any:
    parts = parts_of(output)
    if key in parts:
        return parts[key]
    if isinstance(key, str):
        # A field of a named tuple, or a property.
        if not isinstance(output, Mapping) and hasattr(output, key):
            return getattr(output, key)
    elif isinstance(key, int) and -len(parts) <= key < len(parts):
        return list(parts.values())[key]
    raise ValueError(
        f"{owner} gives {type(output).__name__} of {_describe(parts) or 'no parts'}, in which there is no {key!r}: "
        "pass one of these as output."
    )


def _describe(parts: Mapping[Any, Any]) -> str:
    def kind(value: Any) -> str:
        return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__

    return ", ".join(f"{key!r} ({kind(value)})" for key, value in parts.items())


class Pooling:
    """Pools what one layer puts out to [B, D], float32, in memory that nothing else writes to.

    Parameters
    ----------
    layer : str
    module : nn.Module
        The layer itself.
    pool : {"avg", "max", "flatten"} or callable
    tokens : slice
        Which tokens of an output [batch, tokens, channels] to pool.
    sequence_first : bool
        Whether some layers of the network may put out [tokens, batch, channels].
    """

    def __init__(self, layer: str, module: nn.Module, pool: Pool, tokens: slice, *, sequence_first: bool) -> None:
        self.owner = f"layer {layer!r}"
        self._pool = pool
        self._tokens = tokens
        self._sequence_first = sequence_first
        # The batch axis of [tokens, batch, channels] or [batch, tokens, channels] once it is known.
        self._batch_axis = 1 if isinstance(module, _SEQUENCE) and not _is_batch_first(module) else None

    def __call__(self, output: Tensor, n_inputs: int) -> Tensor:
        """Pool an output for ``n_inputs`` inputs."""
        output = output.detach()
        if output.is_complex() or (output.is_nested and self._pool == "flatten"):
            kind = "complex numbers" if output.is_complex() else "examples of different lengths"
            raise ValueError(
                f"{self.owner} gives {kind}, but activations are real vectors of one length: pass as output a function "
                "that makes a plain tensor of real numbers of it."
            )
        if output.is_quantized:
            output = output.dequantize()
        if output.is_nested and not callable(self._pool):
            # One tensor [tokens, channels] for each example.
            output = torch.stack([self._over_positions(own[None], 1)[0] for own in output.unbind()])
        pooled = self._pool(output) if callable(self._pool) else self._over_positions(output, n_inputs)
        if (
            not isinstance(pooled, Tensor)
            or pooled.is_nested
            or pooled.ndim != 2
            or len(pooled) != n_inputs
            or pooled.is_complex()
        ):
            to = list(pooled.shape) if isinstance(pooled, Tensor) else type(pooled).__name__
            raise ValueError(
                f"{self.owner} gives {tuple(output.shape)} for {n_inputs} inputs, pooled to {to}: pass "
                f"a function as pool that makes [{n_inputs}, D] of it."
            )
        return pooled.detach().to(torch.float32, copy=True)

    def _over_positions(self, output: Tensor, n_inputs: int) -> Tensor:
        if output.ndim <= 1:
            return output[:, None] if output.ndim else output
        if output.ndim == 3 and self._find_batch_axis(output, n_inputs) == 1:
            output = output.transpose(0, 1)
        if self._tokens != slice(None):
            if output.ndim != 3 or output[:, self._tokens].shape[1] == 0:
                raise ValueError(
                    f"{self.owner} gives {tuple(output.shape)}, which has no such tokens: pass tokens='all', or layers "
                    "that give [batch, tokens, channels]."
                )
            output = output[:, self._tokens]
        if self._pool == "flatten":
            return output.flatten(1)
        if output.ndim == 2:
            return output
        positions = 1 if output.ndim == 3 else tuple(range(2, output.ndim))
        if output.dtype != torch.float64:
            # Half precision is summed in float32.
            output = output.float()
        return output.mean(positions) if self._pool == "avg" else output.amax(positions)

    def _find_batch_axis(self, output: Tensor, n_inputs: int) -> int:
        """The batch axis of an output of three axes: by length, in networks where it need not be the first."""
        fits = [axis for axis in (0, 1) if output.shape[axis] == n_inputs]
        if self._batch_axis is None and self._sequence_first:
            if len(fits) == 2 and n_inputs > 1:
                raise ValueError(
                    f"{self.owner} gives {tuple(output.shape)} for {n_inputs} inputs, and which of the two axes counts "
                    "the inputs cannot be told: choose another batch size, or pass a function as pool."
                )
            if len(fits) == 1:
                self._batch_axis = fits[0]
        return self._batch_axis or 0


def check_pool(pool: Pool) -> None:
    """Raise a ValueError unless ``pool`` is a name or a function."""
    if not callable(pool) and pool not in ("avg", "max", "flatten"):
        raise ValueError(f"pool is {pool!r}, but it must be 'avg', 'max', 'flatten' or a function of a layer's output.")


def choose_tokens(model: nn.Module, tokens: str, pool: Pool) -> slice:
    """The tokens of a network's outputs that are meant: all, the class token, or those after it.

    Raises
    ------
    ValueError
        If there is no such choice, ``pool`` is a function, which chooses for itself, or the network has no class token.
    """
    check_choice("tokens", tokens, TOKENS)
    if tokens == "all":
        return slice(None)
    if callable(pool):
        raise ValueError(f"tokens is {tokens!r}, but pool is a function, which gets all of them: leave tokens out.")
    names = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    if not names & set(_CLASS_TOKENS):
        raise ValueError(f"tokens is {tokens!r}, but {type(model).__name__} has no class token: pass tokens='all'.")
    # timm's networks say how many tokens come before those of the patches.
    return slice(0, 1) if tokens == "class" else slice(int(getattr(model, "num_prefix_tokens", 1)), None)


def _is_batch_first(module: nn.Module) -> bool:
    return all(getattr(part, "batch_first", True) is not False for part in module.modules())


def may_be_sequence_first(model: nn.Module) -> bool:
    """Whether a network has layers whose second axis is that of the batch, in outputs or in states."""
    return not _is_batch_first(model) or any(isinstance(module, nn.RNNBase) for module in model.modules())
