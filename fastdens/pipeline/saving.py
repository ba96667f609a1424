"""A tree of frozen dataclasses in a folder, or in one file: arrays by their path as safetensors, the rest as JSON.

The types of the fields say how to read it back; nothing in the files names a class or runs code.
"""

from __future__ import annotations

import hashlib
import json
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from fastdens.io.atomic import atomic_write
from fastdens.io.state_file import SavedState, StateFile, fingerprint, read_state, write_state

FORMAT_VERSION = 3

_TREE, _ARRAYS = "analysis.json", "arrays.safetensors"
_KIND = "analysis"
# The entry of a state file's metadata that holds a tree.
_CONTENT = "content"
# Keys of the objects that stand in JSON for an array, by its path, and for NaN and infinity.
_ARRAY, _NON_FINITE = "$array", "$float"

T = TypeVar("T")

Upgrade = Callable[[dict[str, Any], int], dict[str, Any]]
"""Makes the fields of a dataclass of those that a file of some format version has."""


def save_tree(tree: object, folder: Path, *, overwrite: bool) -> None:
    """Write a dataclass to a folder, which appears under its name whole or not at all.

    Parameters
    ----------
    tree : dataclass
        Its fields are dataclasses, named tuples, mappings with keys of str, tuples, lists, arrays and tensors of
        bools, integers and floats, numbers, strings and None, nested at will.
    folder : Path
    overwrite : bool
        Replace a folder of this name.

    Raises
    ------
    TypeError
        If the tree holds a value of another type.
    FileExistsError
        If the folder exists and ``overwrite`` is False.
    """
    arrays: dict[str, Tensor] = {}
    content = {"format": FORMAT_VERSION, "type": type(tree).__name__, "content": _encode(tree, "", arrays)}
    # So that no other arrays can take the place of these.
    content["arrays"] = fingerprint(arrays.values())
    text = json.dumps(content, indent=1, allow_nan=False)
    with atomic_write(folder, overwrite=overwrite) as partial:
        partial.mkdir()
        (partial / _TREE).write_text(text, encoding="utf-8")
        write_state(partial / _ARRAYS, _KIND, arrays, {_TREE: _digest(text)}, overwrite=False)


def load_tree(cls: type[T], folder: Path, upgrades: Mapping[str, Upgrade] = MappingProxyType({})) -> T:
    """Read a dataclass that :func:`save_tree` wrote.

    Parameters
    ----------
    cls : type
    folder : Path
    upgrades : mapping of str to callable
        By name of a dataclass: its fields of today from those that it has in the file, and the file's format version.

    Raises
    ------
    FileNotFoundError
        If one of the two files is missing.
    ValueError
        If they are damaged, do not belong together, hold another type, or were written by a newer version.
    """
    file = folder / _TREE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no {_TREE}: pass the folder of a saved analysis.")
    text = file.read_bytes().decode("utf-8", "replace")
    try:
        tree = json.loads(text)
        version, name, content = int(tree["format"]), tree["type"], tree["content"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ValueError(f"{file} is damaged or not of a saved analysis: save the analysis again.") from None
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{file} has format version {version} and this fastdens reads up to {FORMAT_VERSION}: upgrade fastdens."
        )
    arrays, facts = read_state(folder / _ARRAYS, _KIND)
    if facts.get(_TREE) != _digest(text):
        raise ValueError(f"{file} is damaged, or not what was saved with {_ARRAYS} beside it: save the analysis again.")
    try:
        if name != cls.__name__:
            raise ValueError(f"it is a {name}, not a {cls.__name__}")
        found: T = _Reader(arrays, upgrades, version).decode(cls, content)
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        raise ValueError(f"{file} does not hold what this fastdens saves ({error}): save the analysis again.") from None
    return found


def state_of_tree(tree: object) -> SavedState:
    """A dataclass as arrays and metadata, for one file or to be sent; errors as of :func:`save_tree`."""
    arrays: dict[str, Tensor] = {}
    content = _encode(tree, "", arrays)
    return SavedState(arrays, {_CONTENT: content})


