"""Load generator: many clients in one process, cheap enough not to be the bottleneck.

It uses raw sockets, one epoll, and one buffer for all clients. A few sampled clients read every message and
record the latency of every event; the others only skip from frame header to frame header. Since all clients
are sent the same events, the deliveries to the others follow from their bytes: deliveries = payload bytes x
(events / payload bytes) of the sampled clients. Deviations between clients are reported.

Some of the clients that are not sampled can be told to stall: they stay connected and never read again.
"""

import contextlib
import errno
import resource
import select
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, Final

import orjson

from tests.bench.load.children import receive_order, report
from tests.bench.load.chunks import ChunkCounter, ChunkReader, StreamDecoder, stream_request
from tests.bench.load.decoders import NATS_CONNECT, DecodeError, Decoder, NatsDecoder, TextDecoder
from tests.bench.load.publisher import GRACE_NS
from tests.bench.load.websocket import (
    BINARY,
    CLOSE,
    DEFLATE,
    PING,
    PONG,
    FrameCounter,
    MessageReader,
    client_frame,
    header,
    upgrade_request,
)
from tests.bench.measures.measure import Histogram

RECORD: Final = struct.Struct("<QII")
"""Header of a recorded frame: nanoseconds since the window's start, bytes, number of events."""

_CONNECT_SECONDS: Final = 30.0
_BUFFER: Final = 1 << 20
_STALLED_BUFFER: Final = 4_096
_STALLED_SEGMENT: Final = 1_448
"""Maximum segment size, in bytes, of a client that will stall, as on Ethernet. With the loopback's own
segment size, the kernel would buffer megabytes per client before the server noticed anything.
"""

_READY: Final = {
    "tickertape": b'"subscribed"',
    "stream": b'"subscribed"',
    "nats": b"PONG\r\n",
    "text": b"",
    "raw": b"",
}
"""Bytes that show that a client is ready, by protocol."""


class LoadError(Exception):
    """Failure to run the clients; the text is for the user."""


class LateError(LoadError):
    """Timeout before all clients were ready."""


