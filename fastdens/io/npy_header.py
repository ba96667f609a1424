"""Headers in numpy's format, read without taking more memory than a header needs, whatever they say."""

from __future__ import annotations

import math
from typing import IO, Any, NamedTuple

import numpy as np

MAGIC = b"\x93NUMPY"

# As much as numpy itself reads.
_LONGEST = 10_000


class NpyHeader(NamedTuple):
    """What a header says of the array behind it.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    n_bytes : int
        Bytes of the contents; of an array of objects, which are pickled, it says nothing.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    n_bytes: int


def read_npy_header(stream: IO[bytes]) -> NpyHeader:
    """The header at the beginning of a stream, which is read up to the contents.

    Raises
    ------
    Exception
        Of many kinds, if there is no header of numpy's versions 1 to 3, or its shape or dtype is none.
    """
    bounded: Any = _Bounded(stream)
    version = np.lib.format.read_magic(bounded)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"version {version} of numpy's format is unknown")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(bounded)
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"{shape} is no shape")
    return NpyHeader(shape, dtype, math.prod(shape) * dtype.itemsize)


class _Bounded:
    """A stream of which numpy cannot ask for the gigabytes that four bytes of a file can name."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, n_bytes: int) -> bytes:
        if n_bytes > _LONGEST:
            raise ValueError(f"the header has {n_bytes} bytes")
        return self._stream.read(n_bytes)
