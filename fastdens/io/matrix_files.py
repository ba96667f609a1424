"""Matrices in files, read part by part into memory of their own: ``.npy``, safetensors and zarr.

The pages of a file that is mapped count as memory of the process for as long as the system leaves them there. Plain
reads take what was asked for, and no more.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastdens.arrays import MatrixSource, as_numbers, check_points_shape, tensor_of
from fastdens.io.arrays import check_file, map_any_npy, map_safetensors
from fastdens.kernels.optional import require

PathLike = str | os.PathLike[str]

# The numbers of safetensors; those of bfloat16 are the upper halves of float32.
_BFLOAT16 = "BF16"
_DTYPES = {
    "F16": "<f2",
    _BFLOAT16: "<u2",
    "F32": "<f4",
    "F64": "<f8",
    "I8": "i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "BOOL": "?",
}
# Memory that reading points takes beside them.
READING_BYTES = 32 << 20

# Zarr reads ten chunks side by side, each compressed and not, in threads with memory of their own.
_ZARR_CHUNKS, _ZARR_BYTES = 20, 32 << 20


class MatrixFile(MatrixSource):
    """A matrix [N, D] of numbers in one or more files: ``matrix[rows]`` and ``matrix[:, columns]``, slices, read it.

    Attributes
    ----------
    path : Path
        The file, or the first of them.
    shape : tuple of int
    dtype : numpy.dtype
        Of what is read, in the byte order of this machine.
    reading_bytes : int
        Memory that reading takes, whatever is read, beside what is read.
    row_step : int
        Rows that are stored together: reading begins best at a multiple of it.
    """

    path: Path
    reading_bytes: int = 0

    def __getitem__(self, part: slice | tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = part if isinstance(part, tuple) else (part, slice(None))
        return self._read(range(self.shape[0])[rows], range(self.shape[1])[columns])

    @abstractmethod
    def _read(self, rows: range, columns: range) -> NDArray[Any]:
        """Consecutive rows and columns, in memory of their own."""

    @abstractmethod
    def stamps(self) -> list[list[Any]]:
        """Name, bytes and time of change of every file, which tell another content in most cases."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory."""
        return self.shape[1] * self.dtype.itemsize

    def row_ranges(self, n_bytes: int) -> Iterator[tuple[int, int]]:
        """Consecutive ranges of rows of at most so many bytes, or of one ``row_step``."""
        step = max(1, n_bytes // (self.row_bytes * self.row_step)) * self.row_step
        for start in range(0, self.shape[0], step):
            yield start, min(start + step, self.shape[0])


class _PlainFile(MatrixFile):
    """Numbers that lie one after the other in a file, from an offset."""

    def __init__(
        self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], *, by_columns: bool, halves: bool
    ) -> None:
        self.path, self.shape = path, check_points_shape(shape, str(path))
        self._offset, self._stored, self._by_columns, self._halves = offset, dtype, by_columns, halves
        self.dtype = np.dtype(np.float32) if halves else as_numbers(np.empty(0, dtype), str(path)).dtype
        self._stamp = _stamp(path)

    def stamps(self) -> list[list[Any]]:
        return [self._stamp]

    def _read(self, rows: range, columns: range) -> NDArray[Any]:
        outer, inner = (columns, rows) if self._by_columns else (rows, columns)
        width = self.shape[0 if self._by_columns else 1]
        found = np.empty((len(outer), len(inner)), self._stored)
        try:
            with self.path.open("rb", buffering=0) as stream:
                # Whole lines of the file are one piece, parts of lines are pieces of their own.
                pieces = [found] if len(inner) == width else list(found)
                for at, piece in enumerate(pieces):
                    stream.seek(self._offset + ((outer.start + at) * width + inner.start) * self._stored.itemsize)
                    self._fill(stream, piece)
        except OSError as error:
            raise type(error)(f"{self.path} cannot be read ({error.strerror}): check that you may read it.") from None
        if _stamp(self.path) != self._stamp:
            raise ValueError(f"{self.path} has changed since it was opened: open it again.")
        if not found.dtype.isnative:
            found = found.byteswap(inplace=True).view(found.dtype.newbyteorder("="))
        if self._halves:
            found = (found.astype(np.uint32) << 16).view(np.float32)
        found = as_numbers(found, str(self.path))
        return found.T if self._by_columns else found

    def _fill(self, stream: Any, piece: NDArray[Any]) -> None:
        """Read until the array is full: the system may give less at a time."""
        left = piece.reshape(-1).view(np.uint8).data
        while left:
            n = stream.readinto(left)
            if not n:
                raise ValueError(f"{self.path} is cut off: write it again.")
            left = left[n:]


