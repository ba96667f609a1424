"""Pickles of arrays, read without Python's own reader: nothing that a file names is imported or called.

A pickle is a program for a small stack machine. This module is such a machine, in which a file can make numbers, text,
bytes, lists, tuples, dicts and numpy arrays of these, and nothing else: the globals that numpy writes to restore its
arrays are names to it (:data:`GLOBALS`), which it answers with code of its own, and every other global and every
instruction for objects of classes is refused. It reads what Python 3 writes in protocols 0 to 5 and Python 2 in its
binary ones, with numpy 1 or 2.
"""

from __future__ import annotations

import math
import mmap
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastdens.io.arrays import check_file

# Bounds for hostile files: 50,000 arrays take a million instructions, and a byte of a file becomes at most a reference.
MOST_INSTRUCTIONS = 10_000_000
"""Instructions of a pickle, at most."""
_BYTES_PER_BYTE, _FREE_BYTES = 16, 1 << 16
MOST_MEMORY_PER_BYTE = 120
"""Bytes of memory that a byte of a file takes, at most, beside the first 64 KiB: an empty dict is one byte long."""
LONGEST_NAME = 1000
"""Characters of a name among labels, at most."""
MOST_NAME_BYTES = 1 << 30
"""Bytes of an array of names, at most: each takes the space of the longest."""

_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f2|f4|f8|f16|c8|c16|c32|[SU][0-9]{1,9}|O8?)")

_NDARRAY, _DTYPE_CLASS, _RECONSTRUCT, _SCALAR, _FROM_BUFFER, _ENCODE, _BYTES = range(7)
GLOBALS = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE_CLASS,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy._core.multiarray", "scalar"): _SCALAR,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    # How protocols before 3 write bytes: text encoded as latin1, and nothing at all.
    ("_codecs", "encode"): _ENCODE,
    ("__builtin__", "bytes"): _BYTES,
    ("builtins", "bytes"): _BYTES,
}
"""Module and name of the globals that a pickle may name."""


class PickleError(ValueError):
    """Python objects in a file that are not read."""


class _RefusedError(Exception):
    """What a pickle asked for and does not get."""


class _Global:
    """A global that the file named, which stands for itself alone."""

    def __init__(self, which: int) -> None:
        self.which = which


class _DType:
    """A dtype whose byte order an instruction after its making sets."""

    def __init__(self, value: np.dtype[Any]) -> None:
        self.value = value


def read_pickle(path: Path) -> Any:
    """What a file of Python's pickle format holds, if that is numbers, text, containers and numpy arrays.

    Parameters
    ----------
    path : Path

    Returns
    -------
    object
        None, bool, int, float, str, bytes, list, tuple, dict, numpy array or scalar, nested as in the file. Text of
        Python 2 is str.

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    PickleError
        If it is damaged, or asks for anything else; nothing has run then.
    """
    check_file(path, "a pickle of arrays")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return unpickle(content, len(content), str(path))


def read_pickled_dict(path: Path) -> dict[str, Any]:
    """The entries of a pickled dict; its keys, which Python 2 may have written as bytes, as text.

    Raises
    ------
    OSError, PickleError
        As :func:`read_pickle`, and if it does not hold a dict.
    """
    found = read_pickle(path)
    if not isinstance(found, dict):
        raise PickleError(f"{path} holds {type(found).__name__}, not a dict of arrays: pickle a dict.")
    return text_keys(found)


def text_keys(entries: dict[Any, Any]) -> dict[str, Any]:
    """The entries of a dict whose keys are text or, as Python 2 may have written them, bytes."""
    named = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in entries.items()}
    return {key: value for key, value in named.items() if isinstance(key, str)}


def unpickle(stream: BinaryIO | mmap.mmap, n_bytes: int, place: str) -> Any:
    """What a pickle of ``n_bytes`` bytes holds; ``place`` names it in messages. As :func:`read_pickle`."""
    try:
        return _Machine(n_bytes).run(stream)
    except _RefusedError as refused:
        raise PickleError(
            f"{place} asks for {refused}, but only arrays, numbers, text and containers of them are read: write it "
            "again with these alone."
        ) from None
    # Damage shows as an error of any kind, whichever instruction it hits.
    except Exception as error:
        reason = " ".join(ascii(str(error)).strip("'\"").split())[:100].partition(". ")[0].rstrip(".")
        raise PickleError(
            f"{place} is no whole pickle of arrays, it is damaged or cut off ({type(error).__name__}: {reason}): copy "
            "or write it again."
        ) from None


