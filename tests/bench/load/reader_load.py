"""Clients that request snapshots and never read, in a process of their own: raw sockets, one thread."""

import socket
import sys
import time
from typing import Any, Final

import orjson

from tests.bench.load.children import receive_order, report
from tests.bench.measures.measure import rss_bytes

_CONNECT_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 0.5
_HANDSHAKE: Final = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_SUBSCRIBE: Final = b'\x81\x94\0\0\0\0{"type":"subscribe"}'


def attack(spec: dict[str, Any], start: float, end: float) -> None:
    """Connect, subscribe from each client at the rate of ``spec`` without reading, then report.

    Args:
        spec: ``port``, ``clients``, ``rate`` of subscriptions per client, and ``pid`` of the relay.
        start: time of the monotonic clock in seconds; likewise ``end``.
    """
    time.sleep(max(0.0, start - time.monotonic()))
    links: list[socket.socket] = []
    for _ in range(spec["clients"]):
        link = socket.create_connection(("127.0.0.1", spec["port"]), _CONNECT_SECONDS)
        link.sendall(_HANDSHAKE)
        link.setblocking(False)
        links.append(link)
    peak = sent = 0
    full: dict[
        socket.socket, float
    ] = {}  # when to try again: such attempts cost this machine more than the relay
    while (now := time.monotonic()) < end:
        for link in links:
            if full.get(link, 0.0) > now:
                continue
            try:
                sent += link.send(_SUBSCRIBE) > 0
            except OSError:  # the relay does not read either, or has closed the connection
                full[link] = now + _RETRY_SECONDS
        peak = max(peak, rss_bytes(spec["pid"]))
        time.sleep(max(0.0, 1 / spec["rate"] - (time.monotonic() - now)))
    for link in links:
        link.close()
    report(sent=sent, peak_rss=peak)


def main() -> None:
    """Run as a child of the benchmark."""
    spec = orjson.loads(sys.argv[1])
    report(ready=True)
    if order := receive_order():
        attack(spec, order["start"] / 1e9, order["end"] / 1e9)
        receive_order()


if __name__ == "__main__":
    main()
