"""Rows of a matrix on disk brought together by group, once, in bounded memory: an external sort.

One pass over the group of each row gives every row its place. One pass over the rows then reads them block after block,
sorts each block by group in memory, and writes each group's rows where that group has got to: pieces of many rows, in
place of rows here and there.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastdens.io.arrays import npy_header
from fastdens.io.atomic import WriteError, atomic_write, check_place
from fastdens.io.locks import done_by_one
from fastdens.io.matrix_files import MatrixFile, open_matrix
from fastdens.io.state_file import StateFile, fingerprint
from fastdens.kernels.layout import offsets_of
from fastdens.memory import describe_bytes, room_under

_POINTS, _STATE = "points.npy", "origin.safetensors"
_KIND = "copy of rows by class"

# Larger blocks gain nothing: with 256 MiB, each of 1,000 classes gets 256 KiB in one piece.
_LARGEST_BLOCK = 256 << 20
# A block as it is stored, as rows, and sorted, and as much to spare.
_COPIES = 4
_SLACK = 16 << 20


def grouped_copy(
    matrix: MatrixFile, codes: Tensor, n_groups: int, folder: Path, limit: int, overwrite: bool
) -> MatrixFile:
    """The rows of a matrix sorted by group in a file of their own, which a second call with the same rows finds.

    The file appears when it is complete; of processes that ask for it at the same time, one writes it and the others
    wait. What a killed process left of it is removed by the next call.

    Parameters
    ----------
    matrix : MatrixFile
        [N, D].
    codes : Tensor
        int64 [N], the group of each row, from 0.
    n_groups : int
    folder : Path
        Where the copy is, or goes.
    limit : int
        Bytes that the process may hold.
    overwrite : bool
        Replace a copy of other rows.

    Returns
    -------
    MatrixFile
        [N, D], rows of one group in their old order.

    Raises
    ------
    ValueError
        If the folder holds something else, or a copy of other rows; or if the limit leaves no room.
    OSError
        If the folder cannot be written, or the disk is full.
    """
    identity = {"files": matrix.stamps(), "shape": list(matrix.shape), "groups": fingerprint([codes])}
    changed = dict.fromkeys(identity, "other files or other labels")
    remedy = "pass overwrite=True or another folder"
    state = StateFile(folder / _STATE, _KIND, identity, changed, remedy)
    if (found := _found(folder, state, overwrite=overwrite)) is not None:
        return found
    check_place(folder)

    def write() -> None:
        with atomic_write(folder, overwrite=True) as partial:
            partial.mkdir()
            _write_grouped(matrix, codes.numpy(), n_groups, partial / _POINTS, limit)
            StateFile(partial / _STATE, _KIND, identity).write({"offsets": offsets_of(codes.bincount())})

    try:
        done_by_one(folder, lambda: _found(folder, state, overwrite=overwrite) is not None, write)
    except WriteError as error:
        size = describe_bytes(matrix.shape[0] * matrix.row_bytes)
        raise OSError(
            f"{folder}, a copy of x sorted by class of {size}, cannot be written ({error.reason}): make room, or pass "
            "a folder elsewhere."
        ) from None
    return open_matrix(folder / _POINTS)


def _found(folder: Path, state: StateFile, *, overwrite: bool) -> MatrixFile | None:
    """The copy, if it is there; None if there is none, or one of other rows that may be replaced."""
    if not folder.exists():
        return None
    if not state.path.exists():
        raise ValueError(f"{folder} exists and is no {_KIND}: pass another folder.")
    try:
        state.read()
    except ValueError:
        if not overwrite:
            raise
        return None
    return open_matrix(folder / _POINTS)


def _write_grouped(matrix: MatrixFile, codes: NDArray[Any], n_groups: int, path: Path, limit: int) -> None:
    fixed = _SLACK + matrix.reading_bytes
    room = room_under(limit, fixed + _COPIES * matrix.row_step * matrix.row_bytes, "sorting x by class")
    block = min((room - fixed) // _COPIES, _LARGEST_BLOCK)
    header = npy_header(matrix.dtype, matrix.shape)
    # The row to which each group has got.
    places = np.zeros(n_groups + 1, np.int64)
    np.cumsum(np.bincount(codes, minlength=n_groups), out=places[1:])
    with path.open("wb", buffering=0) as target:
        _reserve(target, len(header) + matrix.shape[0] * matrix.row_bytes)
        _write(target, 0, header)
        for start, stop in matrix.row_ranges(block):
            own = codes[start:stop]
            order = np.argsort(own, kind="stable")
            rows = np.take(matrix[start:stop], order, axis=0)
            groups, firsts = np.unique(own[order], return_index=True)
            for group, first, last in zip(groups, firsts, [*firsts[1:], stop - start], strict=True):
                _write(target, len(header) + int(places[group]) * matrix.row_bytes, rows[first:last].data)
                places[group] += last - first


def _reserve(target: BinaryIO, n_bytes: int) -> None:
    """Take the space on the disk, so that a full one is found before hours of work."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(target.fileno(), 0, n_bytes)
    except OSError as error:
        # Not all file systems can.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise


def _write(target: BinaryIO, at: int, content: bytes | memoryview) -> None:
    """Write all of it: the system may take less at a time."""
    target.seek(at)
    left = memoryview(content).cast("B")
    while left:
        left = left[target.write(left) :]
