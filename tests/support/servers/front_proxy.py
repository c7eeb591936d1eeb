"""A reverse proxy in front of a relay that can answer in its place and cut connections.

Invariants: requests without a rule pass through byte for byte, in both directions; each request has its own
connection; nothing is left when it stops.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

_CHUNK: Final = 65_536


@dataclass(slots=True)
class FrontProxy:
    """Rules of the proxy, which may change at any time.

    Attributes:
        port: port that it listens on.
        behind: port of the relay.
        answers: status and JSON body returned instead of the relay's response, by path.
        routes: port to use instead of the relay's, by path.
        seen: requested paths.
        tunnels: connections that are open.
    """

    port: int
    behind: int
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    routes: dict[str, int] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    tunnels: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Cut every connection without notice, as proxies do with idle ones."""
        for pump in self.tunnels:
            pump.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode().partition("?")[0]
            self.seen.append(path)
            if path in self.answers:
                status, body = self.answers[path]
                lines = [f"HTTP/1.1 {status} Refused", "Content-Type: application/json", "Connection: close"]
                lines += [f"Content-Length: {len(body)}", "", body]
                writer.write("\r\n".join(lines).encode())
                await writer.drain()
            else:
                await self._through(head, self.routes.get(path, self.behind), reader, writer)
        writer.close()

    async def _through(
        self, head: bytes, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if b"upgrade: websocket" not in head.lower():
            head = head.replace(b"Connection: keep-alive", b"Connection: close")
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        forth.write(head)
        pumps = [asyncio.create_task(self._pump(*pair)) for pair in ((reader, forth), (back, writer))]
        self.tunnels.update(pumps)
        try:
            # The first direction that ends closes the other.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.tunnels.difference_update(pumps)
            forth.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def front_proxy(behind: int) -> AsyncIterator[FrontProxy]:
    """Run a proxy in front of the relay on a loopback port."""
    proxy = FrontProxy(0, behind)
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await proxy.serve(reader, writer)
        finally:
            running.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


__all__ = ["FrontProxy", "front_proxy"]
