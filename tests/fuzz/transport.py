"""A transport without a socket: it records what a protocol writes, and time advances only on request."""

import asyncio
from typing import Any, Final

PEER: Final = ("203.0.113.7", 50_000)
_OWN: Final = ("127.0.0.1", 8080)


class StandingLoop(asyncio.SelectorEventLoop):
    """Event loop whose clock is set by hand."""

    now = 1_000.0

    def time(self) -> float:
        return self.now

    async def pass_time(self, seconds: float) -> None:
        """Advance the clock and run the timers that are due."""
        self.now += seconds
        for _ in range(3):
            await asyncio.sleep(0)

    def timers(self) -> int:
        """Return the pending timers."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined]


class FakeTransport(asyncio.Transport):
    """Server side of one socket.

    Attributes:
        written: bytes that the protocol has written so far.
        lost: True once the protocol has been told that the connection is closed.
        reading: False while the protocol has paused reading.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.written = bytearray()
        self.lost = False
        self.reading = True
        self.full = False
        self._loop = loop
        self._closing = False
        self._ended = False
        self._protocol: Any = None

    # Methods for the fuzzer.

    def open(self, protocol: Any) -> None:
        """Open the connection."""
        self._protocol = protocol
        protocol.connection_made(self)

    def receive(self, data: bytes) -> None:
        """Deliver the bytes of one read."""
        if self._closing:
            return
        self._protocol.data_received(data)

    def end(self) -> None:
        """Deliver the end of the peer's stream."""
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def fill(self, *, full: bool) -> None:
        """Let the peer stop reading, or resume."""
        if self.full != full and not self._closing:
            self.full = full
            (self._protocol.pause_writing if full else self._protocol.resume_writing)()

    def lose(self) -> None:
        """Close the connection."""
        self._closing = True
        if not self.lost:
            self.lost = True
            self._protocol.connection_lost(None)
            self._protocol = None  # as uvloop does

    # Methods for the protocol.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": PEER, "sockname": _OWN}.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.lose)

    def abort(self) -> None:
        self._closing = True
        self._loop.call_soon(self.lose)

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        assert not self._ended, "a write behind the end"
        if not self._closing:
            self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._ended = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 1 << 20 if self.full else 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
