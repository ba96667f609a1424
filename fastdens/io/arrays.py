"""Arrays that grow on disk row by row, and arrays mapped back into memory: ``.npy`` and safetensors."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastdens.kernels.optional import require

_SAFETENSORS_NAMES = {
    np.dtype(dtype): name for dtype, name in (("f2", "F16"), ("f4", "F32"), ("f8", "F64"), ("i8", "I64"))
}


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
                f"{self._stream.name}: all rows of an array must be alike."
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
    ValueError
        If the file is no safetensors file or is cut off.
    ImportError
        If safetensors is missing.
    """
    safetensors = require("safetensors", "a safetensors file", "cpu")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = json.loads((file.metadata() or {}).get("names", "null")) or list(file.keys())
            return {name: file.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a safetensors file ({error}): write it again.") from None
