"""Backpressure of clients: a bound on unsent data, and evidence that a client reads; for every transport.

Invariants:

1. Above ``BUFFER_HIGH`` unsent bytes a session is paused: nothing more is written to it, and nothing more is
   read from its client, so that neither events nor replies can pile up.
2. A client shows that it reads by answering pings, or by making room for bytes that wait. What else it sends
   does not count.
"""

import asyncio
import socket
import struct
from typing import Any, Final

BUFFER_HIGH: Final = 64 * 1024
"""Bytes of unsent data above which a client counts as slow and its session is paused."""

BUFFER_LOW: Final = 16 * 1024
"""Bytes of unsent data at which a paused session resumes."""

KERNEL_BUFFER: Final = 128 * 1024
"""Bytes that the kernel buffers per client beyond what is in flight; by default they grow to several MiB."""

MAX_MISSED: Final = 2
"""Number of ping intervals in which a client may read nothing."""

_TCP_INFO_SIZE: Final = 148
_TCP_INFO: Final = struct.Struct("<24xI92xQ16xI")
"""``tcpi_unacked``, ``tcpi_bytes_acked`` and ``tcpi_notsent_bytes`` of Linux's ``struct tcp_info``."""


class ReadProgress:
    """Evidence that a client reads, collected from one ping to the next."""

    __slots__ = ("_accepted", "_missed", "_read", "_waiting")

    def __init__(self) -> None:
        self._accepted = 0
        self._waiting = False
        self._read = True
        self._missed = 0

    def __repr__(self) -> str:
        return f"ReadProgress({self._missed} intervals without progress)"

    def record_read(self) -> None:
        """Record that the client has certainly read, such as by answering a ping."""
        self._read = True

    def end_interval(self, accepted: int, *, waiting: bool) -> bool:
        """End an interval, with a ping.

        Args:
            accepted: number of bytes that the client has made room for so far.
            waiting: whether bytes wait for the client to make room.

        Returns:
            True if the client has read nothing for ``MAX_MISSED`` intervals.
        """
        # Without waiting bytes, a growing number does not show that the client reads: its kernel may have
        # buffered them.
        if self._read or (self._waiting and accepted > self._accepted):
            self._missed = 0
        else:
            self._missed += 1
        self._accepted, self._waiting, self._read = accepted, waiting, False
        return self._missed >= MAX_MISSED


def accepted_bytes(transport: asyncio.Transport) -> tuple[int, bool]:
    """Return the bytes that the client of a transport has made room for, and whether others wait for that.

    Without ``TCP_INFO`` the number is relative: it only grows while the transport's own buffer shrinks.
    """
    unsent = transport.get_write_buffer_size()
    info = _read_tcp_info(transport)
    if info is None:
        return -unsent, unsent > 0
    _, acked, not_sent = info
    return acked, unsent > 0 or not_sent > 0


def acknowledged_bytes(transport: asyncio.Transport) -> tuple[int, bool]:
    """Return the bytes that the client's system has acknowledged, and whether others await that.

    For transports without pings: what a client that has vanished was sent is never acknowledged. Without
    ``TCP_INFO`` this is ``accepted_bytes``.
    """
    accepted, waiting = accepted_bytes(transport)
    info = _read_tcp_info(transport)
    return accepted, waiting or (info is not None and info[0] > 0)


def _read_tcp_info(transport: asyncio.Transport) -> tuple[int, int, int] | None:
    """Return the fields of ``_TCP_INFO``; None if the system or the socket does not have them."""
    sock: Any = transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "TCP_INFO") or sock.fileno() < 0:
        return None
    # uvloop's object has no ``getsockopt``. This one is detached below, which leaves the descriptor open.
    plain = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.fileno())
    try:
        info = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:  # not TCP, or closed meanwhile
        return None
    finally:
        plain.detach()
    return None if len(info) < _TCP_INFO_SIZE else _TCP_INFO.unpack_from(info)
