"""Publisher process with its own minimal NATS client, so that it costs little and is on time.

It has two modes. ``paced`` sends events evenly, each with its send time, and reports the number of events in
each window that the parent requests. ``backlog`` sends a number of events as fast as the stream stores them.
JetStream drops messages that it cannot buffer from a publisher that does not wait, so a backlog requests an
acknowledgement for every slice of events and limits the number of unacknowledged slices.
"""

import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final

import orjson
from tickertape.contracts.events import format_time

from tests.bench.load.children import receive_order, report
from tests.bench.load.decoders import NATS_CONNECT, NATS_PONG
from tests.bench.measures.text import lines

SUBJECT: Final = "log.info.bench"
STATE_EVERY: Final = 10
"""With gateways, every tenth event is the state of one of them, in rotation."""

GRACE_NS: Final = 1_000_000_000
"""Nanoseconds for which publishing and reading continue after a window, whose end is then typical."""

_TICK: Final = 0.001
_SLICE: Final = 250
_WINDOW: Final = 4


class Events:
    """Generator of valid events of one size.

    Args:
        size: bytes of each ``system_log``; the message is padded to it.
        level: level of the log events.
        gateways: if positive, every tenth event is a ``gateway_status_change`` of one of this many gateways.
    """

    def __init__(self, size: int, level: str = "INFO", gateways: int = 0) -> None:
        self._size = size
        self._texts = lines(size)
        self._level = level.encode()
        self._subject = f"log.{level.lower()}.bench".encode()
        self._gateways = gateways
        self._made = -1.0
        self._time = b""

    def is_state(self, number: int) -> bool:
        """Return whether an event is the state of a gateway, which only some clients receive."""
        return self._gateways > 0 and number % STATE_EVERY == 0

    def subject(self, number: int) -> bytes:
        """Return the subject of an event."""
        if self.is_state(number):
            return b"gateway.status.bench.g%d" % (number // STATE_EVERY % self._gateways)
        return self._subject

    def states(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield subject and payload of the first state of each gateway."""
        for number in range(0, self._gateways * STATE_EVERY, STATE_EVERY):
            yield self.subject(number), self.make(number, time.monotonic_ns())

    def make(self, number: int, sent_ns: int) -> bytes:
        """Return one event, encoded.

        Args:
            number: position in the run, for ``metadata.n``.
            sent_ns: send time, for ``metadata.sent``.
        """
        seconds = time.time()
        if seconds - self._made > 0.001:
            self._made = seconds
            self._time = format_time(seconds).encode()
        if self.is_state(number):
            return (
                b'{"event_type":"gateway_status_change","timestamp":"%b","gateway_id":"g%d",'
                b'"gateway_type":"bench","previous_status":"UNKNOWN","current_status":"HEALTHY",'
                b'"metadata":{"n":%d,"sent":%d}}'
                % (self._time, number // STATE_EVERY % self._gateways, number, sent_ns)
            )
        body = (
            b'{"event_type":"system_log","timestamp":"%b","level":"%b","source":"bench",'
            b'"metadata":{"n":%d,"sent":%d},"message":"'
        ) % (self._time, self._level, number, sent_ns)
        text = self._texts[number % len(self._texts)]
        return body + text[: max(0, self._size - len(body) - 2)] + b'"}'


class PublisherError(Exception):
    """Error reported by nats-server, or a closed connection."""


class PublisherConnection:
    """Connection to nats-server that only publishes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.acknowledged = 0
        self._socket.sendall(NATS_CONNECT + b"SUB _bench.ack 1\r\nPING\r\n")
        self._ready = False
        while not self._ready:
            self.read()

    def fileno(self) -> int:
        """Return the descriptor, for ``select()``."""
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """Send protocol text."""
        self._socket.sendall(data)

    def read(self) -> None:
        """Wait for data and process it: answer pings, count acknowledgements.

        Raises:
            PublisherError: the server closed the connection or rejected an event.
        """
        data = self._socket.recv(65_536)
        if not data:
            raise PublisherError("nats-server closed the publisher's connection")
        self._buffer += data
        while b"\r\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            if line == b"PING":
                self.send(NATS_PONG)
            elif line == b"PONG":
                self._ready = True
            elif line.startswith(b'{"'):
                if b'"error"' in line:
                    raise PublisherError(f"the stream rejected an event: {line[:200].decode()}")
                self.acknowledged += 1
            elif line.startswith(b"-ERR"):
                raise PublisherError(f"nats-server sent {line.decode()}")


def message(
    payload: bytes, *, subject: bytes = SUBJECT.encode(), reply: bool = False, msg_id: str = ""
) -> bytes:
    """Return the protocol text that publishes one event."""
    to = b"_bench.ack " if reply else b""
    if not msg_id:
        return b"PUB %b %b%d\r\n%b\r\n" % (subject, to, len(payload), payload)
    head = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % msg_id.encode()
    return b"HPUB %b %b%d %d\r\n%b%b\r\n" % (
        subject, to, len(head), len(head) + len(payload), head, payload,
    )  # fmt: skip


class WindowCount:
    """Number of events sent in a window."""

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.logs = 0
        self.states = 0
        self.latest_ns = 0


def paced(connection: PublisherConnection, rate: float, events: Events) -> None:
    """Publish evenly until the parent is done; report on each window a second after its end.

    A report contains ``published``, the number of events in the window that every client receives, and
    ``states``, the number of those that only one client receives.
    """
    window: WindowCount | None = None
    number = 0
    begin = time.monotonic_ns()
    step_ns = 1e9 / rate
    while True:
        if window is not None and time.monotonic_ns() >= window.end + GRACE_NS:
            report(published=window.logs, states=window.states, latest_ms=window.latest_ns / 1e6)
            window = None
        due_ns = begin + int(number * step_ns)
        wait = max((due_ns - time.monotonic_ns()) / 1e9, _TICK if rate > 1 / _TICK else 0.0)
        readable = select.select([0, connection.fileno()], [], [], wait)[0]
        if connection.fileno() in readable:
            connection.read()
        if 0 in readable:
            order = receive_order()
            if order is None:
                return
            if order.get("stop"):
                report(published=number)
                return
            window = WindowCount(order["start"], order["end"])
        now = time.monotonic_ns()
        batch = []
        while begin + int(number * step_ns) <= now:
            sent = time.monotonic_ns()
            if window and window.start <= sent < window.end:
                if events.is_state(number):
                    window.states += 1
                else:
                    window.logs += 1
                window.latest_ns = max(window.latest_ns, sent - begin - int(number * step_ns))
            batch.append(message(events.make(number, sent), subject=events.subject(number)))
            number += 1
        if batch:
            connection.send(b"".join(batch))


def backlog(connection: PublisherConnection, count: int, size: int, *, msg_ids: bool) -> None:
    """Publish ``count`` events as fast as the stream stores them, then report."""
    events = Events(size)
    run = time.time_ns()
    began = time.monotonic()
    slices = 0
    for start in range(0, count, _SLICE):
        end = min(start + _SLICE, count)
        connection.send(
            b"".join(
                message(
                    events.make(number, time.monotonic_ns()),
                    reply=number == end - 1,
                    msg_id=f"{run}-{number}" if msg_ids else "",
                )
                for number in range(start, end)
            )
        )
        slices += 1
        while slices - connection.acknowledged >= _WINDOW:
            connection.read()
    while connection.acknowledged < slices:
        connection.read()
    report(published=count, seconds=time.monotonic() - began)


def main() -> None:
    """Run as a child of the benchmark."""
    spec = orjson.loads(sys.argv[1])
    try:
        connection = PublisherConnection(spec["nats_port"])
        events = Events(spec["size"], spec.get("level", "INFO"), spec.get("gateways", 0))
        # Publish once to every subject first, so that the one-time cost of a new subject is not measured.
        connection.send(b"".join(message(payload, subject=subject) for subject, payload in events.states()))
        report(ready=True)
        if receive_order() is None:
            return
        if spec["mode"] == "paced":
            paced(connection, spec["rate"], events)
        else:
            backlog(connection, spec["count"], spec["size"], msg_ids=spec["msg_ids"])
    except (PublisherError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
