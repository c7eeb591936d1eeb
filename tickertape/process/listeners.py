"""What every program that listens on a port shares: the error, and whether a socket still listens."""

import socket
from typing import Final

from tickertape.errors import OperatorError
from tickertape.urls import host_port

POLL_INTERVAL: Final = 1.0
"""Seconds between two looks at a listener."""


class ListenError(OperatorError):
    """A port cannot be listened on, or is not listened on any more."""


def is_listening(listener: socket.socket) -> bool:
    """Tell whether the system still takes connections for a socket."""
    try:
        return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False  # it is closed


def bound_address(listener: socket.socket) -> str:
    """``host:port`` of a bound socket."""
    host, port = listener.getsockname()[:2]
    return host_port(host, port)


def listener_lost(address: str) -> ListenError:
    """Return the error for a listener that was lost."""
    return ListenError(f"{address} is no longer listened on", "start the program again")
