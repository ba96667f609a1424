"""A long computation in numbered pieces, which processes do together and a later call goes on with.

Finished pieces lie in a hidden folder beside the result, until the result has its name:

``unfinished``
    An empty file, there as long as the result is not.
``begun.safetensors``
    Which computation it is, and a sample of its results.
``000000016-000000048.safetensors``
    Pieces 16 to 47, one after the other.
``.000003.lock``
    Held by the process that does the pieces of block 3; the operating system frees it however the process ends.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdens.io.locks import claimed, done_by_one
from fastdens.io.state_file import StateFile, read_state

Piece = dict[str, Tensor]
Compute = Callable[[Iterator[int]], Iterable[tuple[int, Piece]]]

# What a killed process loses, and what it holds in memory.
_SECONDS_BETWEEN_PARTS = 5.0
_BYTES_OF_A_PART = 1 << 22
# Each of them is an open file.
_MOST_CLAIMS = 64
_SECONDS_BETWEEN_LOOKS = 0.25
# Samples of one computation may differ in rounding, on other hardware; those of another differ in more.
_TOLERANCE = 1e-3
_UNFINISHED, _BEGUN = "unfinished", "begun.safetensors"
_REMEDY = "delete it and call again, and what it held is done anew"
_PART = re.compile(r"(\d+)-(\d+)\.safetensors")


class SharedWork:
    """The pieces of one computation, numbered from 0; each holds rows of the same arrays.

    The result is the rows of all pieces in their order. It must not depend on which process computes a piece, nor on
    what that process has computed before.

    Parameters
    ----------
    path : Path
        The name that the result is to have.
    kind : str
        A noun for the computation, for messages.
    differences : mapping of str to str
        How messages describe differences between two computations, as of :class:`~fastdens.io.state_file.StateFile`;
        ``"sample"`` is that of their samples, in which ``{}`` stands for the name of an array.
    block : int
        Pieces in a row that one process takes at a time.
    n_pieces : int, optional
        Their number, if it is known.

    Attributes
    ----------
    folder : Path
        The hidden folder of finished pieces.
    n_pieces : int or None
    """

    def __init__(
        self, path: Path, kind: str, differences: Mapping[str, str], block: int, n_pieces: int | None = None
    ) -> None:
        self.folder = path.with_name(f".{path.name}.parts")
        self.n_pieces = n_pieces
        self._kind, self._differences, self._block = kind, differences, block
        self._removed = path.with_name(f".{path.name}.removed")
        self._unfinished = self.folder / _UNFINISHED
        self._begun: StateFile | None = None
        self._claims: dict[int, ExitStack] = {}
        self._part = _Part()

    @property
    def is_unfinished(self) -> bool:
        """Whether a call has opened the folder, and none has finished the result since."""
        return self._unfinished.exists()

    @property
    def is_entered(self) -> bool:
        """Whether :meth:`enter` has found that this call may share the work."""
        return self._begun is not None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The folder, for the block. If the block raises, what is finished is kept.

        Raises
        ------
        OSError
            If the folder cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._unfinished.touch()
        except OSError as error:
            raise type(error)(
                f"{self.folder} cannot be made ({error.strerror}): pass a path in a folder that you may write to."
            ) from None
        try:
            yield
        except BaseException:
            # The error may be that of the disk.
            with suppress(OSError):
                self._write_part()
            raise
        finally:
            self._release()
            self._remove_if_empty()

    def enter(self, identity: Mapping[str, Any], sample: Piece) -> None:
        """Begin the work, or join that which others have begun.

        Parameters
        ----------
        identity : mapping of str to object
            What must agree among the calls that share the work, as of :class:`~fastdens.io.state_file.StateFile`.
        sample : dict of str to Tensor
            Results that every process computes, to see that they compute the same: numbers may differ by rounding.

        Raises
        ------
        ValueError
            If the work that was begun is another one.
        """
        remedy = f"delete the folder {self.folder} to begin anew, or pass another path"
        begun = StateFile(self.folder / _BEGUN, f"begun {self._kind}", identity, self._differences, remedy)
        sample = {name: value.detach().cpu() for name, value in sample.items()}
        done_by_one(begun.path, begun.path.exists, lambda: begun.write(sample))
        # A damaged one is no reason to begin anew.
        read_state(begun.path, begun.kind, _REMEDY)
        found = begun.read().tensors
        for name in sorted(found.keys() | sample.keys()):
            if name not in found or name not in sample or not _agree(found[name], sample[name]):
                raise ValueError(
                    f"{begun.path} is a {begun.kind} of {self._differences['sample'].format(name)}: {remedy}."
                )
        self._begun = begun

    def complete(self, compute: Compute, advance: Callable[..., None]) -> None:
        """Compute all pieces that no process has finished or is at work on, until there are none.

        Parameters
        ----------
        compute : callable
            Gets an iterator of ascending numbers, which takes pieces away from other processes as it goes on; yields
            each number with its piece. It calls :meth:`enter` unless that was done, and sets :attr:`n_pieces` at the
            end if it was unknown. It is called again for pieces that other processes leave when they die.
        advance : callable
            Counts finished pieces, as of :func:`fastdens.progress.progress_bar`.
        """
        n_seen = len(self._finished())
        advance(n_seen)
        while True:
            free = self._free()
            first = next(free, None)
            if first is not None or not self.is_entered:
                for number, piece in compute(free if first is None else chain([first], free)):
                    self._add(number, piece)
                    advance()
                    n_seen += 1
                self._write_part()
                self._release()
            finished = self._finished()
            advance(max(0, len(finished) - n_seen))
            n_seen = max(n_seen, len(finished))
            if len(finished) == self.n_pieces or not self.is_unfinished:
                return
            if first is None:
                advance(0, "waiting for other processes")
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def finish(self, write: Callable[[Iterator[Piece]], None]) -> None:
        """Let one process write the result from all pieces, and remove the folder; the others wait for it.

        Parameters
        ----------
        write : callable
            Gets the pieces in their order, several of them joined, and writes the result under its final name.
        """

        def write_and_remove() -> None:
            write(self._pieces())
            self.remove()

        done_by_one(self.folder / "result", lambda: not self.is_unfinished, write_and_remove)

    def remove(self) -> None:
        """Remove the folder, with all that is finished, and what a process left that was killed while it did so."""
        # Renamed first, so that no other process finds a part of what there was.
        shutil.rmtree(self._removed, ignore_errors=True)
        with suppress(FileNotFoundError):
            self.folder.rename(self._removed)
        shutil.rmtree(self._removed, ignore_errors=True)

    def _free(self) -> Iterator[int]:
        """Numbers of pieces that are not finished, of one block after the other that no other process works on."""
        finished = self._finished()
        for block in count():
            if self.n_pieces is not None and block * self._block >= self.n_pieces:
                return
            numbers = self._numbers(block)
            if not finished.issuperset(numbers) and self._claim(block):
                # Its last owner may have finished some of them, and another process the result.
                finished = self._finished()
                if not self.is_unfinished:
                    return
                yield from (number for number in numbers if number not in finished)

    def _numbers(self, block: int) -> range:
        stop = (block + 1) * self._block
        return range(block * self._block, stop if self.n_pieces is None else min(stop, self.n_pieces))

    def _claim(self, block: int) -> bool:
        stack = ExitStack()
        is_mine = stack.enter_context(claimed(self.folder / f"{block:06d}"))
        if is_mine:
            self._claims[block] = stack
        else:
            stack.close()
        return is_mine

    def _release(self, before: int | None = None) -> None:
        """Give up the claims, or those on pieces before a number alone."""
        for block in list(self._claims):
            if before is None or self._numbers(block).stop <= before:
                self._claims.pop(block).close()

    def _add(self, number: int, piece: Piece) -> None:
        if self._part.pieces and number != self._part.stop:
            self._write_part()
        self._part.add(number, piece)
        if self._part.is_full() or len(self._claims) > _MOST_CLAIMS:
            self._write_part()

    def _write_part(self) -> None:
        if self._part.pieces:
            file = self._file(self._part.first, self._part.stop)
            file.write(self._part.joined(), {"rows": [_n_rows(piece) for piece in self._part.pieces]})
            self._release(before=self._part.stop)
        self._part = _Part()

    def _file(self, first: int, stop: int) -> StateFile:
        assert self._begun is not None
        path = self.folder / f"{first:09d}-{stop:09d}.safetensors"
        return replace(self._begun, path=path, kind=f"part of the {self._kind}", remedy=_REMEDY)

    def _parts(self) -> list[tuple[int, int]]:
        """First number and end of each file of finished pieces."""
        try:
            matches = [_PART.fullmatch(entry.name) for entry in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted((int(match[1]), int(match[2])) for match in matches if match)

    def _finished(self) -> set[int]:
        return set(chain.from_iterable(range(first, stop) for first, stop in self._parts()))

    def _pieces(self) -> Iterator[Piece]:
        """All pieces in their order."""
        at = 0
        for first, stop in self._parts():
            # Where locks do not reach from machine to machine, two processes may have done the same pieces.
            if stop > at:
                state = self._file(first, stop).read()
                skipped = sum(state.metadata["rows"][: at - first])
                yield {name: rows[skipped:] for name, rows in state.tensors.items()}
                at = stop

    def _remove_if_empty(self) -> None:
        """Remove the folder if nothing is finished and nobody works in it, or if it came back with a late claim."""
        with suppress(OSError):
            if {entry.name for entry in self.folder.iterdir()} <= {_UNFINISHED, _BEGUN}:
                self.remove()


class _Part:
    """Pieces in a row that are not on disk yet."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.first = self.stop = 0
        self._n_bytes = 0
        self._began = time.monotonic()

    def add(self, number: int, piece: Piece) -> None:
        self.first = self.first if self.pieces else number
        self.stop = number + 1
        self.pieces.append(piece)
        self._n_bytes += sum(rows.nbytes for rows in piece.values())

    def is_full(self) -> bool:
        return self._n_bytes > _BYTES_OF_A_PART or time.monotonic() - self._began > _SECONDS_BETWEEN_PARTS

    def joined(self) -> Piece:
        return {name: torch.cat([piece[name] for piece in self.pieces]) for name in self.pieces[0]}


def _n_rows(piece: Piece) -> int:
    return len(next(iter(piece.values())))


def _agree(found: Tensor, own: Tensor) -> bool:
    """Whether numbers are the same up to rounding, measured by the largest."""
    if found.shape != own.shape or found.dtype != own.dtype:
        return False
    if not found.is_floating_point():
        return torch.equal(found, own)
    largest = float(found.abs().nan_to_num(0, 0, 0).max()) if found.numel() else 0.0
    return torch.allclose(found, own, rtol=0, atol=_TOLERANCE * largest, equal_nan=True)