def flat_array(value: Any, place: str) -> NDArray[Any]:
    """An array [N] of numbers or text, of an array, a list or a tuple; the dtype is the one that numpy finds.

    Raises
    ------
    PickleError
        If the value is another object, or holds other objects.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return value
    items = value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value
    if not isinstance(items, list | tuple) or not all(map(_is_scalar, items)):
        raise PickleError(f"{place} is no list of numbers or names: write an array, shape [N].")
    if not all(_fits_64_bits(item) for item in items):
        raise PickleError(f"{place} has integers of more than 64 bits: write numbers or names.")
    # A short file may name a long name again and again.
    n_bytes = 4 * len(items) * max((len(item) for item in items if isinstance(item, str | bytes)), default=0)
    if n_bytes > MOST_NAME_BYTES:
        raise PickleError(f"{place} would take {n_bytes:,} bytes as an array of names: write integers or short names.")
    return np.array(items)


def _is_scalar(value: Any) -> bool:
    # numpy gives each text the space of the longest.
    return len(value) <= LONGEST_NAME if isinstance(value, str | bytes) else isinstance(value, int | float | np.generic)


def _fits_64_bits(value: Any) -> bool:
    return not isinstance(value, int) or -(1 << 63) <= value < 1 << 64


class _Machine:
    """The stack machine, for a pickle of ``n_bytes`` bytes."""

    def __init__(self, n_bytes: int) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._left = _BYTES_PER_BYTE * n_bytes + _FREE_BYTES

    def run(self, stream: BinaryIO | mmap.mmap) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
            if count >= MOST_INSTRUCTIONS:
                raise _RefusedError(f"more than {MOST_INSTRUCTIONS:,} instructions")
            if opcode.name in _LITERALS:
                self._stack.append(argument)
            elif opcode.name in _INSTRUCTIONS:
                _INSTRUCTIONS[opcode.name](self, argument)
            else:
                raise _RefusedError(f"the instruction {opcode.name}")
        (found,) = self._stack
        return found

    def _since_mark(self) -> list[Any]:
        """The values after the last mark, taken from the stack."""
        mark = self._marks.pop()
        if mark > len(self._stack):
            raise ValueError("the stack ends before its mark")
        found = self._stack[mark:]
        del self._stack[mark:]
        return found

    def _take(self, n: int) -> list[Any]:
        if n > len(self._stack):
            raise ValueError("the stack is empty")
        found = self._stack[-n:]
        del self._stack[-n:]
        return found

    def _spend(self, n_bytes: int) -> None:
        """Count memory that the file asks for beyond its own bytes, which it could ask for again and again."""
        self._left -= n_bytes
        if self._left < 0:
            raise _RefusedError("far more memory than the file is long")

    # Containers.

    def _mark(self, _: None) -> None:
        self._marks.append(len(self._stack))

    def _constant(self, value: object) -> None:
        self._stack.append(value)

    def _pop(self, _: None) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._take(1)

    def _pop_mark(self, _: None) -> None:
        self._since_mark()

    def _duplicate(self, _: None) -> None:
        self._stack.append(self._stack[-1])

    def _store(self, key: int | None) -> None:
        self._memo[len(self._memo) if key is None else key] = self._stack[-1]

    def _fetch(self, key: int) -> None:
        self._stack.append(self._memo[key])

    def _tuple(self, n: int) -> None:
        self._stack.append(tuple(self._take(n)) if n else ())

    def _dict(self, _: None) -> None:
        values = self._since_mark()
        self._stack.append({})
        self._set_items(values)

    def _append(self, values: list[Any]) -> None:
        owner = self._stack[-1]
        if type(owner) is not list:
            raise ValueError("values are appended to no list")
        owner.extend(values)

    def _set_items(self, values: list[Any]) -> None:
        owner = self._stack[-1]
        if type(owner) is not dict or len(values) % 2:
            raise ValueError("entries are set in no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Containers would be compared, and nested ones hashed, to any depth.
            if type(key) not in (str, bytes, int):
                raise _RefusedError(f"a key of type {type(key).__name__}")
            # A file chooses the hashes of long integers, and a dict of equal ones takes a time that is quadratic.
            if not _fits_64_bits(key):
                raise _RefusedError("a key of more than 64 bits")
            owner[key] = value

    # Arrays.

    def _global(self, name: str | None) -> None:
        module, attribute = self._take(2) if name is None else name.split(" ", 1)
        which = GLOBALS.get((module, attribute)) if isinstance(module, str) and isinstance(attribute, str) else None
        if which is None:
            raise _RefusedError(" ".join(ascii(f"{module}.{attribute}")[:80].split()))
        self._stack.append(_Global(which))

    def _reduce(self, _: None) -> None:
        function, arguments = self._take(2)
        if not isinstance(function, _Global) or type(arguments) is not tuple:
            raise _RefusedError(f"a call of {type(function).__name__}")
        if function.which not in _CALLS:
            raise _RefusedError("a call of numpy.ndarray")
        self._stack.append(_CALLS[function.which](self, *arguments))

    def _new_array(self, kind: Any, shape: Any, code: Any) -> NDArray[Any]:
        if not isinstance(kind, _Global) or kind.which != _NDARRAY or shape != (0,) or code not in ("b", b"b"):
            raise _RefusedError("an array of another class than numpy.ndarray")
        return np.empty(0, np.int8)

    def _new_dtype(self, code: Any, *_: Any) -> _DType:
        if type(code) is not str or not _DTYPE.fullmatch(code):
            raise _RefusedError(f"the dtype {ascii(code)[:40]}" if isinstance(code, str) else "a dtype of an object")
        return _DType(np.dtype(code))

    def _new_scalar(self, dtype: Any, data: Any) -> Any:
        dtype, data = self._plain_dtype(dtype), _raw(data)
        if dtype.hasobject or len(data) != dtype.itemsize:
            raise ValueError(f"a number of {dtype} has {len(data)} bytes")
        self._spend(len(data))
        return np.frombuffer(data, dtype)[0]

    def _from_buffer(self, data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
        dtype, data = self._plain_dtype(dtype), _raw(data)
        if dtype.hasobject or order not in ("C", "F") or len(data) != _count(shape) * dtype.itemsize:
            raise ValueError(f"an array of {dtype} does not have {len(data)} bytes")
        self._spend(len(data))
        return np.frombuffer(data, dtype).reshape(shape, order=order)

    def _encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise _RefusedError("an encoding other than latin1")
        self._spend(len(text))
        return text.encode("latin1")

    def _no_bytes(self) -> bytes:
        return b""

    def _build(self, _: None) -> None:
        """Give an array its shape and its contents, or a dtype its byte order."""
        owner, state = self._stack[-2], self._stack.pop()
        if isinstance(owner, _DType):
            version, order, *rest = state
            if version != 3 or order not in ("<", ">", "=", "|") or rest[:3] != [None] * 3 or len(rest) != 6:
                raise _RefusedError("a dtype with fields or metadata")
            if owner.value.kind in "SU" and rest[3] != owner.value.itemsize:
                raise ValueError("a dtype of another size than its own")
            owner.value = owner.value.newbyteorder(order)
        elif type(owner) is np.ndarray and type(state) is tuple and len(state) == 5:
            self._fill(owner, *state)
        else:
            raise _RefusedError(f"a state of {type(owner).__name__}")

    def _fill(self, array: NDArray[Any], version: Any, shape: Any, dtype: Any, fortran: Any, data: Any) -> None:
        dtype, n_items = self._plain_dtype(dtype), _count(shape)
        if dtype.hasobject:
            if type(data) is not list or len(data) != n_items:
                raise ValueError("an array of objects has another number of them")
            self._spend(8 * n_items)
        else:
            data = _raw(data)
            if len(data) != n_items * dtype.itemsize:
                raise ValueError(f"an array of {n_items} x {dtype} has {len(data)} bytes")
            self._spend(len(data))
        if version != 1 or type(fortran) not in (bool, int):
            raise ValueError("an array of an unknown version")
        array.__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]

    def _plain_dtype(self, dtype: Any) -> np.dtype[Any]:
        if not isinstance(dtype, _DType):
            raise ValueError("an array without a dtype")
        return dtype.value


def _raw(data: Any) -> bytes | bytearray:
    """Bytes, which Python 2 calls text."""
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise ValueError("an array without its bytes")
    return data


def _count(shape: Any) -> int:
    """Number of items of an array of some shape."""
    if type(shape) is not tuple or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("an array without a shape")
    return math.prod(shape)


_CALLS: dict[int, Callable[..., Any]] = {
    _RECONSTRUCT: _Machine._new_array,
    _DTYPE_CLASS: _Machine._new_dtype,
    _SCALAR: _Machine._new_scalar,
    _FROM_BUFFER: _Machine._from_buffer,
    _ENCODE: _Machine._encode,
    _BYTES: _Machine._no_bytes,
}

# Instructions whose argument is the value.
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    "MARK": _Machine._mark,
    "POP": _Machine._pop,
    "POP_MARK": _Machine._pop_mark,
    "DUP": _Machine._duplicate,
    "NONE": lambda machine, _: machine._constant(None),
    "NEWTRUE": lambda machine, _: machine._constant(True),
    "NEWFALSE": lambda machine, _: machine._constant(False),
    "EMPTY_LIST": lambda machine, _: machine._constant([]),
    "EMPTY_DICT": lambda machine, _: machine._constant({}),
    "EMPTY_TUPLE": lambda machine, _: machine._tuple(0),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "TUPLE": lambda machine, _: machine._constant(tuple(machine._since_mark())),
    "LIST": lambda machine, _: machine._constant(machine._since_mark()),
    "DICT": _Machine._dict,
    "APPEND": lambda machine, _: machine._append(machine._take(1)),
    "APPENDS": lambda machine, _: machine._append(machine._since_mark()),
    "SETITEM": lambda machine, _: machine._set_items(machine._take(2)),
    "SETITEMS": lambda machine, _: machine._set_items(machine._since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine._store),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine._fetch),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), _Machine._global),
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
}
