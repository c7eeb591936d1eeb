"""Helpers for programs that listen on a port: the error type and a check that a socket still listens."""

import socket
from typing import Final

from tickertape.errors import OperatorError
from tickertape.urls import host_port

POLL_INTERVAL: Final = 1.0
"""Seconds between two checks of a listening socket."""


class ListenError(OperatorError):
    """Failure to listen on a port, or to keep listening on it."""


def is_listening(listener: socket.socket) -> bool:
    """Return whether the kernel still accepts connections on a socket."""
    try:
        return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False  # closed


def bound_address(listener: socket.socket) -> str:
    """Return ``host:port`` of a bound socket."""
    host, port = listener.getsockname()[:2]
    return host_port(host, port)


def listener_lost(address: str) -> ListenError:
    """Return the error for a listening socket that was closed unexpectedly."""
    return ListenError(f"no longer listening on {address}", "restart the program")
