"""The torch.distributed job that a launcher has started this process in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from fastdens.process_group import Group, current_group

# What torchrun, and other launchers like it, tell each process.
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def job() -> Iterator[Group]:
    """Join the job that torchrun, or a launcher like it, has started this process in, for the block.

    The launcher says so in the variables RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT of the environment, and in
    LOCAL_RANK which GPU is that of the process. Without them, or where the process group is there already, nothing is
    set up.

    Yields
    ------
    Group
        The ranks of the job, or this process alone.

    Raises
    ------
    RuntimeError
        If the ranks cannot reach each other.
    """
    if not all(name in os.environ for name in _VARIABLES) or dist.is_initialized():
        yield current_group()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    # What ranks send each other lies in main memory.
    dist.init_process_group("gloo")
    yield current_group()
    # After an error the others may not come to the end of the group.
    dist.destroy_process_group()
