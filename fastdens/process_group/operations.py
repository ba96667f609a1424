"""Exchanges over gloo, one after the other in a thread of their own: Python can interrupt no wait inside gloo."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
Parts = tuple[Tensor, Tensor]

# Bytes that an exchange holds at a time, over all ranks, beside what it sends and receives.
_ROUND_BYTES = 1 << 28
# How long a group that is left waits for its last exchange.
_LAST_SECONDS = 5.0


class Operations:
    """Exchanges of headers and contents, uint8 on the CPU, among the ranks of a gloo group."""

    def __init__(self, control: dist.ProcessGroup) -> None:
        self._control, self._is_open = control, True
        self._rank, self._size = dist.get_rank(control), dist.get_world_size(control)
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        # A daemon: an exchange with a rank that is lost must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="fastdens-exchange", daemon=True)
        self._thread.start()

    def submit(self, operation: Callable[[Operations], T]) -> Future[T]:
        """Begin an operation when those before it are done."""
        future: Future[T] = Future()
        self._waiting.put((future, lambda: operation(self)))
        return future

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            future, operation = waiting
            try:
                future.set_result(operation())
            except BaseException as error:
                future.set_exception(error)

    def close(self) -> None:
        """End the thread, and those of gloo: one that lets go of a tensor while Python ends aborts the process."""
        self._waiting.put(None)
        self._thread.join(_LAST_SECONDS)
        if self._is_open and not self._thread.is_alive():
            self._is_open = False
            # A program may have ended all groups.
            with suppress(ValueError):
                dist.destroy_process_group(self._control)
            del self._control

    def wait_for(self, patience: timedelta) -> None:
        """How long an exchange waits for ranks that have not come to it."""
        self._control._get_backend(torch.device("cpu"))._set_default_timeout(patience)

    def abort(self) -> None:
        """Give up the exchange that is under way; a closed group has none."""
        if self._is_open:
            with suppress(RuntimeError):
                self._control.abort()

    def all_gather_tensor(self, tensor: Tensor) -> Tensor:
        """Tensors of one shape, [P, ...]."""
        result = tensor.new_empty(self._size, *tensor.shape)
        dist.all_gather(list(result), tensor, group=self._control)
        return result

    def send(self, tensor: Tensor, rank: int) -> None:
        """To a rank that receives it."""
        dist.send(tensor, rank, group=self._control)

    def receive(self, tensor: Tensor, rank: int) -> None:
        """Fill a tensor with what a rank sends."""
        dist.recv(tensor, rank, group=self._control)

    def broadcast_tensor(self, tensor: Tensor, root: int) -> None:
        """Fill a tensor with that of rank ``root``."""
        dist.broadcast(tensor, root, group=self._control)

    def all_gather(self, header: Tensor, content: Tensor) -> list[Parts]:
        """Header and content of every rank."""
        lengths, headers = self._all_headers(header, content)
        contents = [_bytes(length) for _, length in lengths]
        step = max(1 << 16, _ROUND_BYTES // self._size)
        for at in range(0, max(length for _, length in lengths), step):
            # Pieces of one length, though contents differ in theirs.
            width = min(step, max(length for _, length in lengths) - at)
            received = self.all_gather_tensor(_piece(content, at, width))
            for own, piece in zip(contents, received, strict=True):
                own[at : at + width] = piece[: max(0, len(own) - at)]
        return list(zip(headers, contents, strict=True))

    def gather(self, header: Tensor, content: Tensor, root: int) -> list[Parts]:
        """Header and content of every rank on ``root``; nothing on the others."""
        lengths, headers = self._all_headers(header, content)
        if self._rank != root:
            for piece in torch.split(content, _ROUND_BYTES):
                self.send(piece, root)
            return []
        contents = []
        for rank, (_, length) in enumerate(lengths):
            contents.append(content if rank == root else _bytes(length))
            if rank != root:
                for piece in torch.split(contents[-1], _ROUND_BYTES):
                    self.receive(piece, rank)
        return list(zip(headers, contents, strict=True))

    def broadcast(self, parts: Parts | None, root: int) -> list[Parts]:
        """Header and content of ``root`` on every rank."""
        lengths = torch.tensor([len(part) for part in parts or ((), ())], dtype=torch.int64, device="cpu")
        self.broadcast_tensor(lengths, root)
        header, content = parts or tuple(_bytes(length) for length in lengths.tolist())
        for part in (header, content):
            for piece in torch.split(part, _ROUND_BYTES):
                if len(piece):
                    self.broadcast_tensor(piece, root)
        return [(header, content)]

    def _all_headers(self, header: Tensor, content: Tensor) -> tuple[list[list[int]], list[Tensor]]:
        """Lengths of header and content of every rank, and the headers."""
        own = torch.tensor([len(header), len(content)], dtype=torch.int64, device="cpu")
        lengths = self.all_gather_tensor(own).tolist()
        headers = self.all_gather_tensor(_piece(header, 0, max(length for length, _ in lengths)))
        return lengths, [padded[:length] for padded, (length, _) in zip(headers, lengths, strict=True)]


def _bytes(length: int) -> Tensor:
    return torch.empty(length, dtype=torch.uint8, device="cpu")


def _piece(content: Tensor, at: int, width: int) -> Tensor:
    """``width`` bytes from ``at``, with zeros after the end."""
    own = content[at : at + width]
    return torch.nn.functional.pad(own, (0, width - len(own)))
