"""Listening sockets of one port on every address of its host: ``localhost`` has an IPv4 and an IPv6 address.

Invariant: all sockets of a listener have the same port.
"""

import errno
import socket
from typing import Final

from tickertape.relay.transport.backpressure import KERNEL_BUFFER

from tickertape.net.addresses import Address, is_unavailable, resolve
from tickertape.net.listeners import bound_address, is_listening

BACKLOG: Final = 4096
"""Maximum number of connections that the kernel queues until they are accepted."""

MAX_BIND_ATTEMPTS: Final = 20
"""Maximum number of ports to try until a port is free on all addresses of the host."""


class Listener:
    """Bound sockets of one port.

    Args:
        host: name or address, as configured.
        sockets: bound sockets; at least one.

    Attributes:
        port: port of all sockets.
        address: ``host:port`` for messages: the address of a single socket, or the host name of several.
    """

    def __init__(self, host: str, sockets: list[socket.socket]) -> None:
        self.sockets = sockets
        self.port = int(sockets[0].getsockname()[1])
        self.address = bound_address(sockets[0]) if len(sockets) == 1 else f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"Listener({self.address}, {len(self.sockets)} sockets)"

    def is_listening(self) -> bool:
        """Return whether all sockets still accept connections."""
        return all(is_listening(sock) for sock in self.sockets)

    def close(self) -> None:
        """Close all sockets."""
        for sock in self.sockets:
            sock.close()


def bind(host: str, port: int, *, shared: bool = False) -> Listener:
    """Listen on a port on every address of a host that this machine has.

    Args:
        host: name or address.
        port: port number; 0 selects a port that is free on all addresses.
        shared: whether to share the port with other processes of the same user, among which the kernel
            distributes connections. The sockets are then only bound; the accepting process listens on them.

    Raises:
        OSError: no address can be bound, or one of them is in use.
    """
    for attempt in range(1, MAX_BIND_ATTEMPTS + 1):
        try:
            return Listener(host, _bind_all(resolve(host, port), shared=shared))
        except OSError as error:
            # A port that is free on the first address may be in use on the second.
            if port or error.errno != errno.EADDRINUSE or attempt == MAX_BIND_ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _bind_all(targets: list[Address], *, shared: bool) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    unavailable: OSError | None = None
    try:
        for family, address in targets:
            if sockets:
                # With port 0, the kernel chose a port for the first address; the others need the same.
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sockets.append(_open_socket(family, address, shared=shared, only=len(targets) == 1))
            except OSError as error:
                if not is_unavailable(error):
                    raise
                # Skipped as long as another address can be bound: ``localhost`` has an IPv6 address even
                # where IPv6 is disabled.
                unavailable = error
        if not sockets:
            assert unavailable is not None
            raise unavailable
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _open_socket(
    family: socket.AddressFamily, address: tuple[object, ...], *, shared: bool, only: bool
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Otherwise a restart fails while connections of the previous process are in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and not only:
            # An IPv6 wildcard would also take the IPv4 port, which has its own socket here; a single wildcard
            # serves both families.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Inherited by the sockets of clients: one that does not read must not cost megabytes there.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BUFFER)
        sock.bind(address)
        sock.setblocking(False)
        if not shared:
            sock.listen(BACKLOG)  # until then, another process may bind the same port
    except OSError:
        sock.close()
        raise
    return sock
