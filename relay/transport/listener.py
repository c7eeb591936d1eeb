"""A port that is listened on at every address of its host: ``localhost`` is one for IPv4 and one for IPv6.

Invariant: all sockets of a listener have the same port.
"""

import errno
import socket
from typing import Final

from tickertape.process.addresses import Address, is_unavailable, resolve
from tickertape.process.listeners import bound_address, is_listening

BACKLOG: Final = 4096
"""Connections that the system holds until they are accepted."""

ATTEMPTS: Final = 20
"""Free ports that are tried until one is free at all addresses."""


class Listener:
    """Bound sockets of one port.

    Args:
        host: name or address, as the operator gave it.
        sockets: bound, at least one.

    Attributes:
        port: of all of them.
        address: ``host:port`` for people: the address of the only socket, the name of several.
    """

    def __init__(self, host: str, sockets: list[socket.socket]) -> None:
        self.sockets = sockets
        self.port = int(sockets[0].getsockname()[1])
        self.address = bound_address(sockets[0]) if len(sockets) == 1 else f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"Listener({self.address}, {len(self.sockets)} sockets)"

    def is_listening(self) -> bool:
        """Tell whether the system still takes connections for all of them."""
        return all(is_listening(one) for one in self.sockets)

    def close(self) -> None:
        """Close all of them."""
        for one in self.sockets:
            one.close()


def bind(host: str, port: int, *, shared: bool = False) -> Listener:
    """Listen on a port at every address of a host; addresses that this machine has not are left out.

    Args:
        host: name or address.
        port: 0 takes one that is free at all of them.
        shared: with other processes of the same user, among whom the system spreads the connections; it is
            bound only, and the process that accepts them begins to listen.

    Raises:
        OSError: no address can be had, or one of them is in use.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return Listener(host, _bound(resolve(host, port), shared=shared))
        except OSError as error:
            # What is free at the first address may be taken at the second.
            if port or error.errno != errno.EADDRINUSE or attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _bound(wanted: list[Address], *, shared: bool) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    refused: OSError | None = None
    try:
        for family, address in wanted:
            if sockets:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sockets.append(_socket(family, address, shared=shared, alone=len(wanted) == 1))
            except OSError as error:
                if not is_unavailable(error):
                    raise
                refused = error
        if not sockets:
            assert refused is not None
            raise refused
    except OSError:
        for one in sockets:
            one.close()
        raise
    return sockets


def _socket(
    family: socket.AddressFamily, address: tuple[object, ...], *, shared: bool, alone: bool
) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and not alone:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.setblocking(False)
        if not shared:
            made.listen(BACKLOG)  # before that, others that may share an address can have the port too
    except OSError:
        made.close()
        raise
    return made
