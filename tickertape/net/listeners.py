"""Helpers for programs that listen on a port: the error type and a check that a socket still listens."""

import errno
import socket
from typing import Final

from tickertape.errors import OperatorError
from tickertape.urls import host_port

POLL_INTERVAL: Final = 1.0
"""Seconds between two checks of a listening socket."""


class ListenError(OperatorError):
    """Failure to listen on a port, or to keep listening on it.

    Args:
        message: what happened, and to which address.
        hint: what the operator can do.
        in_use: whether another socket has the address.
    """

    def __init__(self, message: str, hint: str, *, in_use: bool = False) -> None:
        super().__init__(message, hint)
        self.in_use = in_use


def listen_error(error: OSError, address: str, option: str) -> ListenError:
    """Return the error for an address that cannot be listened on.

    Args:
        error: error of ``bind``.
        address: ``host:port``, for the message.
        option: option of the port, such as ``--ops-port``; that of the host differs in this word.
    """
    if error.errno == errno.EADDRINUSE:
        return ListenError(f"{address} is already in use", f"choose another {option}", in_use=True)
    if error.errno == errno.EAFNOSUPPORT:
        host = option.replace("port", "host")
        return ListenError(
            f"cannot listen on {address}: this machine has no IPv6", f"choose another {host}, such as 0.0.0.0"
        )
    # EACCES means a privileged port; every other error is caused by the host.
    other = option if error.errno == errno.EACCES else option.replace("port", "host")
    return ListenError(f"cannot listen on {address}: {error.strerror or error}", f"choose another {other}")


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
