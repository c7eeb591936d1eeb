"""Many clients in a process of their own that reconnect through restarts and account for every event.

Each follows all events in mode ``complete``, waits after a ``bye`` for exactly the delay that it names (real
clients add jitter, which only spreads them further), and resumes from its last cursor.
"""

import asyncio
import random
import resource
import statistics
import sys
import time
from typing import Any, Final

import orjson
from tickertape.contracts.cursors import parse_cursor

from tests.bench.load.children import receive_order, report
from tests.bench.load.websocket import CLOSE, PING, PONG, MessageReader, client_frame, upgrade_request
from tests.bench.measures.sequence import SequenceChecker
from tests.support.patience import PATIENCE

CONNECTING: Final = 50
"""Concurrent handshakes at the start."""

RETRY: Final = 1.0
"""Seconds, with jitter, before a client whose connection was rejected or closed retries."""

_CURSOR: Final = b'"cursor":"'


class Socket(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, client: "Client", request: bytes) -> None:
        self._client = client
        self._request = request
        self._reader: MessageReader | None = None  # set once the connection is upgraded
        self._head = b""
        self._transport: asyncio.Transport
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            self._head += data
            head, mark, data = self._head.partition(b"\r\n\r\n")
            if not mark:
                return
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                self._transport.close()
                return
            self._reader = MessageReader()
        for opcode, payload in self._reader.feed(memoryview(data)):
            if opcode == PING:
                self._transport.write(client_frame(PONG, payload))
            elif opcode == CLOSE:
                self._transport.write(client_frame(CLOSE, payload))
                self._transport.close()
            else:
                self._client.take(payload)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Client:
    """One client over all its connections.

    Attributes:
        check: record of what it received; None before its first cursor.
        tries: times of its reconnection attempts.
        outages: seconds without a subscription, one entry per outage.
        refused: number of attempts that failed.
        cut: number of connections that ended without a ``bye``.
    """

    def __init__(self, port: int) -> None:
        self.check: SequenceChecker | None = None
        self.tries: list[float] = []
        self.outages: list[float] = []
        self.rejected = 0
        self.cut = 0
        self.subscribed = asyncio.Event()
        self._port = port
        self._cursor = ""
        self._left = 0.0
        self._retry_after: float | None = None

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        while True:
            self.subscribed.clear()
            self._retry_after = None
            position = f"&cursor={self._cursor}" if self._cursor else ""
            request = upgrade_request("127.0.0.1", self._port, f"/ws?mode=complete{position}")
            try:
                _, socket = await asyncio.get_running_loop().create_connection(
                    lambda request=request: Socket(self, request),  # type: ignore[misc]
                    "127.0.0.1",
                    self._port,
                )
                await socket.over
            except OSError:
                pass
            if not self.subscribed.is_set():
                self.rejected += 1
            else:
                self._left = time.monotonic()
                self.cut += self._retry_after is None
            wait = self._retry_after
            await asyncio.sleep(RETRY * random.uniform(0.5, 1.5) if wait is None else wait)
            self.tries.append(time.monotonic())

    def take(self, message: bytes) -> None:
        """Process one message."""
        if (position := message.rfind(_CURSOR)) >= 0:
            begin = position + len(_CURSOR)
            self._cursor = message[begin : message.index(b'"', begin)].decode()
        if message.startswith((b'{"type":"events"', b'{"type":"gap"')):
            assert self.check is not None
            self.check.check(message)
        elif message.startswith(b'{"type":"subscribed"'):
            self.subscribed.set()
            if self.check is None:
                self.check = SequenceChecker(parse_cursor(self._cursor).sequence, fully=True)
            else:
                self.outages.append(time.monotonic() - self._left)
        elif message.startswith(b'{"type":"bye"'):
            bye = orjson.loads(message)
            self._retry_after = (bye["retry_after_ms"] or 1000) / 1000


def largest_share(times: list[float], clients: int) -> float:
    """Return the largest share of the clients that reconnected within any one second."""
    times = sorted(times)
    most = first = 0
    for last, when in enumerate(times):
        while when - times[first] >= 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most / clients


async def main(port: int, count: int) -> None:
    """Connect all clients, follow, and report once all have the event that the parent names as the last."""
    clients = [Client(port) for _ in range(count)]
    slots = asyncio.Semaphore(CONNECTING)
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []

        async def begin(client: Client) -> None:
            async with slots:
                tasks.append(group.create_task(client.run()))
                await client.subscribed.wait()

        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*map(begin, clients))
        before = sum(len(client.tries) for client in clients)
        report(connected=count, tries=before)
        order = await asyncio.to_thread(receive_order)
        last: int = 0 if order is None else order["last"]

        def behind() -> int:
            return sum(client.check is None or client.check.next <= last for client in clients)

        until = time.monotonic() + PATIENCE
        while behind() and time.monotonic() < until:
            await asyncio.sleep(0.05)
        report(**account(clients, behind()))
        for task in tasks:
            task.cancel()


def account(clients: list[Client], behind: int) -> dict[str, Any]:
    """Summarize the results of all clients."""
    checks = [client.check for client in clients if client.check is not None]
    times = [when for client in clients for when in client.tries]
    outages = [seconds for client in clients for seconds in client.outages]
    return {
        "behind": behind,
        "lost": sum(check.lost for check in checks),
        "repeated": sum(check.repeated for check in checks),
        "gaps": sum(check.gaps for check in checks),
        "fewest_events": min((check.events for check in checks), default=0),
        "returns": len(times),
        "refused": sum(client.rejected for client in clients),
        "cut": sum(client.cut for client in clients),
        "largest_share": round(largest_share(times, len(clients)), 4),
        "median_outage": round(statistics.median(outages), 3) if outages else 0.0,
        "longest_outage": round(max(outages, default=0.0), 3),
    }


if __name__ == "__main__":
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    spec = orjson.loads(sys.argv[1])
    asyncio.run(main(spec["port"], spec["clients"]))
