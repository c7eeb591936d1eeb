"""The publisher: a child process that speaks NATS by hand, so that it costs little and is on time.

Two ways: ``paced`` sends events evenly, each with its send time, and tells how many fell into each window
that it is given; ``backlog`` sends a number of them as fast as the stream stores them. A JetStream server
drops what it cannot buffer from a publisher that does not wait, so a backlog asks for an acknowledgement now
and then and stays within a window of them.
"""

import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final

import orjson
from tickertape.contracts.events import format_time

from tests.bench.load.children import report, told
from tests.bench.load.decoders import NATS_CONNECT, NATS_PONG
from tests.bench.measures.text import lines

SUBJECT: Final = "log.info.bench"
STATE_EVERY: Final = 10
"""With gateways, one event in so many is the state of one of them, in turn."""

GRACE_NS: Final = 1_000_000_000
"""How long after the window events still go out and are still read, so that the end is like the middle."""

_TICK: Final = 0.001
_SLICE: Final = 250
_WINDOW: Final = 4


class Events:
    """Makes valid events of one size.

    Args:
        size: bytes of each ``system_log``; the message is filled up to it.
        level: of the log events.
        gateways: with any, every tenth event is a ``gateway_status_change`` of one of so many.
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
        """Tell whether an event is the state of a gateway, which a client may get or not."""
        return self._gateways > 0 and number % STATE_EVERY == 0

    def subject(self, number: int) -> bytes:
        """Where an event belongs."""
        if self.is_state(number):
            return b"gateway.status.bench.g%d" % (number // STATE_EVERY % self._gateways)
        return self._subject

    def states(self) -> Iterator[tuple[bytes, bytes]]:
        """The first state of each gateway, with its subject."""
        for number in range(0, self._gateways * STATE_EVERY, STATE_EVERY):
            yield self.subject(number), self.make(number, time.monotonic_ns())

    def make(self, number: int, sent_ns: int) -> bytes:
        """One event.

        Args:
            number: place in the run, in ``metadata.n``.
            sent_ns: ``metadata.sent``.
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


class LinkError(Exception):
    """nats-server refuses to go on; the text says why."""


class Link:
    """A connection to nats-server that only publishes."""

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
        """For select()."""
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """Send protocol text."""
        self._socket.sendall(data)

    def read(self) -> None:
        """Read once, waiting; answers pings, counts acknowledgements.

        Raises:
            LinkError: the server went away or refuses something.
        """
        data = self._socket.recv(65_536)
        if not data:
            raise LinkError("nats-server closed the publisher's connection")
        self._buffer += data
        while b"\r\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            if line == b"PING":
                self.send(NATS_PONG)
            elif line == b"PONG":
                self._ready = True
            elif line.startswith(b'{"'):
                if b'"error"' in line:
                    raise LinkError(f"the stream refused an event: {line[:200].decode()}")
                self.acknowledged += 1
            elif line.startswith(b"-ERR"):
                raise LinkError(f"nats-server says {line.decode()}")


def message(
    payload: bytes, *, subject: bytes = SUBJECT.encode(), reply: bool = False, msg_id: str = ""
) -> bytes:
    """Protocol text that publishes one event."""
    to = b"_bench.ack " if reply else b""
    if not msg_id:
        return b"PUB %b %b%d\r\n%b\r\n" % (subject, to, len(payload), payload)
    head = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % msg_id.encode()
    return b"HPUB %b %b%d %d\r\n%b%b\r\n" % (
        subject, to, len(head), len(head) + len(payload), head, payload,
    )  # fmt: skip


class Count:
    """How many events went out in a window."""

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.logs = 0
        self.states = 0
        self.latest_ns = 0


def paced(link: Link, rate: float, events: Events) -> None:
    """Publish evenly until the parent is done; a second after a window's end report what fell into it.

    A report names ``published``, the events of the window that every client gets, and ``states``, those that
    one client gets.
    """
    window: Count | None = None
    number = 0
    begin = time.monotonic_ns()
    step_ns = 1e9 / rate
    while True:
        if window is not None and time.monotonic_ns() >= window.end + GRACE_NS:
            report(published=window.logs, states=window.states, latest_ms=window.latest_ns / 1e6)
            window = None
        due_ns = begin + int(number * step_ns)
        wait = max((due_ns - time.monotonic_ns()) / 1e9, _TICK if rate > 1 / _TICK else 0.0)
        readable = select.select([0, link.fileno()], [], [], wait)[0]
        if link.fileno() in readable:
            link.read()
        if 0 in readable:
            order = told()
            if order is None:
                return
            if order.get("stop"):
                report(published=number)
                return
            window = Count(order["start"], order["end"])
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
            link.send(b"".join(batch))


def backlog(link: Link, count: int, size: int, *, msg_ids: bool) -> None:
    """Publish ``count`` events as fast as the stream stores them; then report."""
    events = Events(size)
    run = time.time_ns()
    began = time.monotonic()
    slices = 0
    for start in range(0, count, _SLICE):
        end = min(start + _SLICE, count)
        link.send(
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
        while slices - link.acknowledged >= _WINDOW:
            link.read()
    while link.acknowledged < slices:
        link.read()
    report(published=count, seconds=time.monotonic() - began)


def main() -> None:
    """Run as a child of the benchmark."""
    spec = orjson.loads(sys.argv[1])
    try:
        link = Link(spec["nats_port"])
        events = Events(spec["size"], spec.get("level", "INFO"), spec.get("gateways", 0))
        # Every subject is known before anything is measured: what meeting a new one costs is paid once.
        link.send(b"".join(message(payload, subject=subject) for subject, payload in events.states()))
        report(ready=True)
        if told() is None:
            return
        if spec["way"] == "paced":
            paced(link, spec["rate"], events)
        else:
            backlog(link, spec["count"], spec["size"], msg_ids=spec["msg_ids"])
    except (LinkError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
