"""Clients that reconnect with old cursors, in one process; each one's events are checked.

The process connects like the load generator and shares its sockets, but every client reads every message.
"""

import re
import resource
import sys
import time
from typing import Any, Final

import orjson

from tests.bench.load.children import receive_order, report
from tests.bench.load.decoders import DecodeError
from tests.bench.load.loadgen import Client, LateError, LoadError, LoadGenerator
from tests.bench.load.websocket import MessageReader
from tests.bench.measures.sequence import SequenceChecker

_LIVE_NS: Final = 1_000_000_000
"""Maximum age, in nanoseconds, of an event whose receiver counts as live."""

_HANDSHAKES: Final = 256
_PATIENCE_SECONDS: Final = 60.0
_STALL_SECONDS: Final = 20.0
_ERROR: Final = re.compile(rb'\{"type":"(?:error|bye)"')


class ReconnectingClients(LoadGenerator):
    """Clients with cursors.

    Args:
        spec: as for ``LoadGenerator``, and ``after``: sequence of the cursors at the start; ``rate``: how far
            a cursor advances for each second that its client connects later, so that all cursors are equally
            old; ``every``: one client in this many is checked fully. ``{cursor}`` in the path is replaced by
            the sequence.
    """

    handshakes = _HANDSHAKES

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__(spec)
        self._checks: dict[Client, SequenceChecker] = {}
        self._catching_up: set[Client] = set()
        self._began = time.monotonic()

    def reconnect(self) -> None:
        """Connect, wait until all clients are live, then until all have the last event."""
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
                order = receive_order()
                if order is None:
                    return
                last = order["last"]
            done = last is not None and not self._behind(last)
            if not live and (not self._catching_up or done or time.monotonic() > deadline):
                # Replayed events are never recent: a client that has received the last one counts as live
                # too.
                live = True
                report(live=time.monotonic() - self._began if done or not self._catching_up else None)
            if self._closed:
                raise LoadError(f"the server closed {self._closed} connections")
        stall_deadline = time.monotonic() + _STALL_SECONDS
        events = -1
        while self._behind(last) and time.monotonic() < stall_deadline:
            self._serve(0.05)
            if self._closed:
                raise LoadError(f"the server closed {self._closed} connections")
            if (now := self._events()) != events:
                events, stall_deadline = now, time.monotonic() + _STALL_SECONDS
        seconds = time.monotonic() - self._began
        checks = self._checks.values()
        report(
            seconds=seconds,
            events=self._events(),
            lost=sum(check.lost for check in checks),
            repeated=sum(check.repeated for check in checks),
            gaps=sum(check.gaps for check in checks),
            behind=self._behind(last),
        )

    def _events(self) -> int:
        return sum(check.events for check in self._checks.values())

    def _behind(self, last: int) -> int:
        unopened: int = self._spec["clients"] - len(self._all)
        return unopened + sum(check.next <= last for check in self._checks.values())

    def _on_opened(self, client: Client, number: int) -> None:
        client.reader = MessageReader()
        # A client that connects later must not have an older cursor because of the events published
        # meanwhile.
        sequence = self._spec["after"] + int((time.monotonic() - self._began) * self._spec["rate"])
        self._checks[client] = SequenceChecker(sequence, fully=number % self._spec["every"] == 0)
        self._catching_up.add(client)

    def _path(self, number: int) -> str:
        return super()._path(number).replace("{cursor}", str(self._checks[self._all[number]].next - 1))

    def _process(self, client: Client, data: memoryview) -> None:
        check = self._checks[client]
        for opcode, payload in client.reader.feed(data):
            if opcode & 0x8:
                self._handle_control(client, opcode, payload)
                continue
            if _ERROR.match(payload):
                raise DecodeError(f"the relay sent {payload[:300].decode(errors='replace')}")
            sent = check.check(payload)
            if sent and client in self._catching_up and time.monotonic_ns() - sent < _LIVE_NS:
                self._catching_up.discard(client)


def main() -> None:
    """Run as a child of the benchmark."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        ReconnectingClients(orjson.loads(sys.argv[1])).reconnect()
    except (LoadError, DecodeError, OSError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
