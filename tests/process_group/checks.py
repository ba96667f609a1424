"""What ranks do together in the tests of the process group; ``main`` returns what they saw."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fastdens.errors import ModelError
from fastdens.io.state_file import SavedState
from fastdens.process_group import current_group
from fastdens.process_group.operations import Operations
from tests.ranks import raised


def state_of(rank: int) -> SavedState:
    """Tensors of several dtypes whose sizes depend on the rank; some are empty, or not contiguous."""
    values = torch.arange(3 + 5 * rank, dtype=torch.float64) + rank / 3
    tensors = {
        "a": values,
        "none": torch.empty(0, 4),
        "flag": torch.tensor(rank % 2 == 0),
        "matrix": torch.arange(6, dtype=torch.int32).reshape(2, 3).T + rank,
        "half": torch.full((rank,), 0.1, dtype=torch.bfloat16),
    }
    return SavedState(tensors, {"rank": rank, "nested": {"nan": float("nan"), "text": "ä" * rank}})


def same(state: SavedState, rank: int) -> bool:
    want = state_of(rank)
    alike = all(
        (found := state.tensors[name]).dtype == tensor.dtype and torch.equal(found, tensor)
        for name, tensor in want.tensors.items()
    )
    return alike and repr(state.metadata) == repr(want.metadata)


def exchanges() -> dict[str, Any]:
    group = current_group()
    own = state_of(group.rank)
    everywhere = group.all_gather(own)
    at_one = group.gather(own, root=1)
    sent = group.broadcast(own if group.rank == 1 else None, root=1)
    stacked = group.all_gather_tensor(torch.tensor([group.rank, 7]))
    return {
        "again": current_group() is group,
        "all_gather": all(same(state, rank) for rank, state in enumerate(everywhere)),
        "gather": at_one is None if group.rank != 1 else all(same(state, rank) for rank, state in enumerate(at_one)),
        "broadcast": same(sent, 1),
        "stacked": stacked.tolist(),
    }


def failures() -> dict[str, Any]:
    """Errors of one rank, while the others compute or wait; the group goes on after each."""
    group = current_group()

    def one_fails(failing: int, error: BaseException) -> None:
        with group.together():
            if group.rank == failing:
                time.sleep(0.2)
                raise error
            if group.rank == 0:
                # Busy: only an interruption ends it.
                while True:
                    time.sleep(0.01)

    begin = time.monotonic()
    last = group.size - 1
    found = {
        "model": raised(lambda: one_fails(last, ModelError("model 3 is bad.", {3: "is bad"}))),
        "file": raised(lambda: one_fails(1, FileNotFoundError("there is no file x."))),
        "own": raised(lambda: one_fails(1, LookupErrorOfOurOwn("odd"))),
        "interrupted": raised(lambda: one_fails(1, KeyboardInterrupt())),
    }

    def all_fail() -> None:
        with group.together():
            raise ValueError(f"rank {group.rank} does not like it.")

    found["several"] = raised(all_fail)
    with group.together():
        found["goes on"] = True
    found["quick"] = time.monotonic() - begin < 10
    return found


class LookupErrorOfOurOwn(LookupError):
    pass


def deaths(what_others_do: str) -> dict[str, Any]:
    """Rank 1 (rank 0 if the word says so) kills itself while the others wait or compute."""
    group = current_group()
    dying = 0 if what_others_do == "lose rank 0" else 1
    begin = time.monotonic()

    def die() -> None:
        with group.together():
            if group.rank == dying:
                time.sleep(0.3)
                if what_others_do == "compute" and os.fork() == 0:
                    # A worker of a DataLoader, say, which outlives its rank.
                    time.sleep(60)
                os.kill(os.getpid(), signal.SIGKILL)
            while what_others_do == "compute":
                time.sleep(0.01)

    first = raised(die)
    return {"first": first, "seconds": time.monotonic() - begin, "again": raised(group.barrier), "pid": os.getpid()}


def lost_host() -> dict[str, Any]:
    """Rank 1 takes its network away, while both ranks wait for the other."""
    group = current_group()
    begin = time.monotonic()

    def wait() -> None:
        with group.together():
            if group.rank == 1:
                subprocess.run(["ip", "link", "set", "eth0", "down"], check=True)
            while True:
                time.sleep(0.01)

    return {"first": raised(wait), "seconds": time.monotonic() - begin}


def threads() -> set[str]:
    """The numbers of the threads of this process, those of C++ too."""
    return {path.name for path in Path("/proc/self/task").iterdir()}


def closed(all_groups_ended: bool) -> dict[str, Any]:
    """The threads of a group of exchanges that has been closed, by itself or after all groups of the job."""
    before = threads()
    operations = Operations(dist.new_group(backend="gloo"))
    operations.submit(lambda run: run.all_gather_tensor(torch.ones(3))).result()
    new = threads() - before
    if all_groups_ended:
        dist.destroy_process_group()
    operations.close()
    # The system lists a thread for a moment after it has been joined.
    end = time.monotonic() + 30
    while new & threads() and time.monotonic() < end:
        time.sleep(0.01)
    return {"new": len(new), "left": len(new & threads())}


def main(what: str) -> dict[str, Any]:
    if what.startswith("close"):
        return closed(what == "close after all")
    if what == "exchange":
        return exchanges() | failures()
    if what == "lost host":
        return lost_host()
    return deaths(what)