def tree_of_state(cls: type[T], state: SavedState) -> T:
    """The dataclass that :func:`state_of_tree` of this version made a state of.

    Raises
    ------
    ValueError
        If the state is of another type.
    """
    try:
        found: T = _Reader(state.tensors, {}, FORMAT_VERSION).decode(cls, state.metadata[_CONTENT])
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError(f"it does not hold a {cls.__name__} ({error})") from None
    return found


def write_tree(tree: object, file: StateFile) -> None:
    """Write a dataclass to one file, over an earlier one; errors as of :func:`save_tree`."""
    file.write(*state_of_tree(tree))


def read_tree(cls: type[T], file: StateFile) -> T:
    """Read a dataclass that :func:`write_tree` of this version wrote.

    Raises
    ------
    ValueError
        If the file is damaged, of another computation, or holds another type.
    """
    state = file.read()
    try:
        return tree_of_state(cls, state)
    except ValueError as error:
        raise ValueError(f"{file.path} cannot be used, {error}: {file.remedy}.") from None


def fingerprint_of_tree(tree: object) -> str:
    """A hexadecimal digest of everything in a tree that :func:`save_tree` could save."""
    arrays: dict[str, Tensor] = {}
    text = json.dumps(_encode(tree, "", arrays))
    return _digest(text + fingerprint(arrays.values()))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _encode(value: Any, path: str, arrays: dict[str, Tensor]) -> Any:
    """A value in types of JSON; its arrays go to ``arrays`` under their paths."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.array(value))
    if isinstance(value, Tensor):
        arrays[path] = value
        return {_ARRAY: path}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {_NON_FINITE: repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    children = _children(value)
    if children is None:
        raise TypeError(
            f"{path} is {type(value).__name__}, which a saved analysis cannot hold: convert it to an array."
        )
    for name in children:
        if not isinstance(name, str) or name in (_ARRAY, _NON_FINITE):
            raise TypeError(f"{path} has the key {name!r}, but keys of a saved analysis are other strings: rename it.")
    # A quoted name has no slash, so that no two parts share a path.
    encoded = {
        name: _encode(child, f"{path}/{quote(name, safe=' ')}".lstrip("/"), arrays) for name, child in children.items()
    }
    return list(encoded.values()) if isinstance(value, tuple | list) and not hasattr(value, "_fields") else encoded


def _children(value: Any) -> dict[str, Any] | None:
    """The parts of a value by name, None if it has none."""
    if is_dataclass(value):
        return {own.name: getattr(value, own.name) for own in fields(value)}
    if hasattr(value, "_asdict"):
        return dict(value._asdict())
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | list):
        return {str(position): part for position, part in enumerate(value)}
    return None


@dataclass(frozen=True)
class _Reader:
    """Reads what :func:`_encode` wrote, with its arrays, in a file of some format version."""

    arrays: Mapping[str, Tensor]
    upgrades: Mapping[str, Upgrade]
    version: int

    def decode(self, hint: Any, value: Any) -> Any:
        """The value of type ``hint`` that was written as ``value``."""
        if isinstance(value, dict) and value.keys() == {_ARRAY}:
            array = self.arrays[value[_ARRAY]]
            return array if hint is Tensor else array.numpy()
        if isinstance(value, dict) and value.keys() == {_NON_FINITE}:
            return float(value[_NON_FINITE])
        origin, parameters = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            if value is None:
                return None
            return self.decode(next(own for own in parameters if own is not types.NoneType), value)
        # Of a generic type, such as Interval[float], the type itself.
        cls = hint if origin is None else origin
        if is_dataclass(cls) or hasattr(cls, "_fields"):
            hints = get_type_hints(cls)
            # Fields that there are no more have no type.
            parts = {name: self.decode(hints.get(name, Any), part) for name, part in value.items()}
            upgrade = self.upgrades.get(cls.__name__)
            return cls(**parts if upgrade is None else upgrade(parts, self.version))
        if isinstance(value, dict):
            of_values = parameters[1] if len(parameters) == 2 else Any
            return {name: self.decode(of_values, part) for name, part in value.items()}
        if isinstance(value, list):
            # A tuple of one type, as tuple[X, ...]; lists become tuples too.
            return tuple(self.decode(parameters[0] if parameters else Any, part) for part in value)
        return value
