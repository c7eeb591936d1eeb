"""A cable between a client and a server on loopback, which can be cut and repaired.

Invariant: while it is cut, connections are closed as soon as they are accepted, and no byte passes.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Cable:
    """Forwarder of connections to a port.

    Attributes:
        port: port that it listens on.
    """

    def __init__(self, behind: int) -> None:
        self.port = 0
        self._behind = behind
        self._is_cut = False
        self._running: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Cut all connections, and refuse new ones."""
        self._is_cut = True
        for task in self._running:
            task.cancel()

    def repair(self) -> None:
        """Accept connections again."""
        self._is_cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection until one end closes it, or it is cut."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        forth: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if not self._is_cut:
                back, forth = await asyncio.open_connection("127.0.0.1", self._behind)
                pumps = [asyncio.ensure_future(_pump(*pair)) for pair in ((reader, forth), (back, writer))]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
        self._running.discard(task)
        writer.close()
        if forth is not None:
            forth.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def cable(behind: int) -> AsyncIterator[Cable]:
    """Run a cable to a loopback port."""
    made = Cable(behind)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.cut()
