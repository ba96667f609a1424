"""Arrays that grow on disk row by row, and arrays mapped back into memory: ``.npy`` and safetensors."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastdens.arrays import as_numbers, tensor_of
from fastdens.io.npy_header import MAGIC, read_npy_header
from fastdens.kernels.optional import require

_SAFETENSORS_NAMES = {
    np.dtype(dtype): name for dtype, name in (("f2", "F16"), ("f4", "F32"), ("f8", "F64"), ("i8", "I64"))
}


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The first bytes of an ``.npy`` file, padded so that the first axis may grow in place."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


class NpyStream:
    """An ``.npy`` file to which rows are appended; complete once closed.

    Parameters
    ----------
    path : Path
    row_shape : tuple of int
        Shape of one row.
    dtype : numpy.dtype
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.row_shape, self.dtype = row_shape, np.dtype(dtype)
        self._n_rows = 0
        self._stream = path.open("wb")
        self._stream.write(npy_header(self.dtype, (self._n_rows, *self.row_shape)))

    def append(self, rows: np.ndarray) -> None:
        """Append rows of the shape and dtype of the stream."""
        if rows.shape[1:] != self.row_shape or rows.dtype != self.dtype:
            raise ValueError(
                f"rows of {rows.dtype} {rows.shape[1:]} follow rows of {self.dtype} {self.row_shape} in "
                f"{self._stream.name}: all rows of an array must be alike."
            )
        self._stream.write(np.ascontiguousarray(rows).data)
        self._n_rows += len(rows)

    def close(self) -> None:
        """Write the number of rows into the header and close the file."""
        self._stream.seek(0)
        self._stream.write(npy_header(self.dtype, (self._n_rows, *self.row_shape)))
        self._stream.close()


def check_file(path: Path, what: str) -> bytes:
    """The first bytes of a file that can be read.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError, OSError
        If there is no such file, or it cannot be read.
    ValueError
        If it is empty.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder where {what} is needed: move it away or pass a file.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: pass {what}.")
    try:
        with path.open("rb") as stream:
            first = stream.read(8)
    except OSError as error:
        raise type(error)(f"{path} cannot be read ({error.strerror}): check that you may read it.") from None
    if not first:
        raise ValueError(f"{path} is empty: write it again.")
    return first


def map_any_npy(path: Path) -> np.memmap[Any, Any]:
    """The array of an ``.npy`` file, mapped into memory as it is stored; writing to it does not change the file.

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    ValueError
        If it is no ``.npy`` file, is cut off or longer than it says, or would need pickle.
    """
    first = check_file(path, "an .npy file")
    remedy = "write it again with numpy.save"
    if not first.startswith(MAGIC):
        found = "a zip archive, such as .npz" if first.startswith(b"PK") else "another format, or damaged"
        raise ValueError(f"{path} cannot be read as an .npy array, it is {found}: {remedy}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as stream:
                read_npy_header(stream)
            array: np.memmap[Any, Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    # For a damaged header, ast, tokenize, struct and mmap each raise errors of their own.
    except Exception as error:
        if "Python objects" in str(error):
            raise ValueError(
                f"{path} holds Python objects, which would need pickle: write numbers or strings, e.g. "
                "numpy.save(path, x.astype(str))."
            ) from None
        raise ValueError(
            f"{path} cannot be read as an .npy array, it is damaged or cut off ({type(error).__name__}): {remedy}."
        ) from None
    beyond = path.stat().st_size - array.offset - array.nbytes
    if beyond:
        raise ValueError(f"{path} is {beyond} bytes longer than its header says, it is damaged: {remedy}.")
    return array


def read_npy(path: Path) -> NDArray[Any]:
    """The array of an ``.npy`` file, mapped into memory; writing to it does not change the file.

    Raises
    ------
    OSError, ValueError
        As :func:`map_any_npy`.
    """
    array = map_any_npy(path)
    if array.dtype.isnative or array.dtype.kind not in "iuf":
        return np.asarray(array)
    # Swapped in place, so that it takes its own size once.
    swapped: NDArray[Any] = np.load(path, allow_pickle=False)
    swapped.byteswap(inplace=True)
    return swapped.view(swapped.dtype.newbyteorder("="))


def map_npy(path: Path) -> Tensor:
    """The numbers of an ``.npy`` file as a tensor, mapped into memory; writing to it does not change the file.

    Raises
    ------
    OSError, ValueError
        As :func:`read_npy`, and if it does not hold real numbers.
    """
    array = read_npy(path)
    try:
        return tensor_of(as_numbers(array, str(path)))
    except TypeError as error:
        raise ValueError(str(error)) from None


def join_safetensors(path: Path, parts: Mapping[str, Path]) -> None:
    """Write the arrays of ``.npy`` files to one safetensors file, by copying: no array is brought into memory.

    The safetensors library writes only what is in memory whole, hence the format is written here.

    Parameters
    ----------
    path : Path
        The file to write.
    parts : mapping of str to Path
        Name and ``.npy`` file of each array.

    References
    ----------
    The safetensors format: eight bytes of header length, a JSON header, the data.
    """
    header: dict[str, object] = {}
    end = 0
    # Sorted by descending width of an element, so that each array begins at a multiple of it.
    arrays = {name: np.load(part, mmap_mode="r") for name, part in parts.items()}
    order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    for name in order:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    header["__metadata__"] = {"names": json.dumps(list(parts))}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            with parts[name].open("rb") as source:
                source.seek(-arrays[name].nbytes, os.SEEK_END)
                shutil.copyfileobj(source, target, 1 << 22)


def map_safetensors(path: Path) -> dict[str, Tensor]:
    """The arrays of a safetensors file as tensors mapped into memory, in the order they were given to be written.

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    ValueError
        If the file is no safetensors file, is cut off, or holds complex numbers.
    ImportError
        If safetensors is missing.
    """
    safetensors = require("safetensors", "a safetensors file", "cpu")
    check_file(path, "a safetensors file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = _names_in_order(file.metadata(), list(file.keys()))
            tensors = {name: file.get_tensor(name) for name in names}
    # Beside its own error, a damaged header makes safetensors raise those of torch.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as a safetensors file ({reason}): write it again.") from None
    for name, tensor in tensors.items():
        if tensor.is_complex():
            raise ValueError(
                f"{name!r} in {path} holds complex numbers, but real ones are needed: write its real part."
            )
    return tensors


def _names_in_order(metadata: Mapping[str, str] | None, names: list[str]) -> list[str]:
    """The names in the order in which they were given to be written, if the file has it."""
    try:
        order = json.loads((metadata or {}).get("names", "null"))
    except (ValueError, RecursionError):
        return names
    return order if isinstance(order, list) and sorted(map(str, order)) == sorted(names) else names
