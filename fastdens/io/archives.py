"""Files of named arrays: ``.npz``, ``.npy`` of one array or of a dict, and pickles of a dict."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from fastdens.io.safe_pickle import PickleError, flat_array, read_pickled_dict, text_keys, unpickle

_PICKLE_SUFFIXES = (".pkl", ".pickle", ".p")
_MAGIC = b"\x93NUMPY"
# Of an array of objects inside an archive, once it is unpacked: a short file may unpack to a long one.
_MOST_BYTES = 1 << 28


def read_named_arrays(
    path: Path, wanted: tuple[str, ...], *, allow_pickle: bool = False
) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Some arrays of a file, and the names of all that it has.

    Parameters
    ----------
    path : Path
        An ``.npz`` archive; an ``.npy`` file, whose one array has the first name of ``wanted``, or which holds a dict;
        or a pickle of a dict.
    wanted : tuple of str
        The arrays to read, where they are there.
    allow_pickle : bool
        Read what is pickled, by :func:`fastdens.io.safe_pickle.read_pickle`, which runs nothing.

    Returns
    -------
    names : list of str
    arrays : dict of str to ndarray

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged or of another format, or has Python objects and ``allow_pickle`` is False.
    """
    with path.open("rb") as stream:
        first = stream.read(len(_MAGIC))
    if first.startswith(b"\x80") or path.suffix.lower() in _PICKLE_SUFFIXES:
        _check_allowed(path, allow_pickle)
        return _of_mapping(path, read_pickled_dict(path), wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if first == _MAGIC:
                return _of_npy(path, wanted, allow_pickle=allow_pickle)
            content = np.load(path, allow_pickle=False)
            with content:
                return content.files, {
                    name: _member(path, content, name, allow_pickle=allow_pickle)
                    for name in wanted
                    if name in content.files
                }
        except (PermissionError, PickleError):
            raise
        # For a damaged file, numpy, zipfile, zlib, tokenize and ast each raise errors of their own.
        except Exception as error:
            raise ValueError(
                f"{path} cannot be read as .npz or .npy, it is damaged or of another format "
                f"({type(error).__name__}): fetch it again, or write it with numpy.savez(path, {wanted[0]}=...)."
            ) from None


def _check_allowed(path: Path, allow_pickle: bool) -> None:
    if not allow_pickle:
        raise PickleError(
            f"{path} holds Python objects, in pickle's format: pass allow_pickle (--allow-pickle on the command "
            "line) to read the arrays in it, which runs nothing, or write it with numpy.savez."
        )


def _of_npy(path: Path, wanted: tuple[str, ...], *, allow_pickle: bool) -> tuple[list[str], dict[str, NDArray[Any]]]:
    with path.open("rb") as stream:
        shape, dtype = _header(stream)
        if not dtype.hasobject:
            return [wanted[0]], {wanted[0]: np.load(path, allow_pickle=False)}
        _check_allowed(path, allow_pickle)
        found = _objects(path, stream.read(), shape)
    if found.ndim == 0 and isinstance(entries := found.item(), dict):
        return _of_mapping(path, text_keys(entries), wanted)
    return [wanted[0]], {wanted[0]: flat_array(found, f"the array of {path}")}


def _of_mapping(
    path: Path, entries: Mapping[str, Any], wanted: tuple[str, ...]
) -> tuple[list[str], dict[str, NDArray[Any]]]:
    return list(entries), {name: flat_array(entries[name], f"{name} of {path}") for name in wanted if name in entries}


def _member(path: Path, archive: np.lib.npyio.NpzFile, name: str, *, allow_pickle: bool) -> NDArray[Any]:
    """One array of an ``.npz`` archive."""
    with ZipFile(path) as members, members.open(f"{name}.npy") as stream:
        shape, dtype = _header(stream)
        if not dtype.hasobject:
            return np.asarray(archive[name])
        _check_allowed(path, allow_pickle)
        content = stream.read(_MOST_BYTES)
    return flat_array(_objects(path, content, shape), f"{name} of {path}")


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array in numpy's format, up to whose contents the stream is read."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def _objects(path: Path, content: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of objects, whose contents numpy pickles as an array of their own."""
    found = unpickle(BytesIO(content), len(content), str(path))
    if not isinstance(found, np.ndarray) or found.shape != shape:
        raise ValueError("the pickled objects are no array of the shape in the header")
    return found
