"""How a connection ends: its client reads the last word, even while it is still sending.

When a socket is closed while bytes from its peer are unread, the kernel answers with a reset, and a reset
discards what the peer has not read yet: a close frame, or the answer that says what was wrong. So the relay
ends only its own side, then reads and drops what comes until the client has ended too. nginx calls this a
lingering close; HTTP and WebSocket share the one below.

Invariants:

1. Nothing is written to a transport once its end has begun: ``LingeringTransport`` drops it.
2. A connection lingers for at most ``LINGER_TIME`` and ``LINGER_BYTES``, longer only while an answer is still
   being delivered, and never beyond ``DELIVERY_TIME``. What is dropped takes no memory.
3. The protocol hears of the end of the socket exactly once, as without lingering; until then the socket
   counts for whatever it counted for before.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

LINGER_TIME: Final = 5.0
"""Seconds for which the input of a client is dropped; one that has read the last word closes before that."""

LINGER_BYTES: Final = 16 * 1024 * 1024
"""Bytes that are dropped before a client is cut: sixteen messages of the largest size."""

DELIVERY_TIME: Final = 60.0
"""Seconds for which the rest of an answer may take to be sent to a client that reads slowly."""


class LingeringTransport(asyncio.Transport):
    """A transport whose ``close`` is a lingering one.

    Args:
        transport: of the connection.
        wire: transport of its socket; another one with TLS.

    Attributes:
        write: of the transport itself, without a detour, since each event takes it; drops once the end began.
    """

    __slots__ = ("_ending", "_transport", "_wire", "write")

    write: Callable[[bytes | bytearray | memoryview], None]  # type: ignore[assignment]

    def __init__(self, transport: asyncio.Transport, wire: asyncio.Transport) -> None:
        self._transport = transport
        self._wire = wire
        self._ending = False
        self.write = transport.write

    def __repr__(self) -> str:
        return f"LingeringTransport({self._transport!r}, ending={self._ending})"

    def close(self) -> None:
        """Send what is buffered, end this side, and drop what the client sends until it has ended too."""
        if self.is_closing():
            return
        self._ending = True
        self.write = _drop
        linger(self._transport, self._wire)

    def abort(self) -> None:
        """Cut the connection, whatever is still to be sent."""
        self._ending = True
        self.write = _drop
        self._wire.abort()

    def is_closing(self) -> bool:
        """Return True once nothing is written or read any more."""
        return self._ending or self._transport.is_closing()

    # As the transport has them.

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
    """End this side of a connection, and drop what its client still sends until it has ended too.

    Args:
        transport: of the connection; it must not be written to, or closed, from here on.
        wire: transport of its socket, where that is another one.
    """
    wire = wire or transport
    if wire is transport:
        wire.write_eof()
    else:
        # TLS has an end of its own, and asyncio then waits for the client's. What comes until then is dropped
        # below TLS: a message behind that end would be an error there, which cuts the connection. The same
        # holds for one that came while reading was paused, and is read out by this.
        transport.resume_reading()
        transport.close()
    if wire.is_closing():
        return
    wire.set_protocol(_Dropper(transport, wire))
    wire.resume_reading()


def _drop(data: bytes | bytearray | memoryview) -> None:
    """Write nothing."""


class _Dropper(asyncio.Protocol):
    """Reads and drops what a client sends; all else is for the protocol that was there before."""

    __slots__ = ("_before", "_dropped", "_latest", "_loop", "_timer", "_transport", "_wire")

    def __init__(self, transport: asyncio.Transport, wire: asyncio.Transport) -> None:
        self._transport = transport
        self._wire = wire
        self._before = cast(asyncio.Protocol, wire.get_protocol())
        self._dropped = 0
        self._loop = asyncio.get_running_loop()
        self._latest = self._loop.time() + DELIVERY_TIME
        self._timer = self._loop.call_later(LINGER_TIME, self._late)

    def __repr__(self) -> str:
        return f"_Dropper({self._dropped} bytes, {self._before!r})"

    def data_received(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > LINGER_BYTES:
            self._wire.abort()

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._before.connection_lost(exc)

    def _late(self) -> None:
        unsent = self._transport.get_write_buffer_size() or self._wire.get_write_buffer_size()
        if unsent and self._loop.time() < self._latest:
            self._timer = self._loop.call_later(LINGER_TIME, self._late)
        else:
            self._wire.abort()
