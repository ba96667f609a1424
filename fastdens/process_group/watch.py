"""The watch over the ranks: each holds a connection to rank 0, which the system closes however a process ends.

Nothing is sent over the connections while all is well. The systems of the hosts ask each other whether they are still
there, so that a lost host or a cut cable shows within half a minute, however busy Python is on either side.
"""

from __future__ import annotations

import ctypes
import json
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

_REPEAT_SECONDS = 10.0


class StoppedError(BaseException):
    """Raised in the thread of an interrupted block: another rank has failed or ended."""


class Watch:
    """The connections of one rank, and what they have told.

    Attributes
    ----------
    ended : int or None
        The rank that ended first, once one has.
    failure : dict
        The latest block in which a rank has failed, its rank and its error as JSON holds it; block 0 for none.
    """

    def __init__(self, connections: Mapping[int, socket.socket]) -> None:
        self.ended: int | None = None
        self._connections = dict(connections)
        self._is_relay = 0 not in self._connections
        self._lock = threading.Lock()
        self._end_is_known = threading.Event()
        self.failure: dict[str, Any] = {"block": 0}
        # The thread and the number of a block that goes on, and when it may be interrupted next.
        self._interrupted: tuple[int, int] | None = None
        self._next_time = 0.0
        self._thread = threading.Thread(target=self._listen, name="fastdens-watch", daemon=True)
        self._thread.start()

    @contextmanager
    def interrupting(self, block: int) -> Iterator[None]:
        """Raise :class:`StoppedError` in the block if another rank ends, or fails in its block of this number."""
        thread = threading.get_ident()
        with self._lock:
            if self._stops(block):
                raise StoppedError
            self._interrupted = (thread, block)
            self._next_time = 0.0
        try:
            yield
        finally:
            with self._lock:
                self._interrupted = None
                # One that was not raised yet has no block any longer.
                _raise_in_thread(thread, None)

    def tell_failed(self, block: int, rank: int, error: Mapping[str, Any]) -> None:
        """Tell the other ranks that this one has failed in a block."""
        self._note({"block": block, "rank": rank, "error": error}, but=None)

    def wait_for_end(self, seconds: float) -> None:
        """Wait until a rank is known to have ended, but not longer."""
        self._end_is_known.wait(seconds)

    def close(self) -> None:
        """Close the connections, which ends the thread."""
        with self._lock:
            for connection in self._connections.values():
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.forget()

    def forget(self) -> None:
        """Let go of the connections without closing them for a process that shares them."""
        for connection in self._connections.values():
            connection.close()

    def _listen(self) -> None:
        """Hear what the connections tell until all are closed."""
        heard = dict.fromkeys(self._connections, b"")
        with selectors.DefaultSelector() as selector:
            for rank, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            while selector.get_map() or self._is_due():
                for key, _ in selector.select(_REPEAT_SECONDS if self._is_due() else None):
                    rank = key.data
                    content = _received(self._connections[rank])
                    if not content:
                        selector.unregister(key.fileobj)
                        self._note({"ended": rank}, but=rank)
                        continue
                    *lines, heard[rank] = (heard[rank] + content).split(b"\n")
                    for line in lines:
                        self._note(json.loads(line), but=rank)
                with self._lock:
                    self._interrupt()

    def _note(self, message: dict[str, Any], but: int | None) -> None:
        """Remember a message, interrupt a block that it concerns, and pass it on."""
        with self._lock:
            if "block" in message:
                if message["block"] > self.failure["block"]:
                    self.failure = message
            elif self.ended is None:
                self.ended = message["ended"]
            if but is not None:
                self._interrupt()
            line = json.dumps(message).encode() + b"\n"
            if self._is_relay or but is None:
                for rank, connection in self._connections.items():
                    if rank != but:
                        with suppress(OSError):
                            connection.sendall(line)
        if self.ended is not None:
            self._end_is_known.set()

    def _interrupt(self) -> None:
        """Interrupt a block that a message concerns: again after a while, for a callback may swallow an exception."""
        if self._interrupted is None or not self._is_due():
            return
        thread, _ = self._interrupted
        if time.monotonic() >= self._next_time:
            self._next_time = time.monotonic() + _REPEAT_SECONDS
            _raise_in_thread(thread, StoppedError)

    def _is_due(self) -> bool:
        """Whether a block goes on that a message concerns."""
        interrupted = self._interrupted
        return interrupted is not None and self._stops(interrupted[1])

    def _stops(self, block: int) -> bool:
        return self.ended is not None or self.failure["block"] >= block


def _received(connection: socket.socket) -> bytes:
    """What has arrived; nothing if the connection is closed or lost."""
    try:
        return connection.recv(4096)
    except OSError:
        return b""


def _raise_in_thread(thread: int, error: type[BaseException] | None) -> None:
    """Raise in a thread before its next instruction; None takes back what was not raised yet."""
    what = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)
