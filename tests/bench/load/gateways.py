"""Gateways for measuring the monitor: a TCP and an HTTP server in a child process.

The server counts connections in slices of time, so that the parent sees how evenly the probes are spread.
"""

import asyncio
import sys
import time
from collections import Counter
from typing import Any

import orjson
import uvloop

from tests.bench.load.children import report

SLICE = 0.5
_RESPONSE = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{"status":"UP"}'


class Gateway(asyncio.Protocol):
    """Connection that answers any request and counts itself."""

    def __init__(self, slices: Counter[int]) -> None:
        slices[int(time.monotonic() / SLICE)] += 1
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(_RESPONSE)
        self._transport.close()


async def serve(spec: dict[str, Any]) -> None:
    """Serve on the given ports; answer each line of the parent with the counts since the previous line."""
    loop = asyncio.get_running_loop()
    slices: Counter[int] = Counter()
    for port in spec["ports"]:
        await loop.create_server(lambda: Gateway(slices), "127.0.0.1", port, backlog=4096)
    report(ready=True)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        # The first and the last slice are incomplete.
        complete = sorted(slices)[1:-1]
        report(slices=[slices[number] for number in complete])
        slices.clear()


if __name__ == "__main__":
    uvloop.run(serve(orjson.loads(sys.argv[1])))
