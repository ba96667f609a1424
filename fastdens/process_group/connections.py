"""Connections of all ranks to rank 0, which the systems on both sides watch over.

Rank 0 opens a port and invites the others; the invitation, which travels over the process group, holds a secret that
tells the ranks of this job from strangers.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fastdens.process_group.addresses import own_addresses

# A host that does not answer for 10 + 4 * 5 seconds is lost.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}
_CONNECT_SECONDS, _ANSWER_SECONDS = 60.0, 2.0
_TOKEN_BYTES, _RANK_BYTES, _WELCOME = 16, 4, b"\x06"


class Server:
    """An open port of rank 0.

    Attributes
    ----------
    invitation : dict
        Addresses, port and secret, as JSON holds them.
    """

    def __init__(self) -> None:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self._socket = socket.create_server(("", 0), family=family, backlog=1024, dualstack_ipv6=dual)
        self._token = secrets.token_bytes(_TOKEN_BYTES)
        port = self._socket.getsockname()[1]
        self.invitation = {"addresses": own_addresses(), "port": port, "token": self._token.hex()}

    def accept(self, names: list[str]) -> dict[int, socket.socket]:
        """The connections of ranks 1, 2, ..., once all have come; the port is closed then.

        Raises
        ------
        RuntimeError
            If one has not come within a minute.
        """
        connections: dict[int, socket.socket] = {}
        deadline = time.monotonic() + _CONNECT_SECONDS
        with self._socket:
            while len(connections) < len(names) - 1:
                self._socket.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    connection, _ = self._socket.accept()
                except TimeoutError:
                    late = ", ".join(name for rank, name in enumerate(names) if rank and rank not in connections)
                    raise RuntimeError(
                        f"{names[0]} was not reached by {late}: let the hosts of the job connect to each other."
                    ) from None
                rank = self._greeted(connection)
                if rank is None:
                    connection.close()
                else:
                    connections[rank] = _kept_alive(connection)
        return connections

    def _greeted(self, connection: socket.socket) -> int | None:
        """The rank that has come; None for a stranger."""
        connection.settimeout(_ANSWER_SECONDS)
        with suppress(OSError), connection.makefile("rb") as stream:
            greeting = stream.read(_TOKEN_BYTES + _RANK_BYTES)
            if secrets.compare_digest(greeting[:_TOKEN_BYTES], self._token):
                connection.sendall(_WELCOME)
                return int.from_bytes(greeting[_TOKEN_BYTES:], "big")
        return None


def connect(invitation: Mapping[str, Any], rank: int, names: list[str]) -> socket.socket:
    """The connection of a rank to rank 0, at the first of its addresses that answers.

    Raises
    ------
    RuntimeError
        If none does within a minute.
    """
    greeting = bytes.fromhex(invitation["token"]) + rank.to_bytes(_RANK_BYTES, "big")
    deadline = time.monotonic() + _CONNECT_SECONDS
    while time.monotonic() < deadline:
        for address in invitation["addresses"]:
            with suppress(OSError):
                connection = socket.create_connection((address, invitation["port"]), _ANSWER_SECONDS)
                connection.sendall(greeting)
                if connection.recv(len(_WELCOME)) == _WELCOME:
                    return _kept_alive(connection)
                connection.close()
        time.sleep(0.1)
    raise RuntimeError(
        f"{names[rank]} cannot reach {names[0]} at {', '.join(invitation['addresses'])}, port {invitation['port']}: "
        "let the hosts of the job connect to each other, or name the network between them in GLOO_SOCKET_IFNAME."
    )


def _kept_alive(connection: socket.socket) -> socket.socket:
    """The connection, over which the systems of both hosts ask for each other."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        # Each system has its own choice of them.
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
