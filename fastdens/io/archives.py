"""Files of named arrays: ``.npz``, ``.npy`` of one array or of a dict, and pickles of a dict."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from fastdens.io.npy_header import MAGIC, read_npy_header
from fastdens.io.safe_pickle import PickleError, flat_array, read_pickled_dict, text_keys, unpickle

_PICKLE_SUFFIXES = (".pkl", ".pickle", ".p")
MOST_BYTES = 1 << 28
"""Bytes of an array inside an archive, at most: a short file may unpack to a long one."""
# A byte unpacks to at most so many, as zlib's documentation says; other compressions, which numpy does not write, have
# no bound.
_UNPACKED = {ZIP_STORED: 1, ZIP_DEFLATED: 1032}


class _TooLongError(ValueError):
    """An array of an archive that unpacks to too many bytes."""


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
        If it is damaged or of another format, has Python objects and ``allow_pickle`` is False, or has an array that
        unpacks to more than :data:`MOST_BYTES`.
    """
    with path.open("rb") as stream:
        first = stream.read(len(MAGIC))
    if first.startswith(b"\x80") or path.suffix.lower() in _PICKLE_SUFFIXES:
        _check_allowed(path, allow_pickle)
        return _of_mapping(path, read_pickled_dict(path), wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if first == MAGIC:
                return _of_npy(path, wanted, allow_pickle=allow_pickle)
            content = np.load(path, allow_pickle=False)
            with content:
                return content.files, {
                    name: _member(path, content, name, allow_pickle=allow_pickle)
                    for name in wanted
                    if name in content.files
                }
        except (PermissionError, PickleError, _TooLongError):
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
        header = read_npy_header(stream)
        if not header.dtype.hasobject:
            _check_size(header.n_bytes, path.stat().st_size - stream.tell())
            return [wanted[0]], {wanted[0]: np.load(path, allow_pickle=False)}
        _check_allowed(path, allow_pickle)
        found = _objects(path, stream.read(), header.shape)
    if found.ndim == 0 and isinstance(entries := found.item(), dict):
        return _of_mapping(path, text_keys(entries), wanted)
    return [wanted[0]], {wanted[0]: flat_array(found, f"the array of {path}")}


def _of_mapping(
    path: Path, entries: Mapping[str, Any], wanted: tuple[str, ...]
) -> tuple[list[str], dict[str, NDArray[Any]]]:
    return list(entries), {name: flat_array(entries[name], f"{name} of {path}") for name in wanted if name in entries}


def _member(path: Path, archive: np.lib.npyio.NpzFile, name: str, *, allow_pickle: bool) -> NDArray[Any]:
    """One array of an ``.npz`` archive."""
    with ZipFile(path) as members:
        member = members.getinfo(f"{name}.npy")
        if member.file_size > MOST_BYTES:
            raise _TooLongError(
                f"{name} of {path} unpacks to {member.file_size:,} bytes, but at most {MOST_BYTES:,} are read from an "
                "archive: write the array alone with numpy.save."
            )
        _check_packed(member, path.stat().st_size)
        with members.open(member) as stream:
            header = read_npy_header(stream)
            if not header.dtype.hasobject:
                _check_size(header.n_bytes, member.file_size - stream.tell())
                return np.asarray(archive[name])
            _check_allowed(path, allow_pickle)
            content = stream.read()
    return flat_array(_objects(path, content, header.shape), f"{name} of {path}")


def _check_packed(member: ZipInfo, n_bytes: int) -> None:
    """Raise a ValueError if a member of an archive of ``n_bytes`` bytes cannot be as long as it says."""
    most = _UNPACKED.get(member.compress_type)
    if most is None or member.file_size > most * min(member.compress_size, n_bytes):
        raise ValueError("a member is longer than its archive allows")


def _check_size(expected: int, found: int) -> None:
    """Raise a ValueError unless the contents of an array have the length that its header says."""
    if expected != found:
        raise ValueError(f"the contents have {found} bytes, but the header says {expected}")


def _objects(path: Path, content: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of objects, whose contents numpy pickles as an array of their own."""
    found = unpickle(BytesIO(content), len(content), str(path))
    if not isinstance(found, np.ndarray) or found.shape != shape:
        raise ValueError("the pickled objects are no array of the shape in the header")
    return found
