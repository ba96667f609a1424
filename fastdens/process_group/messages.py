"""States as bytes: tensors one after the other, and a header of JSON that says what they are."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from fastdens.io.state_file import SavedState

# Tensors begin at multiples of the widest number.
_ALIGNMENT = 8


def pack(state: SavedState) -> tuple[Tensor, Tensor]:
    """Header and content of a state, uint8 on the CPU.

    Parameters
    ----------
    state : SavedState
        Tensors of any shape, dtype and device; metadata that JSON holds.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    shapes = {name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in tensors.items()}
    header = json.dumps({"metadata": state.metadata, "tensors": shapes}).encode()
    content = torch.zeros(sum(_padded(t.nbytes) for t in tensors.values()), dtype=torch.uint8, device="cpu")
    at = 0
    for tensor in tensors.values():
        content[at : at + tensor.nbytes] = tensor.reshape(-1).view(torch.uint8)
        at += _padded(tensor.nbytes)
    return torch.frombuffer(bytearray(header), dtype=torch.uint8), content


def unpack(header: Tensor, content: Tensor) -> SavedState:
    """The state of a header and a content that :func:`pack` made; its tensors lie in the content."""
    described = json.loads(header.numpy().tobytes())
    tensors, at = {}, 0
    for name, (dtype_name, shape) in described["tensors"].items():
        dtype: torch.dtype = getattr(torch, dtype_name)
        n_bytes = math.prod(shape) * dtype.itemsize
        tensors[name] = content[at : at + n_bytes].view(dtype).reshape(shape)
        at += _padded(n_bytes)
    metadata: dict[str, Any] = described["metadata"]
    return SavedState(tensors, metadata)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
