"""The publisher: a child process that speaks NATS by hand, so that it costs little and is on time.

Two ways: ``paced`` sends events evenly, each with its send time; ``backlog`` sends a number of them as fast
as the stream stores them. A JetStream server drops what it cannot buffer from a publisher that does not
wait, so a backlog asks for an acknowledgement now and then and stays within a window of them.
"""

import select
import socket
import sys
import time
from typing import Final

import orjson

from contracts.events import format_time
from tests.bench.children import report, told
from tests.bench.decoders import NATS_CONNECT, NATS_PONG

SUBJECT: Final = "log.info.bench"
GRACE_NS: Final = 1_000_000_000
"""How long after the window events still go out and are still read, so that the end is like the middle."""

_TICK: Final = 0.001
_SLICE: Final = 250
_WINDOW: Final = 4
_FILLER: Final = b"x" * 65_536


class Events:
    """Makes valid ``system_log`` events of one size.

    Args:
        size: bytes of each; the message is filled up to it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._made = -1.0
        self._head = b""

    def make(self, number: int, sent_ns: int) -> bytes:
        """One event.

        Args:
            number: place in the run, in ``metadata.n``.
            sent_ns: ``metadata.sent``.
        """
        seconds = time.time()
        if seconds - self._made > 0.001:
            self._made = seconds
            self._head = (
                b'{"event_type":"system_log","timestamp":"%b","level":"INFO","source":"bench","metadata":{'
                % format_time(seconds).encode()
            )
        body = b'%b"n":%d,"sent":%d},"message":"' % (self._head, number, sent_ns)
        return body + _FILLER[: max(0, self._size - len(body) - 2)] + b'"}'


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


def message(payload: bytes, *, reply: bool = False, msg_id: str = "") -> bytes:
    """Protocol text that publishes one event."""
    to = b"_bench.ack " if reply else b""
    if not msg_id:
        return b"PUB %b %b%d\r\n%b\r\n" % (SUBJECT.encode(), to, len(payload), payload)
    head = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % msg_id.encode()
    return b"HPUB %b %b%d %d\r\n%b%b\r\n" % (
        SUBJECT.encode(), to, len(head), len(head) + len(payload), head, payload,
    )  # fmt: skip


def paced(link: Link, rate: float, size: int) -> None:
    """Publish evenly until a second after the window's end; then report how many fell into the window."""
    events = Events(size)
    window: tuple[int, int] | None = None
    number = inside = 0
    latest_ns = 0
    begin = time.monotonic_ns()
    step_ns = 1e9 / rate
    while window is None or time.monotonic_ns() < window[1] + GRACE_NS:
        due_ns = begin + int(number * step_ns)
        wait = max((due_ns - time.monotonic_ns()) / 1e9, _TICK if rate > 1 / _TICK else 0.0)
        readable = select.select([0, link.fileno()], [], [], wait)[0]
        if link.fileno() in readable:
            link.read()
        if 0 in readable:
            order = told()
            if order is None:
                return
            window = (order["start"], order["end"])
        now = time.monotonic_ns()
        batch = []
        while begin + int(number * step_ns) <= now:
            sent = time.monotonic_ns()
            if window and window[0] <= sent < window[1]:
                inside += 1
                latest_ns = max(latest_ns, sent - begin - int(number * step_ns))
            batch.append(message(events.make(number, sent)))
            number += 1
        if batch:
            link.send(b"".join(batch))
    report(published=inside, latest_ms=latest_ns / 1e6)


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
        report(ready=True)
        if told() is None:
            return
        if spec["way"] == "paced":
            paced(link, spec["rate"], spec["size"])
        else:
            backlog(link, spec["count"], spec["size"], msg_ids=spec["msg_ids"])
    except (LinkError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
