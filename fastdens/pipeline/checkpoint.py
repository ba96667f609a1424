"""What a long computation has finished so far, in a folder: started again, it goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fastdens.io.state_file import SavedState, StateFile
from fastdens.pipeline.saving import read_tree, state_of_tree, tree_of_state, write_tree
from fastdens.process_group import Group, current_group

_KIND = "finished part"

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """The finished parts of a computation: a file each, which appears whole or not at all.

    A part may have parts of its own. They lie in a folder of its name, which goes when the part is finished.

    Parameters
    ----------
    folder : Path or None
        Made when something is kept; None keeps nothing.
    identity : mapping of str to object
        What decides the results. Every file holds it, and one of another identity is refused.
    """

    folder: Path | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)

    def part(self, name: str, cls: type[T], compute: Callable[[Checkpoint], T], *, alone: bool = False) -> T:
        """A part of the computation: as it was kept, or else computed and kept.

        In a job of several ranks all of them ask for it. Rank 0 reads and writes, and all have what it has.

        Parameters
        ----------
        name : str
            Its own among the parts; a file name.
        cls : type
            A dataclass or a named tuple that :func:`fastdens.pipeline.saving.write_tree` can write.
        compute : callable
            Gets the checkpoint of the parts of this part. All ranks call it, and may divide work in it.
        alone : bool
            Only rank 0 computes.

        Raises
        ------
        ValueError
            If the file of the part is damaged or of another computation.
        OSError
            If it cannot be read or written.
        """
        group, parts = current_group(), self.within(name)
        file, found = self._state_file(name), None
        with group.together():
            if group.rank == 0 and file is not None and file.path.exists():
                found = read_tree(cls, file)
        is_new = not _told(group, found is not None)
        if is_new and alone:
            with group.together():
                found = compute(parts) if group.rank == 0 else None
        elif is_new:
            found = compute(parts)
        with group.together():
            if group.rank == 0:
                if file is not None and is_new:
                    write_tree(found, file)
                if parts.folder is not None and parts.folder.exists():
                    shutil.rmtree(parts.folder)
        if group.size == 1:
            assert found is not None
            return found
        return tree_of_state(cls, group.broadcast(state_of_tree(found) if group.rank == 0 else None))

    def _state_file(self, name: str) -> StateFile | None:
        path = self.file(name)
        if path is None:
            return None
        return StateFile(path, _KIND, self.identity, {"data": "other data"}, "delete it, to compute it anew")

    def within(self, name: str) -> Checkpoint:
        """The checkpoint of parts that lie in a folder of their own."""
        return Checkpoint(None if self.folder is None else self.folder / name, self.identity)

    def file(self, name: str) -> Path | None:
        """Where a part that keeps its own state may do so; None where nothing is kept."""
        return None if self.folder is None else self.folder / f"{name}.safetensors"


def _told(group: Group, answer: bool) -> bool:
    """What rank 0 answers."""
    return bool(group.broadcast(SavedState({}, {"answer": answer}) if group.rank == 0 else None).metadata["answer"])


NOTHING_KEPT = Checkpoint()
"""The checkpoint of a computation that is not to go on."""
