"""A socket without a socket: what a protocol writes is kept, and time goes on only when it is told to."""

import asyncio
from typing import Any, Final

PEER: Final = ("203.0.113.7", 50_000)
_OWN: Final = ("127.0.0.1", 8080)


class StandingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is set by hand."""

    now = 1_000.0

    def time(self) -> float:
        return self.now

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and what is due then happen."""
        self.now += seconds
        for _ in range(3):
            await asyncio.sleep(0)

    def timers(self) -> int:
        """Timers that wait."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined]


class FakeTransport(asyncio.Transport):
    """One socket's server side.

    Attributes:
        written: by the protocol, so far.
        lost: True once the protocol was told that the connection is gone.
        reading: False while the protocol has paused it.
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

    # For the fuzzer.

    def open(self, protocol: Any) -> None:
        """Begin."""
        self._protocol = protocol
        protocol.connection_made(self)

    def receive(self, data: bytes) -> None:
        """Hand over what came in one read."""
        if self._closing:
            return
        self._protocol.data_received(data)

    def end(self) -> None:
        """The peer has ended its side."""
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def fill(self, *, full: bool) -> None:
        """Let the peer stop reading, or go on."""
        if self.full != full and not self._closing:
            self.full = full
            (self._protocol.pause_writing if full else self._protocol.resume_writing)()

    def lose(self) -> None:
        """The connection is gone."""
        self._closing = True
        if not self.lost:
            self.lost = True
            self._protocol.connection_lost(None)
            self._protocol = None  # as uvloop does

    # For the protocol.

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