class Client:
    """Connection that performs its handshake and then counts or decodes what it receives."""

    __slots__ = ("bytes", "closed", "decoder", "early", "reader", "ready", "socket", "upgraded")

    def __init__(self, connection: socket.socket, decoder: Decoder | None, *, stream: bool = False) -> None:
        self.socket = connection
        self.decoder = decoder
        self.reader: FrameCounter | MessageReader | ChunkCounter | ChunkReader
        if stream:
            self.reader = ChunkReader() if decoder else ChunkCounter()
        else:
            self.reader = MessageReader() if decoder else FrameCounter()
        self.bytes = 0
        self.early = b""
        """Bytes received before the client was ready."""
        self.upgraded = False
        self.ready = False
        self.closed = False

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one frame; it is small enough that a socket without space for it must be broken."""
        with contextlib.suppress(ConnectionError):
            self.socket.send(client_frame(opcode, payload))


class LoadGenerator:
    """All clients of one target.

    Args:
        spec: ``port``, ``path``, ``protocol``, ``clients``, ``sampled``, and ``record``: file for the frames
            of the first client, or None. Optional: ``deflate``, ``token``, and ``stalling``: number of
            clients that can be told to stall. ``{n}`` in the path is replaced by the client's number.
    """

    handshakes = 64
    """Maximum number of concurrent handshakes."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._protocol: str = spec["protocol"]
        self._buffer = memoryview(bytearray(_BUFFER))
        self._poll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._all: list[Client] = []
        self._ready = 0
        self._closed = 0
        self._stalling: list[Client] = []
        self._stalled: set[Client] = set()
        self._latencies = Histogram()
        self._decoded = 0
        self._in_window = 0
        self._window = (0, 0)
        self._recording: list[bytes] = []

    def connect(self) -> None:
        """Connect all clients, a few at a time, and wait until each is ready."""
        total: int = self._spec["clients"]
        sampled: int = self._spec["sampled"]
        # Sampled clients are spread out: a server goes through its connections in order, and early ones are
        # not typical.
        every = max(1, total // max(1, sampled))
        deadline = time.monotonic() + _CONNECT_SECONDS + total / 500
        while self._ready < total:
            while len(self._all) < total and len(self._all) - self._ready < self.handshakes:
                number = len(self._all)
                self._open(number, self._new_decoder() if number % every == 0 else None)
            self._serve(0.5)
            if self._closed:
                raise LoadError(f"the server closed a connection after {self._ready} of {total}")
            if time.monotonic() > deadline:
                raise LateError(f"only {self._ready} of {total} clients were ready in time")

    def _new_decoder(self) -> Decoder:
        if self._protocol == "stream":
            return StreamDecoder()
        return NatsDecoder() if self._protocol == "nats" else TextDecoder()

    def _open(self, number: int, decoder: Decoder | None) -> None:
        connection = socket.socket()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stalling = decoder is None and len(self._stalling) < self._spec.get("stalling", 0)
        if stalling:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _STALLED_SEGMENT)
        port = self._spec["port"]
        connection.connect(("127.0.0.1", port))
        connection.setblocking(False)
        client = Client(connection, decoder, stream=self._protocol == "stream")
        if stalling:
            self._stalling.append(client)
        self._all.append(client)
        self._on_opened(client, number)
        self._clients[connection.fileno()] = client
        self._poll.register(connection.fileno(), select.EPOLLIN)
        if self._protocol == "raw":
            client.ready = True
            self._ready += 1
        else:
            path = self._path(number)
            extension = DEFLATE if self._spec.get("deflate") else ""
            token = self._spec.get("token", "")
            if self._protocol == "stream":
                connection.send(stream_request("127.0.0.1", port, path, token))
            else:
                connection.send(upgrade_request("127.0.0.1", port, path, extension, token))

    def _on_opened(self, client: Client, number: int) -> None:
        """Handle a new client; a hook for subclasses."""

    def _path(self, number: int) -> str:
        path: str = self._spec["path"]
        return path.replace("{n}", str(number))

    def _stall(self) -> None:
        """Stop reading from the stalling clients and minimize their receive buffers in the kernel."""
        for client in self._stalling:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _STALLED_BUFFER)
            self._poll.unregister(client.socket.fileno())
            self._stalled.add(client)

    def _serve(self, timeout: float) -> bool:
        """Read from all readable sockets; return whether the parent has sent an order."""
        order = False
        for descriptor, _ in self._poll.poll(timeout):
            client = self._clients.get(descriptor)
            if client is None:
                order = True
                continue
            try:
                size = client.socket.recv_into(self._buffer)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    continue
                size = 0
            if size:
                client.bytes += size
                if client.ready:
                    self._process(client, self._buffer[:size])
                else:
                    self._handshake(client, bytes(self._buffer[:size]))
            else:
                client.closed = True
                self._closed += 1
                self._poll.unregister(descriptor)
        return order

    def _handshake(self, client: Client, data: bytes) -> None:
        client.early += data
        if not client.upgraded:
            head, mark, rest = client.early.partition(b"\r\n\r\n")
            if not mark:
                return
            accepted = b" 200 " if self._protocol == "stream" else b" 101 "
            if accepted not in head.split(b"\r\n", 1)[0]:
                detail = (head.split(b"\r\n", 1)[0] + b": " + rest)[:300].decode(errors="replace")
                raise LoadError(f"the upgrade was rejected: {detail}")
            client.upgraded = True
            client.early = rest
            if self._protocol == "nats":
                client.send(BINARY, NATS_CONNECT + b"SUB log.> 1\r\nPING\r\n")
        if _READY[self._protocol] in client.early:
            client.ready = True
            self._ready += 1
            early, client.early = client.early, b""
            if early:
                self._process(client, memoryview(early))

    def _process(self, client: Client, data: memoryview) -> None:
        decoder = client.decoder
        if decoder is None:
            for opcode, payload in client.reader.feed(data):
                self._handle_control(client, opcode, payload)
            return
        now = time.monotonic_ns()
        for opcode, payload in client.reader.feed(data):
            if opcode & 0x8:
                self._handle_control(client, opcode, payload)
                continue
            times = decoder.sent_times(payload)
            self._decoded += len(times)
            start, end = self._window
            for sent in times:
                if start <= sent < end:
                    self._in_window += 1
                    self._latencies.record((now - sent) // 1000)
            if decoder.reply:
                client.send(BINARY, decoder.reply)
                decoder.reply = b""
            if times and client is self._all[0] and self._spec["record"] and start <= now < end:
                frame = header(opcode, len(payload), masked=False) + payload
                self._recording.append(RECORD.pack(now - start, len(frame), len(times)) + frame)

    def _handle_control(self, client: Client, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            client.send(PONG, payload)
        elif opcode == CLOSE:
            reason = payload[2:].decode(errors="replace")
            raise LoadError(f"the server closed a client with {int.from_bytes(payload[:2])} {reason}")

    def run(self) -> None:
        """Serve, and report after each window that the parent requests, until the parent is done."""
        self._poll.register(0, select.EPOLLIN)
        before: list[tuple[int, int, int]] = []
        after: list[tuple[int, int, int]] = []
        times = [0, 0]
        decoded = [0, 0]
        while True:
            now = time.monotonic_ns()
            start, end = self._window
            if start and not before and now >= start:
                before, times[0], decoded[0] = self._counts(), now, self._decoded
            if end and not after and now >= end:
                after, times[1], decoded[1] = self._counts(), now, self._decoded
            if after and now >= end + GRACE_NS:
                if self._spec["record"]:
                    Path(self._spec["record"]).write_bytes(b"".join(self._recording))
                self._report(before, after, (times[1] - times[0]) / 1e9, decoded[1] - decoded[0])
                before, after = [], []
                self._window = (0, 0)
            if self._serve(0.005):
                order = receive_order()
                if order is None:
                    return
                if order.get("stall"):
                    self._stall()
                    report(stalled=len(self._stalled))
                else:
                    self._window = (order["start"], order["end"])
                    self._latencies, self._in_window = Histogram(), 0

    def _counts(self) -> list[tuple[int, int, int]]:
        return [
            (client.bytes, client.reader.payload_bytes, client.reader.frames) for client in self._reading()
        ]

    def _reading(self) -> list[Client]:
        return [client for client in self._all if client not in self._stalled]

    def _report(
        self,
        before: list[tuple[int, int, int]],
        after: list[tuple[int, int, int]],
        seconds: float,
        decoded: int,
    ) -> None:
        reading = self._reading()
        deltas = [(b[0] - a[0], b[1] - a[1], b[2] - a[2]) for a, b in zip(before, after, strict=True)]
        sample = [delta[1] for delta, client in zip(deltas, reading, strict=True) if client.decoder]
        others = [delta[1] for delta, client in zip(deltas, reading, strict=True) if not client.decoder]
        payload = sum(sample)
        each = payload / len(sample)
        report(
            seconds=seconds,
            deliveries=decoded * (payload + sum(others)) / payload if payload else 0.0,
            frames=sum(delta[2] for delta in deltas),
            bytes=sum(delta[0] for delta in deltas),
            sampled=len(sample),
            in_window=self._in_window,
            lost=sum(client.decoder.lost for client in self._all if client.decoder),
            compressed=any(
                client.reader.compressed for client in self._all if isinstance(client.reader, MessageReader)
            ),
            closed=self._closed,
            deviation=max((abs(other / each - 1) for other in others), default=0.0) if each else 0.0,
            p50=self._latencies.percentile(50),
            p99=self._latencies.percentile(99),
            max=self._latencies.max_ms,
        )


def main() -> None:
    """Run as a child of the benchmark."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    load = LoadGenerator(orjson.loads(sys.argv[1]))
    try:
        load.connect()
        report(connected=True)
        load.run()
    except (LoadError, DecodeError, OSError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
