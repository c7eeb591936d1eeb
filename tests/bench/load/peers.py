"""The peers that are programs of ours: ``naive``, ``plain`` and ``consume``, each a child process.

naive    what one writes first: nats-py in, ``websockets.broadcast`` out, one text frame for each event.
plain    sends recorded frames to raw sockets in a tight loop: what bare sending of the same bytes costs.
consume  nats-py's ordered consumer with a callback that only counts: what bare intake costs.
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

from tests.bench.load.children import report, told
from tests.bench.load.loadgen import RECORD
from tickertape.names import Names
from tickertape.nats import connection as connect
from tickertape.nats.streams import provision


async def _until_told() -> dict[str, Any] | None:
    """Next line from the parent, without holding up the loop."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(0, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(0)
    return told()


async def naive(spec: dict[str, Any]) -> None:
    """Relay every event to every client, until the parent is done."""
    clients: set[ServerConnection] = set()

    async def serve_one(connection: ServerConnection) -> None:
        clients.add(connection)
        try:
            await connection.wait_closed()
        finally:
            clients.discard(connection)

    async def forward(message: Msg) -> None:
        broadcast(clients, message.data.decode())

    client = await nats.connect(f"nats://127.0.0.1:{spec['nats_port']}")
    await client.subscribe("log.>", cb=forward)
    # Neither compression nor pings: the figures are about sending.
    async with serve(serve_one, "127.0.0.1", spec["port"], compression=None, ping_interval=None):
        report(ready=True)
        while await _until_told() is not None:
            continue


def read_recording(path: Path) -> list[tuple[int, bytes, int]]:
    """Frames of a recording: nanoseconds since its start, bytes of the frame, events in it."""
    data = path.read_bytes()
    frames = []
    place = 0
    while place < len(data):
        offset, size, events = RECORD.unpack_from(data, place)
        place += RECORD.size
        frames.append((offset, data[place : place + size], events))
        place += size
    return frames


def plain(spec: dict[str, Any]) -> None:
    """Send a recording over and over, at its pace, to every client, until the parent is done."""
    frames = read_recording(Path(spec["recording"]))
    length_ns = spec["length_ns"]
    listener = socket.create_server(("127.0.0.1", spec["port"]), backlog=1024)
    report(ready=True)
    sockets = []
    for _ in range(spec["clients"]):
        connection = listener.accept()[0]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets.append(connection)
    if told() is None:
        return
    # Bound once, so that the loop is the system call and next to nothing else.
    sends = [connection.sendall for connection in sockets]
    begin = time.monotonic_ns()
    while True:
        for offset, frame, _ in frames:
            wait = (begin + offset - time.monotonic_ns()) / 1e9
            if select.select([0], [], [], max(wait, 0.0))[0] and told() is None:
                return
            for send in sends:
                send(frame)
        begin += length_ns


async def consume(spec: dict[str, Any]) -> None:
    """Count what an ordered consumer brings; tell the count when asked."""
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
        # The backlog has to fit: past these limits nats-py drops.
        pending_msgs_limit=4_000_000,
        pending_bytes_limit=1 << 31,
    )
    report(ready=True)
    while await _until_told() is not None:
        report(received=received)


def main() -> None:
    """Run as a child of the benchmark: a name and a specification."""
    spec = orjson.loads(sys.argv[1])
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        if spec["who"] == "plain":
            plain(spec)
        else:
            uvloop.run(naive(spec) if spec["who"] == "naive" else consume(spec))


if __name__ == "__main__":
    main()
