"""The strangers' process: so many new sockets a second, from as many loopback addresses as wanted.

Raw sockets and one epoll. What becomes of each is counted: the status or the close code that it was told, or
that it was cut. Every socket is closed with a reset, or one address would run out of ports in seconds.
"""

import contextlib
import re
import resource
import select
import socket
import struct
import sys
import time
from collections import Counter, deque
from typing import Any, Final

import orjson

from tests.bench.load.children import report, told
from tests.bench.load.stranger_kinds import Kind, kinds
from tests.bench.measures.measure import rss_bytes

PATIENCE: Final = 8.0
"""Seconds after which a stranger leaves that nobody sent away."""

_BYTE_EVERY: Final = 0.3
_LOOK_EVERY: Final = 0.25
_BATCH: Final = 64
"""Strangers that are begun before answers are looked at."""

_RESET: Final = struct.pack("ii", 1, 0)
_LATE_PORT: Final = 24  # IP_BIND_ADDRESS_NO_PORT: the port is chosen when it is known where to
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_BYE: Final = re.compile(rb'"type":"bye","code":(\d{4})')
_KEPT: Final = 2_048
_SOURCES: Final = 250


class _Stranger:
    __slots__ = ("got", "kind", "left", "since", "socket")

    def __init__(self, connection: socket.socket, kind: Kind, since: float) -> None:
        self.socket = connection
        self.kind = kind
        self.since = since
        self.left = kind.first
        """What is still to be sent."""
        self.got = b""


class Strangers:
    """All strangers.

    Args:
        spec: ``port``, ``rate``, ``sources``, ``secret``, and ``pid`` of the relay, whose memory is watched.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._kinds = kinds(spec["secret"].encode(), time.time())
        self._sources = [f"127.1.{n // _SOURCES}.{n % _SOURCES + 1}" for n in range(spec["sources"])]
        self._address = ("127.0.0.1", spec["port"])
        self._poll = select.epoll()
        self._open: dict[int, _Stranger] = {}
        self._slow: deque[tuple[float, _Stranger]] = deque()
        self._old: deque[_Stranger] = deque()
        self._made = 0
        self._most = 0
        self.ends: Counter[str] = Counter()

    def run(self, start: float, end: float) -> None:
        """Come from ``start`` to ``end`` of the monotonic clock, and report."""
        rate = self._spec["rate"]
        looked = 0.0
        time.sleep(max(0.0, start - time.monotonic()))
        while (now := time.monotonic()) < end:
            due = int((now - start) * rate) - self._made
            for _ in range(min(due, _BATCH)):
                self._come(now)
            self._serve(0.0 if due > _BATCH else 0.001)
            if now - looked > _LOOK_EVERY:
                looked = now
                self._most = max(self._most, rss_bytes(self._spec["pid"]))
        took = now - start
        for stranger in list(self._open.values()):
            self._leave(stranger, "left")
        report(attempted=self._made, seconds=took, ends=dict(self.ends), most_rss=self._most)

    def _come(self, now: float) -> None:
        number = self._made
        self._made += 1
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.setsockopt(socket.IPPROTO_IP, _LATE_PORT, 1)
        connection.bind((self._sources[number % len(self._sources)], 0))
        connection.connect_ex(self._address)
        # Not the number itself: sources and kinds would meet in fixed pairs.
        stranger = _Stranger(connection, self._kinds[number * 7 % len(self._kinds)], now)
        self._open[connection.fileno()] = stranger
        self._old.append(stranger)
        self._poll.register(connection.fileno(), select.EPOLLIN)
        if stranger.kind.slow:
            self._slow.append((now, stranger))
        else:
            self._send(stranger)

    def _send(self, stranger: _Stranger) -> None:
        if not stranger.left:
            return
        try:
            sent = stranger.socket.send(stranger.left)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # what it was told is still to be read
        stranger.left = stranger.left[sent:]
        if stranger.left:
            self._poll.modify(stranger.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _serve(self, timeout: float) -> None:
        for descriptor, event in self._poll.poll(timeout):
            stranger = self._open[descriptor]
            if event & select.EPOLLOUT:
                self._poll.modify(descriptor, select.EPOLLIN)
                self._send(stranger)
            if event & ~select.EPOLLOUT and descriptor in self._open:
                self._read(stranger)
        now = time.monotonic()
        while self._slow and self._slow[0][0] <= now:
            _, stranger = self._slow.popleft()
            if stranger.socket.fileno() >= 0 and stranger.left:
                with contextlib.suppress(OSError):
                    stranger.socket.send(stranger.left[:1])
                    stranger.left = stranger.left[1:]
                self._slow.append((now + _BYTE_EVERY, stranger))
        while self._old and self._old[0].since < now - PATIENCE:
            stranger = self._old.popleft()
            if stranger.socket.fileno() >= 0:
                self._leave(stranger, "left")

    def _read(self, stranger: _Stranger) -> None:
        try:
            data = stranger.socket.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        got = stranger.got = (stranger.got + data)[-_KEPT:]
        if bye := _BYE.search(got):
            self._leave(stranger, bye[1].decode())
        elif b'"type":"welcome"' in got:
            self._leave(stranger, "let in")
        elif not data:
            self._leave(stranger, "cut")
        else:
            statuses = _STATUS.findall(got)
            if statuses and statuses[-1] not in (b"101", b"200"):
                self._leave(stranger, statuses[-1].decode())
            elif stranger.kind.again and not stranger.left:
                stranger.left = stranger.kind.again
                self._send(stranger)

    def _leave(self, stranger: _Stranger, end: str) -> None:
        self.ends[f"{stranger.kind.sort}: {end}"] += 1
        del self._open[stranger.socket.fileno()]
        stranger.socket.close()


def main() -> None:
    """Run as a child of the benchmark."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    strangers = Strangers(orjson.loads(sys.argv[1]))
    report(ready=True)
    if order := told():
        strangers.run(order["start"] / 1e9, order["end"] / 1e9)
        told()


if __name__ == "__main__":
    main()
