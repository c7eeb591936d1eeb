"""Attackers in a process of their own: new sockets at a fixed rate from a number of loopback addresses.

They use raw sockets and one epoll. Each attacker's outcome is counted: the status or the close code that it
received, or a closed connection. Every socket is closed with a reset; otherwise one address would run out of
ports within seconds.
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

from tests.bench.load.attack_kinds import Kind, kinds
from tests.bench.load.children import receive_order, report
from tests.bench.measures.measure import rss_bytes

PATIENCE: Final = 8.0
"""Seconds after which an attacker that was not rejected gives up."""

_BYTE_EVERY: Final = 0.3
_SAMPLE_EVERY: Final = 0.25
_BATCH: Final = 64
"""Maximum number of attackers that connect before responses are read."""

_RESET: Final = struct.pack("ii", 1, 0)
_LATE_PORT: Final = 24  # IP_BIND_ADDRESS_NO_PORT: choose the port in connect(), when the destination is known
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_BYE: Final = re.compile(rb'"type":"bye","code":(\d{4})')
_KEPT_BYTES: Final = 2_048
_SOURCES: Final = 250


class _Attacker:
    __slots__ = ("connected_at", "kind", "received", "socket", "unsent")

    def __init__(self, connection: socket.socket, kind: Kind, connected_at: float) -> None:
        self.socket = connection
        self.kind = kind
        self.connected_at = connected_at
        self.unsent = kind.first
        """Bytes still to be sent."""
        self.received = b""


class Attackers:
    """All attackers of one run.

    Args:
        spec: ``port``, ``rate``, ``sources``, ``secret``, and ``pid`` of the relay, whose memory is sampled.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._kinds = kinds(spec["secret"].encode(), time.time())
        self._sources = [f"127.1.{n // _SOURCES}.{n % _SOURCES + 1}" for n in range(spec["sources"])]
        self._address = ("127.0.0.1", spec["port"])
        self._poll = select.epoll()
        self._open: dict[int, _Attacker] = {}
        self._slow: deque[tuple[float, _Attacker]] = deque()
        self._by_age: deque[_Attacker] = deque()
        self._started = 0
        self._peak_rss = 0
        self.ends: Counter[str] = Counter()

    def run(self, start: float, end: float) -> None:
        """Attack from ``start`` to ``end``, in seconds of the monotonic clock, then report."""
        rate = self._spec["rate"]
        sampled_at = 0.0
        time.sleep(max(0.0, start - time.monotonic()))
        while (now := time.monotonic()) < end:
            due = int((now - start) * rate) - self._started
            for _ in range(min(due, _BATCH)):
                self._connect(now)
            self._serve(0.0 if due > _BATCH else 0.001)
            if now - sampled_at > _SAMPLE_EVERY:
                sampled_at = now
                self._peak_rss = max(self._peak_rss, rss_bytes(self._spec["pid"]))
        elapsed = now - start
        for attacker in list(self._open.values()):
            self._finish(attacker, "gave up")
        report(attempted=self._started, seconds=elapsed, ends=dict(self.ends), peak_rss=self._peak_rss)

    def _connect(self, now: float) -> None:
        number = self._started
        self._started += 1
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.setsockopt(socket.IPPROTO_IP, _LATE_PORT, 1)
        connection.bind((self._sources[number % len(self._sources)], 0))
        connection.connect_ex(self._address)
        # Multiplied by 7, so that an address is not always paired with the same kinds.
        attacker = _Attacker(connection, self._kinds[number * 7 % len(self._kinds)], now)
        self._open[connection.fileno()] = attacker
        self._by_age.append(attacker)
        self._poll.register(connection.fileno(), select.EPOLLIN)
        if attacker.kind.slow:
            self._slow.append((now, attacker))
        else:
            self._send(attacker)

    def _send(self, attacker: _Attacker) -> None:
        if not attacker.unsent:
            return
        try:
            sent = attacker.socket.send(attacker.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the response may still be readable
        attacker.unsent = attacker.unsent[sent:]
        if attacker.unsent:
            self._poll.modify(attacker.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _serve(self, timeout: float) -> None:
        for descriptor, event in self._poll.poll(timeout):
            attacker = self._open[descriptor]
            if event & select.EPOLLOUT:
                self._poll.modify(descriptor, select.EPOLLIN)
                self._send(attacker)
            if event & ~select.EPOLLOUT and descriptor in self._open:
                self._read(attacker)
        now = time.monotonic()
        while self._slow and self._slow[0][0] <= now:
            _, attacker = self._slow.popleft()
            if attacker.socket.fileno() >= 0 and attacker.unsent:
                with contextlib.suppress(OSError):
                    attacker.socket.send(attacker.unsent[:1])
                    attacker.unsent = attacker.unsent[1:]
                self._slow.append((now + _BYTE_EVERY, attacker))
        while self._by_age and self._by_age[0].connected_at < now - PATIENCE:
            attacker = self._by_age.popleft()
            if attacker.socket.fileno() >= 0:
                self._finish(attacker, "gave up")

    def _read(self, attacker: _Attacker) -> None:
        try:
            data = attacker.socket.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        received = attacker.received = (attacker.received + data)[-_KEPT_BYTES:]
        if bye := _BYE.search(received):
            self._finish(attacker, bye[1].decode())
        elif b'"type":"welcome"' in received:
            self._finish(attacker, "admitted")
        elif not data:
            self._finish(attacker, "disconnected")
        else:
            statuses = _STATUS.findall(received)
            if statuses and statuses[-1] not in (b"101", b"200"):
                self._finish(attacker, statuses[-1].decode())
            elif attacker.kind.repeat and not attacker.unsent:
                attacker.unsent = attacker.kind.repeat
                self._send(attacker)

    def _finish(self, attacker: _Attacker, end: str) -> None:
        self.ends[f"{attacker.kind.category}: {end}"] += 1
        del self._open[attacker.socket.fileno()]
        attacker.socket.close()


def main() -> None:
    """Run as a child of the benchmark."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    attackers = Attackers(orjson.loads(sys.argv[1]))
    report(ready=True)
    if order := receive_order():
        attackers.run(order["start"] / 1e9, order["end"] / 1e9)
        receive_order()


if __name__ == "__main__":
    main()
