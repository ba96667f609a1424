"""Arrays that grow on disk row by row, and arrays mapped back into memory: ``.npy`` and safetensors."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_SAFETENSORS_TYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "I64": np.int64}


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
        self._stream.write(self._header())

    def _header(self) -> bytes:
        # numpy pads the header so that the first axis may grow in place.
        header = BytesIO()
        np.lib.format.write_array_header_1_0(
            header,
            {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (self._n_rows, *self.row_shape),
            },
        )
        return header.getvalue()

    def append(self, rows: np.ndarray) -> None:
        """Append rows of the shape and dtype of the stream."""
        if rows.shape[1:] != self.row_shape or rows.dtype != self.dtype:
            raise ValueError(
                f"rows of {rows.dtype} {rows.shape[1:]} follow rows of {self.dtype} {self.row_shape} in "
                f"{self._stream.name}: all rows of an array are alike."
            )
        self._stream.write(np.ascontiguousarray(rows).data)
        self._n_rows += len(rows)

    def close(self) -> None:
        """Write the number of rows into the header and close the file."""
        self._stream.seek(0)
        self._stream.write(self._header())
        self._stream.close()


def map_npy(path: Path) -> Tensor:
    """The array of an ``.npy`` file as a tensor, mapped into memory; writing to it does not change the file.

    Raises
    ------
    ValueError
        If the file is no ``.npy`` file, is cut off, or would need pickle.
    """
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an .npy array ({error}): write it again with numpy.save.") from None
    return torch.from_numpy(array)


def join_safetensors(path: Path, parts: Mapping[str, Path]) -> None:
    """Write the arrays of ``.npy`` files to one safetensors file, by copying: no array is brought into memory.

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
    names = {np.dtype(dtype): name for name, dtype in _SAFETENSORS_TYPES.items()}
    header: dict[str, object] = {}
    end = 0
    # Sorted by descending width of an element, so that each array begins at a multiple of it.
    arrays = {name: np.load(part, mmap_mode="r") for name, part in parts.items()}
    order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    for name in order:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
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
    ValueError
        If the file is no safetensors file, is cut off, or holds other types than float16, 32, 64 and int64.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if length < size else None
        if not isinstance(header, dict):
            raise ValueError("it has no header")
        names = json.loads(header.pop("__metadata__", {}).get("names", "null")) or list(header)
        arrays = {}
        for name in names:
            entry = header[name]
            begin, end = entry["data_offsets"]
            dtype, shape = np.dtype(_SAFETENSORS_TYPES[entry["dtype"]]), tuple(entry["shape"])
            if end - begin != math.prod(shape) * dtype.itemsize or 8 + length + end > size:
                raise ValueError(f"array {name!r} is cut off")
            empty = end == begin
            array = (
                np.empty(shape, dtype) if empty else np.memmap(path, dtype, "c", offset=8 + length + begin, shape=shape)
            )
            arrays[name] = torch.from_numpy(array)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as a safetensors file ({error}): write it again.") from None
    return arrays
