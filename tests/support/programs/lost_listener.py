"""Closes a listening socket of a running program from outside, as a fault of the system would."""

import ctypes
import os
import socket
from pathlib import Path
from typing import Final

import pytest

_PIDFD_GETFD: Final = 438
"""Number of the system call, the same on every architecture of Linux."""

_libc = ctypes.CDLL(None, use_errno=True)


def lose_listener(pid: int, port: int, host: str | None = None) -> None:
    """Shut down the listening socket of a process.

    Args:
        pid: process id.
        port: port of the socket.
        host: address of the socket; None matches any.

    Raises:
        LookupError: the process has no such socket.
    """
    try:
        process = os.pidfd_open(pid)
    except (AttributeError, OSError) as error:
        pytest.skip(f"needs pidfd_open: {error}")
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if not os.readlink(entry).startswith("socket:"):
                continue
            copy = _libc.syscall(_PIDFD_GETFD, process, int(entry.name), 0)
            if copy < 0:
                pytest.skip(f"needs pidfd_getfd: {os.strerror(ctypes.get_errno())}")
            with socket.socket(fileno=copy) as found:
                if found.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and found.getsockname()[1] == port and host in (None, found.getsockname()[0]):
                    found.shutdown(socket.SHUT_RDWR)
                    return
    finally:
        os.close(process)
    raise LookupError(f"process {pid} does not listen on {port}")