class _ZarrFile(MatrixFile):
    """A zarr array in a folder."""

    def __init__(self, path: Path, array: Any) -> None:
        self.path, self._array = path, array
        self.shape = check_points_shape(tuple(array.shape), str(path))
        self.dtype = as_numbers(np.empty(0, array.dtype), str(path)).dtype
        # Of shards, which hold chunks, one is read at a time.
        chunk = getattr(array, "shards", None) or array.chunks
        self.row_step = int(chunk[0])
        chunks = _ZARR_CHUNKS * int(np.prod(chunk)) * self.dtype.itemsize
        self.reading_bytes = _ZARR_BYTES + chunks + 2 * self.row_step * self.row_bytes

    def stamps(self) -> list[list[Any]]:
        files = sorted(file for file in self.path.rglob("*") if file.is_file())
        return [[str(file.relative_to(self.path)), *_stamp(file)[1:]] for file in files]

    def _read(self, rows: range, columns: range) -> NDArray[Any]:
        try:
            part = self._array[rows.start : rows.stop, columns.start : columns.stop]
        # Each store and codec raises errors of its own.
        except Exception as error:
            raise ValueError(
                f"{self.path} cannot be read as a zarr array ({type(error).__name__}: {error}): write it again."
            ) from None
        return as_numbers(np.asarray(part), str(self.path))


class _Stacked(MatrixFile):
    """Matrices below each other."""

    def __init__(self, parts: Sequence[MatrixFile]) -> None:
        first = parts[0]
        for part in parts:
            if part.shape[1] != first.shape[1] or part.dtype != first.dtype:
                raise ValueError(
                    f"{part.path} holds {part.dtype} of {part.shape[1]} columns and {first.path} {first.dtype} of "
                    f"{first.shape[1]}: files of consecutive rows are alike."
                )
        self.path, self.dtype, self._parts = first.path, first.dtype, parts
        self.reading_bytes = max(part.reading_bytes for part in parts)
        self.shape = (sum(part.shape[0] for part in parts), first.shape[1])

    def stamps(self) -> list[list[Any]]:
        return [stamp for part in self._parts for stamp in part.stamps()]

    def _read(self, rows: range, columns: range) -> NDArray[Any]:
        found = np.empty((len(rows), len(columns)), self.dtype)
        at, first = 0, 0
        for part in self._parts:
            start, stop = max(rows.start - first, 0), min(rows.stop - first, part.shape[0])
            if start < stop:
                found[at : at + stop - start] = part[start:stop, columns.start : columns.stop]
                at += stop - start
            first += part.shape[0]
        return found


def open_matrix(x: Any, name: str | None = None) -> MatrixFile:
    """The matrix that one or more files hold.

    Parameters
    ----------
    x : path-like, zarr array, or sequence of path-likes
        An ``.npy`` file; a safetensors file; a zarr array in a folder, or a group there; several of them, whose rows
        follow each other.
    name : str, optional
        The array in a safetensors file or a zarr group that holds several.

    Raises
    ------
    OSError
        If a file is missing or cannot be read.
    ValueError
        If a file is damaged, holds no matrix [N, D] of real numbers, or has no array of that name.
    TypeError
        If ``x`` is none of these.
    ImportError
        If zarr or safetensors is needed and missing.
    """
    if isinstance(x, list | tuple):
        if not x:
            raise ValueError("x is empty: pass the paths of the files.")
        parts = [open_matrix(part, name) for part in x]
        return parts[0] if len(parts) == 1 else _Stacked(parts)
    if not isinstance(x, str | os.PathLike):
        return _open_zarr(_folder_of_zarr(x), None)
    path = Path(x)
    # A type that is wrong in a file is a value that is wrong.
    try:
        if path.is_dir():
            return _open_zarr(path, name)
        if path.suffix.lower() == ".safetensors":
            return _open_safetensors(path, name)
        return _open_npy(path, name)
    except TypeError as error:
        raise ValueError(str(error)) from None


def is_in_files(x: object) -> bool:
    """Whether :func:`open_matrix` is the one to read ``x``: a path, several, or a zarr array."""
    if isinstance(x, list | tuple):
        return bool(x) and all(map(is_in_files, x))
    return isinstance(x, str | os.PathLike) or (hasattr(x, "store") and hasattr(x, "chunks"))


