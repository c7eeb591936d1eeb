"""Peers that are programs of the benchmark, each a child process: ``naive``, ``plain`` and ``consume``.

naive    the obvious first implementation: nats-py in, ``websockets.broadcast`` out, one text frame per event.
plain    sends recorded frames to raw sockets in a tight loop: the cost of only sending the same bytes.
consume  nats-py's ordered consumer with a callback that only counts: the cost of only receiving.
"""

import asyncio
import contextlib
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import nats
import orjson
import uvloop
from nats.aio.msg import Msg
from websockets.asyncio.server import ServerConnection, broadcast, serve

from tests.bench.load.children import receive_order, report
from tests.bench.load.loadgen import RECORD
from tickertape.names import Names
from tickertape.nats import connection as connect
from tickertape.nats.streams import provision


async def _wait_for_order() -> dict[str, Any] | None:
    """Wait for the next line from the parent without blocking the event loop."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(0, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(0)
    return receive_order()


async def naive(spec: dict[str, Any]) -> None:
    """Relay every event to every client until the parent is done."""
    clients: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        clients.add(connection)
        try:
            await connection.wait_closed()
        finally:
            clients.discard(connection)

    async def forward(message: Msg) -> None:
        broadcast(clients, message.data.decode())

    client = await nats.connect(f"nats://127.0.0.1:{spec['nats_port']}")
    await client.subscribe("log.>", cb=forward)
    # No compression and no pings, because the figures are about sending.
    async with serve(handle, "127.0.0.1", spec["port"], compression=None, ping_interval=None):
        report(ready=True)
        while await _wait_for_order() is not None:
            continue


def read_recording(path: Path) -> list[tuple[int, bytes, int]]:
    """Return the frames of a recording: nanoseconds since its start, frame, number of events."""
    data = path.read_bytes()
    frames = []
    position = 0
    while position < len(data):
        offset, size, events = RECORD.unpack_from(data, position)
        position += RECORD.size
        frames.append((offset, data[position : position + size], events))
        position += size
    return frames


def plain(spec: dict[str, Any]) -> None:
    """Send a recording repeatedly, at its original pace, to every client until the parent is done."""
    frames = read_recording(Path(spec["recording"]))
    length_ns = spec["length_ns"]
    listener = socket.create_server(("127.0.0.1", spec["port"]), backlog=1024)
    report(ready=True)
    sockets = []
    for _ in range(spec["clients"]):
        connection = listener.accept()[0]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets.append(connection)
    if receive_order() is None:
        return
    # Bound methods, so that the loop does little more than the system call.
    sends = [connection.sendall for connection in sockets]
    begin = time.monotonic_ns()
    while True:
        for offset, frame, _ in frames:
            wait = (begin + offset - time.monotonic_ns()) / 1e9
            if select.select([0], [], [], max(wait, 0.0))[0] and receive_order() is None:
                return
            for send in sends:
                send(frame)
        begin += length_ns


async def consume(spec: dict[str, Any]) -> None:
    """Count the messages of an ordered consumer; report the count for each line of the parent."""
    client = await connect.connect(f"nats://127.0.0.1:{spec['nats_port']}", name="bench-consume")
    await provision(client, Names())
    received = 0

    async def count(_: Msg) -> None:
        nonlocal received
        received += 1

    await client.jetstream().subscribe(
        "log.>",
        stream="EVENTS",
        ordered_consumer=True,
        cb=count,
        deliver_policy=nats.js.api.DeliverPolicy(spec.get("deliver", "new")),
        # nats-py drops messages beyond these limits, so the whole backlog must fit.
        pending_msgs_limit=4_000_000,
        pending_bytes_limit=1 << 31,
    )
    report(ready=True)
    while await _wait_for_order() is not None:
        report(received=received)


def main() -> None:
    """Run as a child of the benchmark."""
    spec = orjson.loads(sys.argv[1])
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        if spec["peer"] == "plain":
            plain(spec)
        else:
            uvloop.run(naive(spec) if spec["peer"] == "naive" else consume(spec))


if __name__ == "__main__":
    main()
