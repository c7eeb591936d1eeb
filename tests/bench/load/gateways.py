"""Gateways for measuring the monitor, one server for each kind of probe, in a child process.

The servers count connections in slices of time, so that the parent sees how evenly the probes are spread.
"""

import asyncio
import base64
import hashlib
import ssl
import sys
import time
from collections import Counter
from typing import Any, Final

import orjson
import uvloop

from tests.bench.load.children import report

SLICE: Final = 0.5
KINDS: Final = ("tcp", "http", "websocket", "tls", "dns")
"""Kinds of servers, by the names of their probes."""

_RESPONSE: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n"
    b'Connection: close\r\n\r\n{"status":"UP"}'
)
_UPGRADE: Final = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: {}\r\n\r\n"
)
_MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
_CLOSE: Final = b"\x88\x02\x03\xe8"
_ANSWER: Final = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01"


class Gateway(asyncio.Protocol):
    """Connection that counts itself, and answers any request with its status."""

    def __init__(self, slices: Counter[int]) -> None:
        slices[int(time.monotonic() / SLICE)] += 1
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(_RESPONSE)
        self._transport.close()


class WebSocketGateway(Gateway):
    """Connection that performs the opening and the closing handshake of a WebSocket."""

    _opened = False

    def data_received(self, data: bytes) -> None:
        if self._opened:  # the closing handshake, as the probe sends no message
            self._transport.write(_CLOSE)
            self._transport.close()
            return
        self._opened = True
        key = next(line for line in data.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        digest = hashlib.sha1(key.partition(b":")[2].strip() + _MAGIC).digest()
        self._transport.write(_UPGRADE.format(base64.b64encode(digest).decode()).encode())


class NameServer(asyncio.DatagramProtocol):
    """Name server with one address for every name."""

    def __init__(self, slices: Counter[int]) -> None:
        self._slices = slices
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._slices[int(time.monotonic() / SLICE)] += 1
        question = data[12 : data.index(0, 12) + 5]
        self._transport.sendto(data[:2] + b"\x81\x80\x00\x01\x00\x01\0\0\0\0" + question + _ANSWER, addr)


async def serve(spec: dict[str, Any]) -> None:
    """Serve on the given ports; answer each line of the parent with the counts since the previous line.

    The specification has the port of each kind, and the file with key and certificate of ``tls``.
    """
    loop = asyncio.get_running_loop()
    slices: Counter[int] = Counter()
    for kind in KINDS:
        port = spec.get(kind)
        if port is None:
            continue
        if kind == "dns":
            await loop.create_datagram_endpoint(lambda: NameServer(slices), ("127.0.0.1", port))
            continue
        factory = WebSocketGateway if kind == "websocket" else Gateway
        context = None
        if kind == "tls":
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(spec["certificate"])
        await loop.create_server(
            lambda factory=factory: factory(slices), "127.0.0.1", port, backlog=4096, ssl=context
        )
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
