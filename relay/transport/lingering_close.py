"""Lingering close: a client receives the final response even while it is still sending.

When a socket is closed while bytes from its peer are unread, the kernel sends a reset, and a reset discards
what the peer has not read yet: a close frame, or the response that explains an error. So the relay shuts down
only its own side, then reads and discards input until the client has closed its side too. nginx calls this a
lingering close; HTTP and WebSocket share this implementation.

Invariants:

1. Nothing is written to a transport once it is closing: ``LingeringTransport`` discards it.
2. A connection lingers for at most ``LINGER_TIME`` and ``LINGER_BYTES``, longer only while a response is
   still being delivered, and never beyond ``DELIVERY_TIME``. Discarded input takes no memory.
3. The protocol's ``connection_lost`` is called exactly once, as without lingering; until then the socket
   keeps its client slot.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

LINGER_TIME: Final = 5.0
"""Seconds for which input is discarded; a client that has read the final response closes earlier."""

LINGER_BYTES: Final = 16 * 1024 * 1024
"""Bytes that are discarded before a client is disconnected: sixteen messages of the maximum size."""

DELIVERY_TIME: Final = 60.0
"""Seconds within which a slow client must read the rest of a response."""


class LingeringTransport(asyncio.Transport):
    """Transport whose ``close`` is a lingering close.

    Args:
        transport: transport of the connection.
        wire: transport of the socket; differs from ``transport`` with TLS.

    Attributes:
        write: the transport's own method, without indirection, since it is called for each event; discards
            data once the connection is closing.
    """

    __slots__ = ("_closing", "_transport", "_wire", "write")

    write: Callable[[bytes | bytearray | memoryview], None]  # type: ignore[assignment]

    def __init__(self, transport: asyncio.Transport, wire: asyncio.Transport) -> None:
        self._transport = transport
        self._wire = wire
        self._closing = False
        self.write = transport.write

    def __repr__(self) -> str:
        return f"LingeringTransport({self._transport!r}, closing={self._closing})"

    def close(self) -> None:
        """Send buffered data, shut down this side, and discard input until the client closes its side."""
        if self.is_closing():
            return
        self._closing = True
        self.write = _discard
        linger(self._transport, self._wire)

    def abort(self) -> None:
        """Close the connection immediately and discard unsent data."""
        self._closing = True
        self.write = _discard
        self._wire.abort()

    def is_closing(self) -> bool:
        """Return whether the connection is closing or closed."""
        return self._closing or self._transport.is_closing()

    # Delegated to the transport.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)


def linger(transport: asyncio.Transport, wire: asyncio.Transport | None = None) -> None:
    """Shut down this side of a connection, and discard input until the client closes its side.

    Args:
        transport: transport of the connection; the caller must not write to it or close it afterwards.
        wire: transport of the socket, if it is a different one.
    """
    wire = wire or transport
    if wire is transport:
        wire.write_eof()
    else:
        # TLS has its own shutdown, and asyncio then waits for the client's. Input until then is discarded
        # below TLS: a record after the shutdown would be a TLS error, which closes the connection. The same
        # applies to input that arrived while reading was paused; resuming reads it first.
        transport.resume_reading()
        transport.close()
    if wire.is_closing():
        return
    wire.set_protocol(_DiscardingProtocol(transport, wire))
    # The end of the client's side is noticed only by reading, and reading may have been paused.
    wire.resume_reading()


def _discard(data: bytes | bytearray | memoryview) -> None:
    """Discard data that is written after the close."""


class _DiscardingProtocol(asyncio.Protocol):
    """Protocol that discards input; all other callbacks go to the original protocol."""

    # ``eof_received`` is inherited and returns None, upon which the transport closes the socket.
    __slots__ = ("_deadline", "_discarded", "_loop", "_original", "_timer", "_transport", "_wire")

    def __init__(self, transport: asyncio.Transport, wire: asyncio.Transport) -> None:
        self._transport = transport
        self._wire = wire
        self._original = cast(asyncio.Protocol, wire.get_protocol())
        self._discarded = 0
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + DELIVERY_TIME
        self._timer = self._loop.call_later(LINGER_TIME, self._check_delivery)

    def __repr__(self) -> str:
        return f"_DiscardingProtocol({self._discarded} bytes, {self._original!r})"

    def data_received(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > LINGER_BYTES:
            self._wire.abort()

    def pause_writing(self) -> None:
        self._original.pause_writing()

    def resume_writing(self) -> None:
        self._original.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._original.connection_lost(exc)

    def _check_delivery(self) -> None:
        unsent = self._transport.get_write_buffer_size() or self._wire.get_write_buffer_size()
        if unsent and self._loop.time() < self._deadline:
            self._timer = self._loop.call_later(LINGER_TIME, self._check_delivery)
        else:
            self._wire.abort()
