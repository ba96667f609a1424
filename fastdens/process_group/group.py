"""A group of ranks: states that they exchange, and blocks that all of them finish or none."""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fastdens.io.state_file import SavedState
from fastdens.process_group.connections import Server, connect
from fastdens.process_group.errors import RankEndedError, from_message, to_message
from fastdens.process_group.messages import pack, unpack
from fastdens.process_group.operations import Operations
from fastdens.process_group.watch import StoppedError, Watch

T = TypeVar("T")

_PATIENCE = timedelta(days=365)
_POLL_SECONDS = 0.2
_NOTHING = torch.zeros(1, dtype=torch.uint8, device="cpu")
# What an ended rank had sent may still arrive; and a broken connection is known before the reason for it.
_ARRIVAL_SECONDS, _REASON_SECONDS = 5.0, 45.0


class Group:
    """The ranks of a job. Methods that exchange something are called by all ranks, in the same order.

    Every wait in them ends with a :class:`RankEndedError` when a rank ends.

    Attributes
    ----------
    rank, size : int
        The number of this process, and of all.
    name : str
        "rank 3 (host, process 4711)".
    names : list of str
        Those of all ranks.
    """

    def __init__(self, rank: int, size: int, operations: Operations | None = None) -> None:
        self.rank: int = rank
        self.size: int = size
        self.name: str = f"rank {rank} ({socket.gethostname()}, process {os.getpid()})"
        self.names: list[str] = [self.name]
        self._operations = operations
        self._watch: Watch | None = None
        self._block = 0

    @classmethod
    def of_world(cls) -> Self:
        """The group of all ranks of the default process group; all make it at the same time."""
        # Gloo beside whatever the job computes with: what is sent lies in main memory.
        control = dist.new_group(backend="gloo")
        assert isinstance(control, dist.ProcessGroup)
        operations = Operations(control)
        group = cls(dist.get_rank(), dist.get_world_size(), operations)
        states = group.all_gather(SavedState({}, {"name": group.name}))
        group.names = [state.metadata["name"] for state in states]
        if group.rank == 0:
            server = Server()
            group.broadcast(SavedState({}, server.invitation))
            connections = server.accept(group.names)
        else:
            invitation = group.broadcast(None).metadata
            connections = {0: connect(invitation, group.rank, group.names)}
        group._watch = Watch(connections)
        group.barrier()
        # From here on the watch tells when a rank has ended; until then it may be busy for days.
        operations.wait_for(_PATIENCE)
        return group

    def all_gather(self, state: SavedState) -> list[SavedState]:
        """The states of all ranks, in the order of the ranks."""
        if self.size == 1:
            return [state]
        parts = pack(state)
        return self._unpacked(lambda run: run.all_gather(*parts))

    def gather(self, state: SavedState, root: int = 0) -> list[SavedState] | None:
        """The states of all ranks on rank ``root``; None on the others."""
        if self.size == 1:
            return [state]
        parts = pack(state)
        states = self._unpacked(lambda run: run.gather(*parts, root))
        return states if self.rank == root else None

    def broadcast(self, state: SavedState | None, root: int = 0) -> SavedState:
        """The state that rank ``root`` passes, on every rank; the others pass None."""
        if self.size == 1:
            assert state is not None
            return state
        parts = None if state is None else pack(state)
        return self._unpacked(lambda run: run.broadcast(parts, root))[0]

    def all_gather_tensor(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, of one shape and dtype, stacked along a leading axis: [P, ...], on their device."""
        if self.size == 1:
            return tensor[None]
        own = tensor.detach().cpu().contiguous()
        return self._wait(lambda run: run.all_gather_tensor(own)).to(tensor.device)

    def send(self, tensor: Tensor, rank: int) -> None:
        """Send a tensor to a rank that waits for it in :meth:`receive`; the other ranks take no part."""
        own = tensor.detach().cpu().contiguous()
        self._wait(lambda run: run.send(own, rank))

    def receive(self, like: Tensor, rank: int) -> Tensor:
        """A tensor of the shape, dtype and device of ``like`` from the rank that sends it."""
        received = torch.empty_like(like, device="cpu")
        self._wait(lambda run: run.receive(received, rank))
        return received.to(like.device)

    def broadcast_tensor(self, tensor: Tensor, root: int = 0) -> Tensor:
        """The tensor of rank ``root`` on every rank; the others pass one of its shape, dtype and device."""
        if self.size == 1:
            return tensor
        sent = tensor.detach().to("cpu", copy=True).contiguous()
        self._wait(lambda run: run.broadcast_tensor(sent, root))
        return sent.to(tensor.device)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.all_gather_tensor(_NOTHING)

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block in which ranks work by themselves: all of them finish it, or all raise the same error.

        If a rank raises or ends in the block, the others stop between two instructions of Python, as by Ctrl-C.

        Raises
        ------
        RankEndedError
            If a rank has ended.
        Exception
            The error of the lowest rank that raised one, with a note that names it.
        """
        if self._watch is None:
            yield
            return
        self._block += 1
        failure: BaseException | None = None
        message = None
        try:
            with self._watch.interrupting(self._block):
                yield
        except StoppedError:
            pass
        except BaseException as error:
            failure, message = error, to_message(error)
            self._watch.tell_failed(self._block, self.rank, message)
        statuses = self.all_gather(SavedState({}, {"error": message}))
        failed = [rank for rank, status in enumerate(statuses) if status.metadata["error"] is not None]
        if failure is not None and (failed[0] == self.rank or not isinstance(failure, Exception)):
            raise failure
        if failed:
            raise from_message(statuses[failed[0]].metadata["error"], self.names[failed[0]]) from failure

    @contextmanager
    def exchanging(self) -> Iterator[None]:
        """A block like :meth:`together` in which the ranks exchange something; after an error they connect anew.

        Raises
        ------
        RankEndedError
            If a rank has ended.
        Exception
            The error of a rank that raised one, with a note that names it.
        """
        if self._watch is None:
            yield
            return
        self._block += 1
        try:
            with self._watch.interrupting(self._block):
                yield
            # A rank that is done must not end while others need what it has sent.
            self._wait(lambda run: run.all_gather_tensor(_NOTHING), stopping=True)
        except StoppedError:
            self._give_up()
            self._raise_if_ended()
            failure = self._watch.failure
            raise from_message(failure["error"], self.names[failure["rank"]]) from None
        except BaseException as error:
            self._watch.tell_failed(self._block, self.rank, to_message(error))
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Leave an exchange that not all ranks will come to; the next call of :func:`current_group` connects anew."""
        assert self._operations is not None
        self._operations.abort()
        self._operations.close()
        _groups.clear()

    def close(self) -> None:
        """Leave the group."""
        if self._operations is not None:
            self._operations.close()
        if self._watch is not None:
            self._watch.close()

    def forget(self) -> None:
        """Let go of the connections, which another process keeps."""
        if self._watch is not None:
            self._watch.forget()

    def _unpacked(self, exchange: Callable[[Operations], list[tuple[Tensor, Tensor]]]) -> list[SavedState]:
        return [unpack(*parts) for parts in self._wait(exchange)]

    def _wait(self, operation: Callable[[Operations], T], *, stopping: bool = False) -> T:
        """The result of an operation, which runs in a thread of its own while this one keeps the watch.

        With ``stopping``, the failure of a rank in this block raises :class:`StoppedError`.
        """
        assert self._operations is not None
        self._raise_if_ended()
        future = self._operations.submit(operation)
        while not _is_done(future, _POLL_SECONDS):
            if stopping and self._watch is not None and self._watch.failure["block"] >= self._block:
                raise StoppedError
            if self._ended_rank() is not None and not _is_done(future, _ARRIVAL_SECONDS):
                self._raise_if_ended()
        try:
            return future.result()
        except RuntimeError as error:
            if self._watch is not None:
                self._watch.wait_for_end(_REASON_SECONDS)
            self._raise_if_ended()
            raise RuntimeError(
                f"{self.name} has lost its connection to another rank ({error}): "
                "look at the output of the other ranks, and start again."
            ) from error

    def _ended_rank(self) -> int | None:
        return None if self._watch is None else self._watch.ended

    def _raise_if_ended(self) -> None:
        rank = self._ended_rank()
        if rank is not None:
            assert self._operations is not None
            self._operations.abort()
            raise RankEndedError(rank, self.names[rank])


def _is_done(future: Future[Any], seconds: float) -> bool:
    return bool(wait([future], timeout=seconds).done)


# The group of the default process group, which a program may end and start again.
_groups: dict[object, Group] = {}


@atexit.register
def _leave() -> None:
    """Leave the group of an earlier process group; threads that are in gloo while Python ends would abort it."""
    while _groups:
        _groups.popitem()[1].close()


def _forget() -> None:
    """Let go of the connections in a child of this process: a rank that dies must close them, whoever lives on."""
    for group in _groups.values():
        group.forget()
    _groups.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def current_group() -> Group:
    """The ranks of this job: those of torch.distributed's default process group, or this process alone.

    The first call in a job connects the ranks, so all of them make it; further calls cost nothing.

    Raises
    ------
    RuntimeError
        If the ranks cannot reach each other.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return Group(0, 1)
    world = dist.group.WORLD
    if world not in _groups:
        _leave()
        _groups[world] = Group.of_world()
    return _groups[world]
