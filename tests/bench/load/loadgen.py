"""The load generator: many clients in one process that must not be the bottleneck.

Raw sockets, one epoll, one buffer for all. A few sampled clients read every message and take the latency of
every event; the others only step from frame header to frame header. What the others were delivered follows
from their bytes, since all clients are sent the same events: deliveries = payload bytes x (events / payload
bytes) of the sample. Whether each of them got as much as the sample did is checked and told.

Some of those that are not sampled may be told to stall: they stay connected and never read again.
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

from tests.bench.load.children import report, told
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
"""Head of a recorded frame: nanoseconds since the window's start, bytes of the frame, events in it."""

_CONNECT_SECONDS: Final = 30.0
_BUFFER: Final = 1 << 20
_STALLED_BUFFER: Final = 4_096
_STALLED_SEGMENT: Final = 1_448
"""Segment size of a client that will stall, as over Ethernet: with the loopback's own, the kernel would take
megabytes for each before its server noticed anything."""

_READY: Final = {"tickertape": b'"subscribed"', "nats": b"PONG\r\n", "text": b"", "raw": b""}
"""What a client has received when it is connected, by protocol."""


class LoadError(Exception):
    """The clients could not be run; the text is for the one who runs the benchmark."""


class LateError(LoadError):
    """Not all clients were served in time."""


class Client:
    """One connection, first in its handshake, then counting."""

    __slots__ = ("bytes", "closed", "decoder", "early", "reader", "ready", "socket", "upgraded")

    def __init__(self, connection: socket.socket, decoder: Decoder | None) -> None:
        self.socket = connection
        self.decoder = decoder
        self.reader: FrameCounter | MessageReader = MessageReader() if decoder else FrameCounter()
        self.bytes = 0
        self.early = b""
        """What came in before the client was ready."""
        self.upgraded = False
        self.ready = False
        self.closed = False

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one frame; small, so that a socket that cannot take it is broken."""
        with contextlib.suppress(ConnectionError):
            self.socket.send(client_frame(opcode, payload))


class Load:
    """All clients.

    Args:
        spec: ``port``, ``path``, ``protocol``, ``clients``, ``sampled``, and ``record``: a file for what the
            first client is sent, or None. Optional: ``deflate``, ``token``, and ``stalling``: how many will
            be told to stall. ``{n}`` in the path becomes the client's number.
    """

    handshakes = 64
    """How many are connecting at a time."""

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
        """Connect all clients, a few at a time, and wait until each is served."""
        total: int = self._spec["clients"]
        sampled: int = self._spec["sampled"]
        # Spread, since a server goes through its connections in order: early ones must not speak for all.
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
                raise LateError(f"only {self._ready} of {total} clients were served in time")

    def _new_decoder(self) -> Decoder:
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
        client = Client(connection, decoder)
        if stalling:
            self._stalling.append(client)
        self._all.append(client)
        self._opened(client, number)
        self._clients[connection.fileno()] = client
        self._poll.register(connection.fileno(), select.EPOLLIN)
        if self._protocol == "raw":
            client.ready = True
            self._ready += 1
        else:
            path = self._path(number)
            extension = DEFLATE if self._spec.get("deflate") else ""
            token = self._spec.get("token", "")
            connection.send(upgrade_request("127.0.0.1", port, path, extension, token))

    def _opened(self, client: Client, number: int) -> None:
        """For subclasses: a client was made."""

    def _path(self, number: int) -> str:
        path: str = self._spec["path"]
        return path.replace("{n}", str(number))

    def _stall(self) -> None:
        """Stop reading from those that are to stall, and leave them next to no room in the kernel."""
        for client in self._stalling:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _STALLED_BUFFER)
            self._poll.unregister(client.socket.fileno())
            self._stalled.add(client)

    def _serve(self, timeout: float) -> bool:
        """Read what there is; True when the parent has something to say."""
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
                    self._take(client, self._buffer[:size])
                else:
                    self._shake(client, bytes(self._buffer[:size]))
            else:
                client.closed = True
                self._closed += 1
                self._poll.unregister(descriptor)
        return order

    def _shake(self, client: Client, data: bytes) -> None:
        client.early += data
        if not client.upgraded:
            head, mark, rest = client.early.partition(b"\r\n\r\n")
            if not mark:
                return
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                said = (head.split(b"\r\n", 1)[0] + b": " + rest)[:300].decode(errors="replace")
                raise LoadError(f"the upgrade was refused: {said}")
            client.upgraded = True
            client.early = rest
            if self._protocol == "nats":
                client.send(BINARY, NATS_CONNECT + b"SUB log.> 1\r\nPING\r\n")
        if _READY[self._protocol] in client.early:
            client.ready = True
            self._ready += 1
            early, client.early = client.early, b""
            if early:
                self._take(client, memoryview(early))

    def _take(self, client: Client, data: memoryview) -> None:
        decoder = client.decoder
        if decoder is None:
            for opcode, payload in client.reader.feed(data):
                self._answer(client, opcode, payload)
            return
        now = time.monotonic_ns()
        for opcode, payload in client.reader.feed(data):
            if opcode & 0x8:
                self._answer(client, opcode, payload)
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

    def _answer(self, client: Client, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            client.send(PONG, payload)
        elif opcode == CLOSE:
            reason = payload[2:].decode(errors="replace")
            raise LoadError(f"the server closed a client: {int.from_bytes(payload[:2])} {reason}")

    def run(self) -> None:
        """Serve, and report after each window that the parent names, until the parent is done."""
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
                order = told()
                if order is None:
                    return
                if order.get("stall"):
                    self._stall()
                    report(stalled=len(self._stalled))
                else:
                    self._window = (order["start"], order["end"])
                    self._latencies, self._in_window = Histogram(), 0

    def _counts(self) -> list[tuple[int, int, int]]:
        return [(one.bytes, one.reader.payload_bytes, one.reader.frames) for one in self._reading()]

    def _reading(self) -> list[Client]:
        return [one for one in self._all if one not in self._stalled]

    def _report(
        self,
        before: list[tuple[int, int, int]],
        after: list[tuple[int, int, int]],
        seconds: float,
        decoded: int,
    ) -> None:
        reading = self._reading()
        deltas = [(b[0] - a[0], b[1] - a[1], b[2] - a[2]) for a, b in zip(before, after, strict=True)]
        sample = [delta[1] for delta, one in zip(deltas, reading, strict=True) if one.decoder]
        others = [delta[1] for delta, one in zip(deltas, reading, strict=True) if not one.decoder]
        payload = sum(sample)
        each = payload / len(sample)
        report(
            seconds=seconds,
            deliveries=decoded * (payload + sum(others)) / payload if payload else 0.0,
            frames=sum(delta[2] for delta in deltas),
            bytes=sum(delta[0] for delta in deltas),
            sampled=len(sample),
            in_window=self._in_window,
            lost=sum(one.decoder.lost for one in self._all if one.decoder),
            compressed=any(
                one.reader.compressed for one in self._all if isinstance(one.reader, MessageReader)
            ),
            closed=self._closed,
            uneven=max((abs(other / each - 1) for other in others), default=0.0) if each else 0.0,
            p50=self._latencies.percentile(50),
            p99=self._latencies.percentile(99),
            max=self._latencies.max_ms,
        )


def main() -> None:
    """Run as a child of the benchmark."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    load = Load(orjson.loads(sys.argv[1]))
    try:
        load.connect()
        report(connected=True)
        load.run()
    except (LoadError, DecodeError, OSError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
