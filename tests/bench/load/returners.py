"""Clients that come back with old cursors, in one process; each is checked for what it is sent.

Connects like the load generator and shares its sockets, but every client reads every message.
"""

import re
import resource
import sys
import time
from typing import Any, Final

import orjson

from tests.bench.load.children import report, told
from tests.bench.load.decoders import DecodeError
from tests.bench.load.loadgen import Client, LateError, Load, LoadError
from tests.bench.load.websocket import MessageReader
from tests.bench.measures.sequence import Sequence

_YOUNG_NS: Final = 1_000_000_000
"""Age of an event up to which the client that reads it counts as live."""

_HANDSHAKES: Final = 256
_PATIENCE_SECONDS: Final = 60.0
_QUIET_SECONDS: Final = 20.0
_ERROR: Final = re.compile(rb'\{"type":"(?:error|bye)"')


class Returners(Load):
    """Clients with cursors.

    Args:
        spec: as for ``Load``, and ``after``: sequence of the cursors now; ``rate``: how many they are ahead
            for each second that a client connects later, so that all are equally old; ``every``: one in so
            many is checked fully. ``{cursor}`` in the path becomes the sequence.
    """

    handshakes = _HANDSHAKES

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__(spec)
        self._checks: dict[Client, Sequence] = {}
        self._late: set[Client] = set()
        self._began = time.monotonic()

    def go(self) -> None:
        """Connect, wait until all are live, then until all have the last event that the parent names."""
        self._began = time.monotonic()
        try:
            self.connect()
        except LateError:
            report(connected=None)
        else:
            report(connected=time.monotonic() - self._began)
        self._poll.register(0, 1)
        last: int | None = None
        live = False
        deadline = self._began + _PATIENCE_SECONDS
        while last is None or not live:
            if self._serve(0.05):
                order = told()
                if order is None:
                    return
                last = order["last"]
            done = last is not None and not self._behind(last)
            if not live and (not self._late or done or time.monotonic() > deadline):
                # Old events are never young: a client that has the last of them has arrived too.
                live = True
                report(live=time.monotonic() - self._began if done or not self._late else None)
            if self._closed:
                raise LoadError(f"the server closed {self._closed} connections")
        quiet = time.monotonic() + _QUIET_SECONDS
        events = -1
        while self._behind(last) and time.monotonic() < quiet:
            self._serve(0.05)
            if self._closed:
                raise LoadError(f"the server closed {self._closed} connections")
            if (now := self._events()) != events:
                events, quiet = now, time.monotonic() + _QUIET_SECONDS
        seconds = time.monotonic() - self._began
        checks = self._checks.values()
        report(
            seconds=seconds,
            events=self._events(),
            lost=sum(one.lost for one in checks),
            repeated=sum(one.repeated for one in checks),
            gaps=sum(one.told for one in checks),
            behind=self._behind(last),
        )

    def _events(self) -> int:
        return sum(one.events for one in self._checks.values())

    def _behind(self, last: int) -> int:
        never: int = self._spec["clients"] - len(self._all)
        return never + sum(one.next <= last for one in self._checks.values())

    def _opened(self, client: Client, number: int) -> None:
        client.reader = MessageReader()
        # What was published meanwhile is no reason for a client that connects later to have an older cursor.
        place = self._spec["after"] + int((time.monotonic() - self._began) * self._spec["rate"])
        self._checks[client] = Sequence(place, fully=number % self._spec["every"] == 0)
        self._late.add(client)

    def _path(self, number: int) -> str:
        return super()._path(number).replace("{cursor}", str(self._checks[self._all[number]].next - 1))

    def _take(self, client: Client, data: memoryview) -> None:
        check = self._checks[client]
        for opcode, payload in client.reader.feed(data):
            if opcode & 0x8:
                self._answer(client, opcode, payload)
                continue
            if _ERROR.match(payload):
                raise DecodeError(f"the relay says {payload[:300].decode(errors='replace')}")
            sent = check.take(payload)
            if sent and client in self._late and time.monotonic_ns() - sent < _YOUNG_NS:
                self._late.discard(client)


def main() -> None:
    """Run as a child of the benchmark."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        Returners(orjson.loads(sys.argv[1])).go()
    except (LoadError, DecodeError, OSError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