def read_rows(matrix: MatrixFile, start: int, out: Tensor) -> None:
    """Fill a tensor [n, D] with rows from ``start`` on, piece by piece: each is in memory twice while it is converted.

    All the pieces take :data:`READING_BYTES` beside the tensor, and the ``reading_bytes`` of the matrix.
    """
    step = max(matrix.row_step, READING_BYTES // 4 // max(matrix.row_bytes, out.shape[1] * out.element_size()))
    for at in range(0, len(out), step):
        stop = min(at + step, len(out))
        out[at:stop] = tensor_of(matrix[start + at : start + stop])


def read_column(path: PathLike, name: str) -> Any:
    """The array [N] of a file, in memory: of an ``.npy`` file, a zarr array, or of that name in a safetensors file.

    Raises
    ------
    OSError, ValueError, ImportError
        As :func:`open_matrix`.
    """
    path = Path(path)
    if path.is_dir():
        return _zarr_array(path, None)[...]
    if path.suffix.lower() != ".safetensors":
        return np.array(map_any_npy(path))
    arrays = map_safetensors(path)
    return arrays[_one_of(path, list(arrays), name if len(arrays) > 1 else None)].clone()


def _open_npy(path: Path, name: str | None) -> MatrixFile:
    if name is not None:
        raise ValueError(f"{path} holds one array, but name is {name!r}: leave name out.")
    # Mapped to learn where the numbers lie; none is read.
    array = map_any_npy(path)
    by_columns = array.ndim == 2 and not array.flags.c_contiguous
    return _PlainFile(path, array.offset, array.shape, array.dtype, by_columns=by_columns, halves=False)


def _open_safetensors(path: Path, name: str | None) -> MatrixFile:
    safetensors = require("safetensors", "a safetensors file", "cpu")
    check_file(path, "a safetensors file")
    try:
        # The library checks that the header fits the file.
        with safetensors.safe_open(path, framework="np"), path.open("rb") as stream:
            n_header = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(n_header))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as a safetensors file ({reason}): write it again.") from None
    header.pop("__metadata__", None)
    entry = header[_one_of(path, list(header), name)]
    kind = entry["dtype"]
    if kind not in _DTYPES:
        raise ValueError(f"{path} holds numbers of type {kind}: write them as float32 or float16.")
    offset = 8 + n_header + entry["data_offsets"][0]
    dtype = np.dtype(_DTYPES[kind])
    return _PlainFile(path, offset, tuple(entry["shape"]), dtype, by_columns=False, halves=kind == _BFLOAT16)


def _one_of(path: Path, names: list[str], name: str | None) -> str:
    """The name of the array to read."""
    if name is None and len(names) == 1:
        return names[0]
    listed = ", ".join(map(repr, sorted(names)[:5])) + (", ..." if len(names) > 5 else "")
    if name is None:
        raise ValueError(f"{path} holds the arrays {listed or 'of no name'}: say which with name=.")
    if name not in names:
        raise ValueError(f"{path} has no array {name!r}, but {listed or 'none'}: pass one of these as name.")
    return name


def _open_zarr(path: Path, name: str | None) -> MatrixFile:
    return _ZarrFile(path, _zarr_array(path, name))


def _zarr_array(path: Path, name: str | None) -> Any:
    zarr = require("zarr", "a folder of zarr", "storage")
    try:
        found = zarr.open(str(path), mode="r")
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a zarr array ({type(error).__name__}): pass an .npy file, a safetensors file or "
            "a folder of zarr."
        ) from None
    if not hasattr(found, "chunks"):
        found = found[_one_of(path, [key for key, _ in found.arrays()], name)]
    elif name is not None:
        raise ValueError(f"{path} is one array, but name is {name!r}: leave name out.")
    if any(getattr(codec, "codec_id", None) == "pickle" for codec in _codecs(found)):
        raise ValueError(f"{path} has pickles for chunks, which run what they hold: write it with another codec.")
    return found


def _codecs(array: Any) -> list[Any]:
    """What the chunks of a zarr array pass through, by the names of zarr 2 and of zarr 3."""
    facts = getattr(array, "metadata", array)
    found = [getattr(facts, name, None) for name in ("filters", "compressor", "codecs")]
    return [codec for codecs in found for codec in (codecs if isinstance(codecs, list | tuple) else [codecs])]


def _folder_of_zarr(x: Any) -> Path:
    """The folder of a zarr array on a local disk."""
    store = getattr(x, "store", None)
    root = getattr(store, "root", None) or getattr(store, "path", None)
    if not hasattr(x, "chunks") or root is None:
        raise TypeError(
            f"x is a {type(x).__name__}, but files are read here: pass the path of an .npy file, a safetensors file or "
            "a folder of zarr, or several of them."
        )
    return Path(root) / str(x.path)


def _stamp(path: Path) -> list[Any]:
    found = path.stat()
    return [path.name, found.st_size, found.st_mtime_ns]
