"""Servers that keep a client waiting: each sends a beginning, and then a small piece at each interval.

No read from such a server takes long, so only a deadline for the whole exchange ends it.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

INTERVAL: Final = 0.02
"""Seconds between two pieces."""

PIECES: Final[dict[str, tuple[bytes, bytes]]] = {
    "never answers": (b"", b""),
    "status line byte by byte": (b"HTTP/1.1 2", b"0"),
    "endless headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "endless header": (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "endless body": (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "slow body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
    "endless chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "half a TLS handshake": (b"\x16\x03\x03\x40\x00\x02", b"\x00"),
    "endless line": (b"", b"I"),
    "FIX byte by byte": (b"8=FIX.4.4\x019=70\x0135=A\x01", b"1"),
    "NATS INFO byte by byte": (b"INFO {", b" "),
}
"""The first piece and the repeated one of each kind of server."""


@dataclass(eq=False)
class SlowServer:
    """Server on loopback.

    Attributes:
        port: its port.
        accepted: number of connections.
        open: connections that the client has not closed.
    """

    port: int = 0
    accepted: int = 0
    open: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait_until_closed(self) -> None:
        """Wait until a client has connected and all clients have closed their connections."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.accepted > 0 and not self.open)

    async def count(self, change: int) -> None:
        """Count a connection that has begun (1) or ended (-1)."""
        async with self.changed:
            self.accepted += max(0, change)
            self.open += change
            self.changed.notify_all()


@contextlib.asynccontextmanager
async def slow_server(kind: str, context: ssl.SSLContext | None = None) -> AsyncIterator[SlowServer]:
    """Run a server of a kind of ``PIECES``; with a TLS context, the pieces follow a complete handshake."""
    first, repeated = PIECES[kind]
    slow = SlowServer()

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(repeated)
            await asyncio.sleep(INTERVAL)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await slow.count(1)
        sending = asyncio.create_task(send(writer))
        with contextlib.suppress(OSError):
            while await reader.read(1 << 16):
                pass
        sending.cancel()
        writer.close()
        await slow.count(-1)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    slow.port = server.sockets[0].getsockname()[1]
    async with server:
        yield slow
