"""Clients that connect and disconnect, each in one of the ways in which clients do.

Invariants:

1. The ways take turns, so that two runs with the same number of connections make the same ones.
2. ``run`` returns when every connection has ended.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final
from urllib.parse import urlencode

import orjson
from tickertape.contracts.events import SystemLog
from tickertape.contracts.messages import MAX_MESSAGE_BYTES, SUBPROTOCOL
from tickertape.producers.sdk.publisher import Publisher
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from tests.support.clients.feed_client import patiently
from tests.support.patience import PATIENCE

MESSAGES: Final = 5
"""Messages that a client reads before it disconnects."""


class Churn:
    """Generator of connections to a relay at a steady rate.

    Args:
        url: URL of the feed.
        rate: connections per second, for ``run``.

    Attributes:
        made: number of connections started.
        failed: number of connections that did not end as expected; the first few are described.
    """

    def __init__(self, url: str, rate: float = 0.0) -> None:
        self.made = 0
        self.failed: list[str] = []
        self._url = url
        self._rate = rate
        self._cursor = ""

    async def run(self, seconds: float) -> None:
        """Open connections for a number of seconds."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while (gone := time.monotonic() - began) < seconds:
                while self.made < gone * self._rate:
                    tasks.create_task(self._next())
                await asyncio.sleep(0.02)

    async def run_all(self, count: int, at_once: int) -> None:
        """Open a number of connections, each as soon as an earlier one has ended."""

        async def one_after_the_other() -> None:
            while self.made < count:
                await self._next()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(one_after_the_other())

    def _next(self) -> Coroutine[Any, Any, None]:
        ways = (
            self._polite,
            self._rude,
            self._latest,
            self._returning,
            self._unresponsive,
            self._hasty,
            self._refused,
        )
        self.made += 1
        return self._one(ways[(self.made - 1) % len(ways)])

    async def _one(self, way: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await way()
        except (OSError, ConnectionClosed, InvalidHandshake, EOFError) as error:
            self.failed.append(f"{way.__name__}: {error!r}")

    async def _polite(self) -> None:
        """Read, and close the connection properly."""
        async with self._open() as socket:
            await self._read(socket)

    async def _rude(self) -> None:
        """Read, and disappear without a close, like a laptop whose lid is shut."""
        async with self._open(compression="deflate") as socket:
            await self._read(socket)
            socket.transport.abort()

    async def _latest(self) -> None:
        """Subscribe with an individual filter in mode latest."""
        async with self._open(mode="latest", subjects="log.*.a,gateway.>", interval_ms=200) as socket:
            await socket.recv()

    async def _returning(self) -> None:
        """Resume from another client's cursor in mode complete."""
        query = {"cursor": self._cursor} if self._cursor else {}
        async with self._open(mode="complete", **query) as socket:
            await self._read(socket)

    async def _unresponsive(self) -> None:
        """Never read, and disconnect."""
        async with self._open() as socket:
            await asyncio.sleep(0.5)
            socket.transport.abort()

    async def _hasty(self) -> None:
        """Disconnect in the middle of the handshake."""
        host, _, port = self._url.removeprefix("ws://").partition("/")[0].rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /ws HTTP/1.1\r\nHost: ")
        await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _refused(self) -> None:
        """Send a request that is rejected."""
        with contextlib.suppress(InvalidHandshake, ConnectionClosed):
            async with self._open(mode="none-such") as socket:
                while True:
                    await socket.recv()

    def _open(
        self, compression: str | None = None, **query: object
    ) -> contextlib.AbstractAsyncContextManager[ClientConnection]:
        return patiently(
            f"{self._url}?{urlencode(query)}",
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=compression,
            max_size=MAX_MESSAGE_BYTES,
        )

    async def _read(self, socket: ClientConnection) -> None:
        for _ in range(MESSAGES):
            message = orjson.loads(await socket.recv())
            self._cursor = message.get("cursor") or self._cursor


async def publish(nats_url: str, rate: float, over: asyncio.Event) -> int:
    """Publish similar log lines at a steady rate until told to stop; return their number."""
    began = time.monotonic()
    count = 0
    async with Publisher(nats_url, name="steady") as publisher:
        while not over.is_set():
            while count < (time.monotonic() - began) * rate:
                text = f"line {count:09d} {'x' * 180}"
                event = SystemLog(level="INFO", message=text, source="abcd"[count % 4])
                ticket = await publisher.submit(event.subject, event.encode())
                ticket.add_done_callback(lambda done: done.result())
                count += 1
            await asyncio.sleep(0.02)
        await publisher.flush()
    return count
