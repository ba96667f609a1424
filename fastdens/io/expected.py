"""What the tensors of a state must be, said as a table: a file with others is refused before anything computes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_SIZE = re.compile(r"([A-Z]?)(?:\+?([0-9]+))?")


def check_tensors(
    where: str, tensors: Mapping[str, Tensor], expected: Mapping[str, str], **lengths: int
) -> dict[str, int]:
    """Check that tensors are there, of their kinds and shapes.

    Parameters
    ----------
    where : str
        Names them in messages: the path of their file.
    tensors : mapping of str to Tensor
    expected : mapping of str to str
        By name, the kind of number and the lengths of the axes: ``"float M K D"``, ``"int M+1"``, ``"bool 3"``. A
        letter stands for the same length everywhere.
    **lengths : int
        Those that are known.

    Returns
    -------
    dict of str to int
        The length that each letter stands for.

    Raises
    ------
    ValueError
        If a tensor is missing or is another one.
    """
    for name, description in expected.items():
        if name not in tensors:
            raise ValueError(f"{where} has no tensor {name!r}: write it again.")
        tensor, (kind, *axes) = tensors[name], description.split()
        if kind != kind_of_numbers(tensor.dtype) or not _fits(tuple(tensor.shape), axes, lengths):
            raise ValueError(
                f"{where} has {name!r} as {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}, but it is "
                f"{description} with {lengths}: write it again."
            )
    return lengths


def check_indices(where: str, tensors: Mapping[str, Tensor], names: Iterable[str], n: int) -> None:
    """Raise a ValueError unless tensors of some names hold integers from 0 to n - 1 alone."""
    for name in (name for name in names if tensors[name].numel()):
        low, high = int(tensors[name].min()), int(tensors[name].max())
        if low < 0 or high >= n:
            raise ValueError(
                f"{where} has numbers from {low} to {high} in {name!r}, but they are indices under {n}: write it again."
            )


def kind_of_numbers(dtype: torch.dtype) -> str:
    """Float and int, of 32 or 64 bits, bool, or the name of any other dtype."""
    kinds = {torch.float32: "float", torch.float64: "float", torch.int32: "int", torch.int64: "int"}
    return kinds.get(dtype, str(dtype).removeprefix("torch."))


def _fits(shape: tuple[int, ...], axes: list[str], lengths: dict[str, int]) -> bool:
    """Whether a shape has these axes; lengths of letters that are met first are noted."""
    if len(shape) != len(axes):
        return False
    for length, axis in zip(shape, axes, strict=True):
        match = _SIZE.fullmatch(axis)
        assert match is not None, axis
        letter, more = match[1], int(match[2] or 0)
        if length - more < 0 or length - more != (lengths.setdefault(letter, length - more) if letter else 0):
            return False
    return True
