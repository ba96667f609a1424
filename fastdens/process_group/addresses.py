"""The addresses under which other hosts may reach this one."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress

# Linux's request for the address of an interface.
_SIOCGIFADDR, _NAME_BYTES = 0x8915, 16


def own_addresses() -> list[str]:
    """Addresses and names of this host, the likeliest first; some may lead nowhere, or to another host.

    First that of the interface which the user has named for gloo, then the address at which ranks found each other,
    those of the host's name, and those of all other interfaces.
    """
    named = os.environ.get("GLOO_SOCKET_IFNAME", "").split(",")
    addresses = [_interface_address(name) for name in named]
    addresses.append(os.environ.get("MASTER_ADDR"))
    with suppress(OSError):
        addresses += [str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None)]
    addresses += [_interface_address(name) for _, name in socket.if_nameindex()]
    return list(dict.fromkeys(address for address in addresses if address))


def _interface_address(name: str) -> str | None:
    """The IPv4 address of an interface; None where it has none, or the system does not tell."""
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("256s", name[: _NAME_BYTES - 1].encode())
            return socket.inet_ntoa(fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, request)[20:24])
    except (ImportError, OSError):
        return None
