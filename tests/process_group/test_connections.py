"""Connections of ranks to rank 0: a stranger at the port is turned away, and does not keep the ranks waiting."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from fastdens.process_group.connections import Server, connect

NAMES = ["rank 0", "rank 1", "rank 2"]


@pytest.mark.parametrize("greeting", [b"", b"\0" * 20, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4000])
def test_a_stranger_is_turned_away(greeting):
    server = Server()
    invitation = {**server.invitation, "addresses": ["127.0.0.1"]}
    with ThreadPoolExecutor() as pool:
        accepted = pool.submit(server.accept, NAMES)
        with socket.create_connection(("127.0.0.1", invitation["port"]), 5) as stranger:
            stranger.sendall(greeting)
            stranger.shutdown(socket.SHUT_WR)
            ranks = {rank: pool.submit(connect, invitation, rank, NAMES) for rank in (2, 1)}
            connections = accepted.result(20)
            # No welcome: the connection is closed, or reset with what was not read.
            with suppress(ConnectionResetError):
                assert stranger.recv(10) == b""
        for rank, own in connections.items():
            own.sendall(f"{rank}".encode())
            assert ranks[rank].result(5).recv(10) == f"{rank}".encode()
        assert sorted(connections) == [1, 2]
        # Nobody else comes in later.
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", invitation["port"]), 1)
        for connection in [*connections.values(), *(own.result() for own in ranks.values())]:
            connection.close()
